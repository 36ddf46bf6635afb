"""Adapters on the command line: any number of GeoConv adapters and LoRAs, each with its strength."""

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .messages import warn


def add_adapter_arguments(parser: argparse.ArgumentParser) -> None:
    for kind, name in (("GeoConv adapter", "geoconv"), ("LoRA in the diffusers format", "lora")):
        parser.add_argument(
            f"--{name}",
            action="extend",
            nargs="+",
            metavar="ADAPTER",
            help=f"{kind}: folder, safetensors file or Hub id; several are added together",
        )
        parser.add_argument(
            f"--{name}-scale",
            action="extend",
            nargs="+",
            type=float,
            metavar="SCALE",
            help=f"strength, one for all or one for each --{name} (default: 1)",
        )


def check_adapter_arguments(args: argparse.Namespace) -> None:
    """Fill in the scales, one for each adapter; before anything is loaded.

    Raises:
        ConfigError: scales that are not finite or not one for each adapter.
        MissingDependencyError: a LoRA without peft.
    """
    from ..optional_packages import require_package

    args.geoconv, args.lora = args.geoconv or [], args.lora or []
    args.geoconv_scale = _scales("geoconv", args.geoconv, args.geoconv_scale)
    args.lora_scale = _scales("lora", args.lora, args.lora_scale)
    if args.lora:
        require_package("peft", "train", "--lora")


def _scales(option: str, adapters: Sequence[str], scales: Sequence[float] | None) -> list[float]:
    from ..errors import ConfigError

    if scales is None:
        return [1.0] * len(adapters)
    if not all(map(math.isfinite, scales)):
        raise ConfigError(f"--{option}-scale takes finite numbers; got {' '.join(map(str, scales))}")
    if not adapters:
        raise ConfigError(f"--{option}-scale needs --{option}: there is nothing to scale")
    if len(scales) not in (1, len(adapters)):
        raise ConfigError(f"--{option}-scale takes one number, or {len(adapters)} for the adapters; got {len(scales)}")
    return list(scales) * (len(adapters) if len(scales) == 1 else 1)


def load_adapters(pipe: Any, args: argparse.Namespace) -> None:
    """Load and activate all adapters, after `check_adapter_arguments`.

    Raises:
        GeoPosError: an adapter that is missing, damaged or does not fit.
    """
    from ..adapters.loading import load_geoconv_weights
    from ..adapters.named_adapters import set_geoconv_adapters
    from ..errors import AdapterError
    from ..patching.scaling import set_geoconv_scale

    if args.lora:
        names = adapter_names(args.lora)
        for path, name in zip(args.lora, names, strict=True):
            try:
                pipe.load_lora_weights(path, adapter_name=name, use_safetensors=True)
            except Exception as error:  # diffusers and peft raise many unrelated types for a LoRA that does not fit
                raise AdapterError(f"cannot load LoRA {path!r}: {error}") from error
        pipe.set_adapters(names, adapter_weights=args.lora_scale)
    if len(args.geoconv) == 1:
        load_geoconv_weights(pipe, args.geoconv[0])
        set_geoconv_scale(pipe, args.geoconv_scale[0])
    elif args.geoconv:
        names = adapter_names(args.geoconv)
        for path, name in zip(args.geoconv, names, strict=True):
            load_geoconv_weights(pipe, path, adapter_name=name)
        set_geoconv_adapters(pipe, names, args.geoconv_scale)
    elif holds_adapter(args.model):
        warn(f"{args.model} holds a GeoConv adapter, which is left out; add --geoconv {args.model} to use it")


def holds_adapter(model: str) -> bool:
    """Whether a model's local folder also holds the adapter of a patched pipeline, as `save_pretrained` writes it."""
    from ..adapters.files import find_adapters
    from ..errors import AdapterError

    try:
        return Path(model).is_dir() and bool(find_adapters(model))
    except AdapterError:
        return False


def adapter_names(paths: Sequence[str]) -> list[str]:
    """A short name for each path, all different, in letters, digits and underscores."""
    stems = [
        re.sub(r"\W+", "_", Path(path).name.removesuffix(".safetensors")).strip("_") or "adapter" for path in paths
    ]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{stem}_{index}" for index, stem in enumerate(stems, start=1)]


def describe_adapters(args: argparse.Namespace) -> str:
    """For labels: "hands, lora style x 0.5"."""
    labels = []
    for kind, paths, scales in (("", args.geoconv, args.geoconv_scale), ("lora ", args.lora, args.lora_scale)):
        for name, scale in zip(adapter_names(paths), scales, strict=True):
            labels.append(f"{kind}{name}" + (f" x {scale:g}" if scale != 1 else ""))
    return ", ".join(labels)


@contextmanager
def without_adapters(pipe: Any, args: argparse.Namespace) -> Iterator[None]:
    """Within the block the pipeline is the base model: no GeoConv, no LoRA."""
    from ..patching.scaling import disable_geoconv

    with ExitStack() as undo:
        if args.geoconv:
            undo.enter_context(disable_geoconv(pipe))
        if args.lora:
            pipe.disable_lora()
            undo.callback(pipe.enable_lora)
        yield
