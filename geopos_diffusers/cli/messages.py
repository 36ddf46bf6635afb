"""What commands say on standard error, and what they ask."""

import sys

from ..errors import ConfigError


def warn(message: str) -> None:
    """Print one line of warning."""
    print(f"warning: {message}", file=sys.stderr)


def confirm(question: str, yes: bool) -> None:
    """Go on only if the user agrees: by --yes, or by answering on a terminal.

    Raises:
        ConfigError: the answer is no, or nobody can be asked.
    """
    if yes:
        return
    if not (sys.stdin and sys.stdin.isatty()):
        raise ConfigError(f"{question}; add --yes to go on")
    print(f"{question}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("stopped; nothing was written")
