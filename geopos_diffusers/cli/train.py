"""Fine-tune a pipeline on images with captions.

Options of `accelerate launch` (--num_processes 2, --cpu, --multi_gpu, ...) may stand among those of the training; then
it is started through it.
"""

import argparse
import sys
from collections.abc import Sequence

SUMMARY = "fine-tune a pipeline with GeoConv, LoRA, both, or as a whole"
PROGRAM = "geopos_diffusers.finetuning.text_to_image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # Every option, --help too, belongs to the training: with no character to mark options, all are taken as they stand.
    parser.prefix_chars = "\0"
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the training; see `geopos train --help`")


def run(args: argparse.Namespace) -> int | None:
    from ..finetuning.arguments import FinetuningArguments
    from ..training.arguments import parse_arguments

    launcher_options, options = split_options(args.options)
    # The name that --help and usage messages show.
    sys.argv = ["geopos train", *options]
    # Help and what is wrong come once, before anything slow is imported and before processes start.
    parse_arguments(FinetuningArguments, options)
    if not launcher_options:
        from ..finetuning.text_to_image import main

        main(options)
        return None
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *launcher_options, "--module", PROGRAM]
    return run_launcher([*launcher, *options])


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


def split_options(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the options of `accelerate launch` and those of the training, each with its values.

    Options that both have (--mixed_precision) or neither has are the training's.
    """
    from ..finetuning.arguments import FinetuningArguments
    from ..training.arguments import build_parser

    own = build_parser(FinetuningArguments)
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
