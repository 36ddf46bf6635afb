"""The kinds of fine-tuning by the names that `geopos train` gives them; nothing slow is imported before its need."""

from collections.abc import Callable, Sequence
from importlib import import_module

# The name of each kind's dataclass of options. A kind's module is its name with underscores, its options' that with
# _arguments behind.
ARGUMENTS = {
    "text-to-image": "TextToImageArguments",
    "unconditional": "UnconditionalArguments",
    "controlnet": "ControlNetArguments",
    "vae": "VaeArguments",
}
DEFAULT = "text-to-image"
Main = Callable[[Sequence[str]], None]
Kind = str | Main  # a name, or what runs a command line


def program(kind: str) -> str:
    """Full name of the module that `python -m` runs."""
    return f"{__package__}.{kind.replace('-', '_')}"


def arguments_class(kind: str) -> type:
    """The dataclass of a kind's options."""
    return getattr(import_module(f"{program(kind)}_arguments"), ARGUMENTS[kind])


def main_of(kind: Kind) -> Main:
    """The function that runs a kind with a command line."""
    return import_module(program(kind)).main if isinstance(kind, str) else kind


def split_kind(words: Sequence[str]) -> tuple[str, list[str]]:
    """The kind that a command line begins with, the default where it begins with an option, and the rest.

    Raises:
        ConfigError: its first word is no kind.
    """
    from ..command_line import did_you_mean
    from ..errors import ConfigError

    words = list(words)
    if not words or words[0].startswith("-"):
        return DEFAULT, words
    if words[0] not in ARGUMENTS:
        known = ", ".join(ARGUMENTS)
        raise ConfigError(f"geopos train trains {known}; got {words[0]!r}{did_you_mean(words[0], list(ARGUMENTS))}")
    return words[0], words[1:]
