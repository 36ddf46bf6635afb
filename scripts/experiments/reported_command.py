"""The command that a results file names as its own."""

import shlex
from collections.abc import Sequence
from pathlib import Path

RESULTS_ONLY = ("--results_only", "--finished_only")  # options that write results of runs that were made before


def reported_command(argv: Sequence[str]) -> str:
    """The command that makes the runs and their results, with this machine's folders left out of its paths.

    Args:
        argv: as of `sys.argv`. Options of RESULTS_ONLY are left out, with a value of true or false after them.
    """
    words = [word if not Path(word).is_absolute() else Path(word).name for word in argv[1:]]
    for option in RESULTS_ONLY:
        if option in words:
            start = words.index(option)
            end = start + 1 + (words[start + 1 : start + 2] in (["true"], ["True"]))
            words = words[:start] + words[end:]
    script = Path(argv[0]).with_suffix("").parts
    start = max((index for index, part in enumerate(script) if part == "scripts"), default=None)
    if start is None or script[start + 1] != "experiments":
        return shlex.join(["python", f"scripts/{Path(argv[0]).name}", *words])
    return shlex.join(["python", "-m", ".".join(script[start:]), *words])
