"""Fine-tune a pipeline on images with captions: starts scripts/finetune_text_to_image.py with the same options.

Options of `accelerate launch` (--num_processes 2, --cpu, --multi_gpu, ...) may stand among them; then the script is
started through it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

SUMMARY = "fine-tune a pipeline with GeoConv, LoRA, both, or as a whole"
SCRIPT = "finetune_text_to_image.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # Every option, --help too, belongs to the script: with no character to mark options, all are taken as they stand.
    parser.prefix_chars = "\0"
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the script; see `geopos train --help`")


def run(args: argparse.Namespace) -> int | None:
    from ..training.arguments import parse_arguments
    from ..training.finetuning_arguments import FinetuningArguments

    script = find_script(SCRIPT)
    launcher_options, options = split_options(args.options)
    # The name that --help and usage messages show.
    sys.argv = ["geopos train", *options]
    if not launcher_options:
        load_main(script)(options)
        return None
    import subprocess

    parse_arguments(FinetuningArguments, options)  # reports what is wrong once, before processes start
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *launcher_options, str(script), *options]
    return subprocess.run(command, check=False).returncode


def find_script(name: str) -> Path:
    """The path of a training script: in the installed package, or in the checkout that the package lies in."""
    package = Path(__file__).parents[1]
    candidates = (package / "scripts" / name, package.parent / "scripts" / name)
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} is neither in {candidates[0].parent} nor in {candidates[1].parent}")


def load_main(script: Path):
    """Import a script by its path and return its `main(argv)`."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(script.stem, script)
    module = module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    return module.main


def split_options(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the options of `accelerate launch` and those of the script, each with its values.

    Options that both have (--mixed_precision) or neither has are the script's.
    """
    from ..training.finetuning_arguments import FinetuningArguments

    own = {"--help", "--config", *(f"--{option.name}" for option in fields(FinetuningArguments))}
    names = {option.partition("=")[0] for option in options if option.startswith("--")}
    unknown = {name for name in names if name.replace("-", "_").replace("__", "--", 1) not in own}
    if unknown:
        from accelerate.commands.launch import launch_command_parser

        known = {name for action in launch_command_parser()._actions for name in action.option_strings}
        unknown &= known
    split: tuple[list[str], list[str]] = ([], [])
    target = split[1]
    for option in options:
        if option.startswith("--"):
            target = split[0] if option.partition("=")[0] in unknown else split[1]
        target.append(option)
    return split
