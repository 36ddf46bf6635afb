"""The command that a results file names as its own."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from geopos_diffusers.command_line import FALSE, TRUE, kebab

# Options that write results of runs that were made before, or make them again, in all spellings.
LEFT_OUT = ("--results-only", "--finished-only", "--overwrite")


def reported_command(argv: Sequence[str]) -> str:
    """The command that makes the runs and their results, with this machine's folders left out of its paths.

    Args:
        argv: as of `sys.argv`. Flags of LEFT_OUT are left out, with a value of true or false after them.
    """
    words = [word if not Path(word).is_absolute() else Path(word).name for word in argv[1:]]
    kept: list[str] = []
    for index, word in enumerate(words):
        value_of_left_out = index and is_left_out(words[index - 1]) and word.lower() in TRUE + FALSE
        if not is_left_out(word) and not value_of_left_out:
            kept.append(word)
    script = Path(argv[0]).with_suffix("").parts
    start = max((index for index, part in enumerate(script) if part == "scripts"), default=None)
    if start is None or script[start + 1] != "experiments":
        return shlex.join(["python", f"scripts/{Path(argv[0]).name}", *kept])
    return shlex.join(["python", "-m", ".".join(script[start:]), *kept])


def is_left_out(word: str) -> bool:
    return word.startswith("--") and kebab(word.partition("=")[0][2:]) in LEFT_OUT
