"""Patch a pipeline with GeoConv and save the adapter: zero weights, to be trained; outputs do not change."""

import argparse

SUMMARY = "choose the layers and write an untrained adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from dataclasses import fields

    from ..patching.config import GeoPosConfig
    from ..pipelines.loading import DEFAULT_MODEL

    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="packaged model, folder or Hub id (default: %(default)s)"
    )
    parser.add_argument(
        "--output", metavar="DIR", help="folder for the adapter; without it, only show what would be done"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an adapter in the output folder")
    parser.add_argument("--target-modules", nargs="+", metavar="NAME", help="names or name endings of layers to patch")
    parser.add_argument("--target-regex", metavar="REGEX", help="layers whose whole name matches")
    parser.add_argument("--exclude-modules", nargs="+", metavar="NAME", help="names or name endings to leave alone")
    parser.add_argument("--components", nargs="+", help="parts of the pipeline to patch (default: the denoiser)")
    for option in fields(GeoPosConfig):
        flag = f"--{option.name.replace('_', '-')}"
        if isinstance(option.default, bool):
            parser.add_argument(flag, action="store_true", help=option.metadata["help"])
        else:
            choices = option.metadata["choices"]
            kind = str if option.default is None else type(option.default)
            text = f"{option.metadata['help']} (default: %(default)s)"
            parser.add_argument(flag, default=option.default, choices=choices, type=kind, help=text)
    parser.add_argument("--verbose", action="store_true", help="list every layer")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from dataclasses import fields

    from ..adapters.files import save_geoconv_weights
    from ..errors import ConfigError
    from ..files import check_output
    from ..patching.config import GeoConvConfig, GeoPosConfig
    from ..patching.surgery import apply_geoconv
    from ..pipelines.loading import load_pipeline
    from .info import print_status

    if args.output:
        check_output(args.output, args.overwrite)
    if args.target_modules and args.target_regex:
        raise ConfigError("give --target-modules or --target-regex, not both")
    config = GeoConvConfig(
        target_modules=args.target_regex or args.target_modules,
        exclude_modules=args.exclude_modules,
        components=args.components,
        **{option.name: getattr(args, option.name) for option in fields(GeoPosConfig)},
    )
    pipe = load_pipeline(args.model)
    status = apply_geoconv(pipe, config)
    print_status(status, patched=args.output is not None, verbose=args.verbose, as_json=args.json)
    if args.output:
        path = save_geoconv_weights(
            pipe, args.output, card={"Base model": args.model, "Training": "none: zero weights"}
        )
        if not args.json:
            print(f"wrote {path} ({path.stat().st_size:,} bytes)")
