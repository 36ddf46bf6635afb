"""Loading pipelines: the packaged one, a local folder, or a Hub id; safetensors only."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GeoPosError
from ..files import GENERATION_CONFIG, PACKAGED

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

DEFAULT_MODEL = "hands64"


def resolve_model(model: str | os.PathLike) -> str:
    """The path of a packaged model by its name; any other path or Hub id as it is."""
    name = os.fspath(model)
    packaged = PACKAGED / name
    if "/" not in name and not Path(name).exists() and (packaged / "model_index.json").is_file():
        return str(packaged)
    return name


def recommended_guidance(model: str | os.PathLike) -> float | None:
    """The guidance scale that a packaged model or local folder names in its generation_config.json, if it does."""
    path = Path(resolve_model(model)) / GENERATION_CONFIG
    try:
        scale = json.loads(path.read_text(encoding="utf-8")).get("guidance_scale")
    except (OSError, ValueError, AttributeError):
        return None
    return float(scale) if isinstance(scale, (int, float)) else None


def pipeline_class(model: str | os.PathLike) -> type | None:
    """The class that model_index.json names, read without any weights; None for one that diffusers does not have.

    Raises:
        GeoPosError: no such model, or its model_index.json cannot be read.
    """
    import diffusers

    path = _existing(model)
    try:
        config = diffusers.DiffusionPipeline.load_config(path)
    except (OSError, ValueError) as error:
        raise GeoPosError(f"cannot load pipeline {path!r}: {error}") from error
    name = config.get("_class_name")
    return getattr(diffusers, name, None) if isinstance(name, str) else None


def load_pipeline(
    model: str | os.PathLike = DEFAULT_MODEL,
    dtype: "torch.dtype | None" = None,
    variant: str | None = None,
    **options: Any,
) -> "DiffusionPipeline":
    """Load a diffusers pipeline from safetensors files.

    Args:
        model: the name of a packaged model ("hands64"), a folder that `save_pretrained` wrote, or a Hub id.
        dtype: of the weights; None for float32.
        options: further arguments of `DiffusionPipeline.from_pretrained`.

    Raises:
        GeoPosError: no such model, or it cannot be loaded as safetensors.

    Example:
        >>> pipe = load_pipeline("hands64")
        >>> type(pipe).__name__, pipe.unet.config.sample_size
        ('StableDiffusionPipeline', 16)
    """
    import torch
    from diffusers import DiffusionPipeline

    path = _existing(model)
    try:
        if Path(path).is_dir():
            options = {**_left_out(path), **options}
        return DiffusionPipeline.from_pretrained(
            path, dtype=dtype or torch.float32, variant=variant, use_safetensors=True, **options
        )
    # ImportError: a package that the pipeline needs; AttributeError: a class that this diffusers does not have.
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError) as error:
        raise GeoPosError(f"cannot load pipeline {path!r}: {error}") from error


def _left_out(folder: str) -> dict[str, None]:
    """Stable Diffusion 3's T5, where a folder was saved without: diffusers asks for a None in its place."""
    index = json.loads((Path(folder) / "model_index.json").read_text(encoding="utf-8"))
    names = ("text_encoder_3", "tokenizer_3") if index.get("_class_name") == "StableDiffusion3Pipeline" else ()
    return {name: None for name in names if index.get(name) in (None, [None, None])}


def _existing(model: str | os.PathLike) -> str:
    """`resolve_model`, refusing what cannot be a pipeline.

    Raises:
        GeoPosError: neither a pipeline's folder nor a Hub id.
    """
    path = resolve_model(model)
    if Path(path).is_dir() and not (Path(path) / "model_index.json").is_file():
        raise GeoPosError(f"{path} is no pipeline folder: it has no model_index.json")
    if not Path(path).is_dir() and (path.count("/") != 1 or path.startswith((".", "/", "~"))):
        known = ", ".join(sorted(folder.parent.name for folder in PACKAGED.glob("*/model_index.json")))
        raise GeoPosError(
            f"no pipeline {path!r}: not a packaged model ({known}), nor a folder, nor a Hub id owner/name"
        )
    return path
