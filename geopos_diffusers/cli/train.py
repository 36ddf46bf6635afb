"""Fine-tune a model: geopos train text-to-image, or another kind.

Options of `accelerate launch` (--num_processes 2, --cpu, --multi_gpu, ...) may stand among those of the training; then
it is started through it.
"""

import argparse
import sys
from collections.abc import Sequence

SUMMARY = "fine-tune a model with GeoConv, LoRA, both, or as a whole"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # Every option, --help too, belongs to the training: with no character to mark options, all are taken as they stand.
    parser.prefix_chars = "\0"
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, help="the kind and its options; see `geopos train KIND --help`"
    )


def run(args: argparse.Namespace) -> int | None:
    from ..finetuning.kinds import arguments_class, main_of, program, split_kind
    from ..training.arguments import parse_arguments

    kind, words = split_kind(args.options)
    options_class = arguments_class(kind)
    launcher_options, options = split_options(words, options_class)
    # The name that --help and usage messages show.
    sys.argv = [f"geopos train {kind}", *options]
    # Help and what is wrong come once, before anything slow is imported and before processes start.
    parse_arguments(options_class, options)
    if not launcher_options:
        main_of(kind)(options)
        return None
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *launcher_options]
    return run_launcher([*launcher, "--module", program(kind), *options])


def run_launcher(command: Sequence[str]) -> int:
    """Run a command to its end, also after Ctrl-C, which it gets too. Returns its exit code, 130 if Ctrl-C ended it."""
    import signal
    import subprocess

    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        code = subprocess.run(command, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return 130 if pressed and code else code


def split_options(options: Sequence[str], options_class: type) -> tuple[list[str], list[str]]:
    """Split a command line into the options of `accelerate launch` and those of a training, each with its values.

    Options that both have (--mixed_precision) or neither has are the training's.
    """
    from ..training.arguments import build_parser

    own = build_parser(options_class)
    unknown = {word.partition("=")[0] for word in options if word.startswith("--") and not own.knows(word)}
    if unknown:
        from accelerate.commands.launch import launch_command_parser

        unknown &= {name for action in launch_command_parser()._actions for name in action.option_strings}
    split: tuple[list[str], list[str]] = ([], [])
    target = split[1]
    for option in options:
        if option.startswith("--"):
            target = split[0] if option.partition("=")[0] in unknown else split[1]
        target.append(option)
    return split
