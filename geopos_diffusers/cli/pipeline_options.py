"""The pipeline of a command: its device, its precision, and its adapters."""

import argparse
from collections.abc import Callable
from typing import Any

from .adapter_options import load_adapters


def add_device_arguments(add: Callable[..., Any]) -> None:
    """Add --device and --dtype with `add`, an `add_argument`."""
    add("--device", default=None, help="torch device (default: cuda, else mps, else cpu)")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the weights")


def load_with_adapters(args: argparse.Namespace) -> Any:
    """The pipeline with its adapters, on its device. Where no guidance scale was given, the model's own is filled in.

    Raises:
        GeoPosError: a model or an adapter that cannot be loaded, or no such device.
    """
    import torch

    from ..errors import ConfigError
    from ..pipelines.loading import load_pipeline, recommended_guidance

    pipe = load_pipeline(args.model, dtype=getattr(torch, args.dtype))
    load_adapters(pipe, args)
    device = args.device or default_device()
    try:
        pipe.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"cannot use device {device!r}: {str(error).splitlines()[0]}") from error
    if args.guidance_scale is None:
        args.guidance_scale = recommended_guidance(args.model)
    return pipe


def default_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
