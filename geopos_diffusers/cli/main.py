"""Entry point of `geopos`: parses, hands over to one sub-command and turns user errors into one line and exit code 2.

Each sub-command is a module beside this one with `SUMMARY`, `add_arguments(parser)` and `run(args) -> int | None`;
whatever is slow to import (torch, diffusers, mediapipe) is imported inside `run`, so that `geopos --help` stays fast.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from ..command_line import Parser
from ..errors import GeoPosError

COMMANDS = ("data", "patch", "train", "generate", "repair", "evaluate", "info", "convert")


def build_parser() -> Parser:
    parser = Parser(
        prog="geopos", description="Patch pretrained image models with GeoConv, fine-tune, generate and score them."
    )
    parser.add_argument("--version", action="store_true", help="print the versions of geopos_diffusers and its parts")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f".{name}", __package__)
        subparser = subparsers.add_parser(name, help=module.SUMMARY, description=module.__doc__)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def print_versions() -> None:
    from importlib.metadata import PackageNotFoundError, version

    for package in ("geopos-diffusers", "torch", "diffusers", "transformers", "accelerate", "safetensors", "peft"):
        try:
            print(f"{package} {version(package)}")
        except PackageNotFoundError:
            print(f"{package} not installed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one `geopos` command. Returns the exit code: 0, 2 for bad input, 130 when interrupted."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version:
        print_versions()
        return 0
    if args.command is None:
        parser.error(f"a command is needed: one of {', '.join(COMMANDS)}")
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        return 130
    except (GeoPosError, OSError) as error:
        print(f"geopos {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
