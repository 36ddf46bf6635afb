"""Reading the images that are to be repaired, and writing the repaired ones, without any loss."""

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..errors import DataError


def open_picture(path: str | os.PathLike) -> Image.Image:
    """Decode an image file fully: upright, RGB or, where parts may be transparent, RGBA.

    Raises:
        DataError: it is missing, no image, damaged, larger than Pillow thinks safe, or has more than 8 bits a channel.
    """
    try:
        if not Path(path).is_file():
            raise DataError("no such file")
        with Image.open(path) as opened:
            deep = opened.mode.startswith(("I", "F")) or any(";16" in str(tile) for tile in opened.tile)
            if deep:
                raise DataError("it has more than 8 bits a channel; save it with 8, since models draw no more")
            opened.load()
            upright = ImageOps.exif_transpose(opened)
            made = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
            made.info = {name: opened.info[name] for name in ("icc_profile", "prompt") if name in opened.info}
            return made
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a readable image (empty, or of no known format)") from error
    except Exception as error:  # decoders raise many unrelated types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable image ({reason})") from error


def prompt_of(picture: Image.Image) -> str | None:
    """The prompt that a generated image was saved with, as `geopos generate` does; None if there is none."""
    prompt = picture.info.get("prompt")
    return str(prompt).strip() or None if isinstance(prompt, str) else None


def save_picture(image: Image.Image, path: Path, source: Image.Image, record: dict[str, Any]) -> None:
    """Save a repaired image as PNG, with the colour profile of its source and a record of what was done."""
    info = PngInfo()
    if (prompt := prompt_of(source)) is not None:
        info.add_itxt("prompt", prompt)
    info.add_itxt("geopos", json.dumps(record, ensure_ascii=False))
    image.save(path, pnginfo=info, icc_profile=source.info.get("icc_profile"))
