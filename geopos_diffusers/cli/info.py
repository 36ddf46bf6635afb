"""Say what is patched in a pipeline (or would be), what is skipped and why, and how many parameters there are."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..patching.status import GeoConvStatus

SUMMARY = "show what is patched or would be, what is skipped and why"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..pipelines.loading import DEFAULT_MODEL

    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="packaged model, folder or Hub id (default: %(default)s)"
    )
    parser.add_argument("--geoconv", metavar="ADAPTER", help="adapter to load first: folder, file or Hub id")
    parser.add_argument("--components", nargs="+", help="parts of the pipeline to look at (default: the denoiser)")
    parser.add_argument("--verbose", action="store_true", help="list every layer")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from ..adapters.loading import load_geoconv_weights
    from ..patching.config import GeoConvConfig
    from ..patching.status import geoconv_status
    from ..patching.surgery import apply_geoconv
    from ..pipelines.loading import load_pipeline
    from .adapter_options import holds_adapter

    pipe = load_pipeline(args.model)
    # A patched pipeline's folder holds its adapter, and is shown as it was saved.
    adapter = args.geoconv or (args.model if holds_adapter(args.model) else None)
    if adapter:
        load_geoconv_weights(pipe, adapter)
        status = geoconv_status(pipe)
    else:
        components = tuple(args.components) if args.components else None
        status = apply_geoconv(pipe, GeoConvConfig(components=components))
    print_status(status, patched=adapter is not None, verbose=args.verbose, as_json=args.json)


def print_status(status: "GeoConvStatus", patched: bool, verbose: bool, as_json: bool) -> None:
    """Print a GeoConvStatus as text or JSON; `patched` False says that the patch is only a proposal."""
    import json

    if as_json:
        record = {
            "patched": status.patched,
            "skipped": status.skipped,
            "adapters": status.adapters,
            "scales": status.scales,
            "frames": status.frames,
            "geometry_parameters": status.geometry_parameters,
            "base_parameters": status.base_parameters,
            "config": status.config.to_dict() if status.config else None,
        }
        print(json.dumps(record, indent=2))
        return
    print(status.page(proposed=not patched))
    if verbose:
        for name in status.patched:
            print(f"  + {name}")
        for name, reason in status.skipped.items():
            print(f"  - {name}: {reason}")
