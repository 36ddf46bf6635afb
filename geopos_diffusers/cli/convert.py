"""Turn an adapter of kernel taps into coefficients of the coordinates: the same images inside, at the stated size.

Taps reach a coordinate only by differences between neighbouring pixels, whose size depends on that of the image. So the
conversion is for one size; afterwards the adapter gives the same function of the coordinates at every size. At the
border the two differ: taps see the padding, coefficients have none.
"""

import argparse

SUMMARY = "turn an adapter of kernel taps into coefficients, for one image size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..pipelines.loading import DEFAULT_MODEL

    parser.add_argument("adapter", metavar="ADAPTER", help="GeoConv adapter: folder, safetensors file or Hub id")
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="packaged model, folder or Hub id (default: %(default)s)"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        required=True,
        metavar="PIXELS",
        help="size of the images, one number for a square or height and width",
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="folder for the new adapter; must be new or empty"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an adapter in the output folder")


def run(args: argparse.Namespace) -> None:
    from ..adapters.conversion import convert_adapter, run_once
    from ..adapters.files import save_geoconv_weights
    from ..adapters.loading import load_geoconv_weights
    from ..errors import ConfigError
    from ..files import check_output
    from ..pipelines.loading import load_pipeline

    if len(args.size) > 2 or min(args.size) < 1:
        raise ConfigError(f"--size takes one or two numbers of 1 or more; got {' '.join(map(str, args.size))}")
    output, height, width = check_output(args.output, args.overwrite), args.size[0], args.size[-1]
    pipe = load_pipeline(args.model)
    before = load_geoconv_weights(pipe, args.adapter)
    after = convert_adapter(pipe, lambda: run_once(pipe, height, width))
    facts = {
        "Base model": args.model,
        "Converted from": f"the kernel taps of {args.adapter}, for images of {height}x{width} pixels",
    }
    path = save_geoconv_weights(pipe, output, card=facts)
    print(
        f"converted {len(after.patched)} layers for {height}x{width} pixels: "
        f"{before.geometry_parameters:,} taps are now {after.geometry_parameters:,} coefficients"
    )
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")
