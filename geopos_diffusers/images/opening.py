"""Opens images of any format as 8-bit RGB: the one way for training, scoring and whatever else reads them."""

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ..errors import DataError

DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
INTEGERS_OF_16_BITS = ("PNG", "PPM")  # formats whose 16-bit values Pillow gives as 32-bit ones, mode I


def open_image(source: Any) -> Image.Image:
    """Decode an image fully: RGB, upright, transparent parts on white, 16-bit values scaled to 8.

    Of an animation or a file of several pages the first one is taken.

    Args:
        source: a path, encoded bytes, a mapping with "bytes" or "path" (as `datasets` gives them), or an image.

    Raises:
        DataError: it is missing, no image, damaged, larger than Pillow thinks safe, or of values whose range is not
            known (floating point, 32-bit integers).
    """
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    if not isinstance(source, (str, Path, io.BytesIO, Image.Image)):
        raise DataError(f"expected an image, found {type(source).__name__}")
    try:
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        if isinstance(source, (str, Path)) and Path(source).exists() and not Path(source).is_file():
            raise DataError("not a file")  # to open a named pipe would wait for ever
        # From an open file: given a path, Pillow maps uncompressed TIFFs, and gets the rows of turned ones wrong.
        with (
            Path(source).open("rb") if isinstance(source, (str, Path)) else nullcontext(source) as file,
            Image.open(file) as opened,
        ):
            opened.load()
            return _upright_rgb(opened)
    except FileNotFoundError as error:
        raise DataError("the file is missing") from error
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("not a readable image (empty, or of no known format)") from error
    except Exception as error:  # decoders raise many unrelated types for damaged files: AVIF's a RuntimeError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"not a readable image ({reason})") from error


def image_size(source: Any) -> tuple[int, int]:
    """Width and height of an image that `open_image` takes, upright, from its first bytes alone.

    Raises:
        DataError: it is missing or no image.
    """
    if isinstance(source, dict):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, Image.Image):
        return source.size
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            # Pillow gives a TIFF's size upright already.
            turned = opened.format != "TIFF" and opened.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (opened.height, opened.width) if turned else opened.size
    except Exception as error:  # as in `open_image`
        raise DataError(f"not a readable image ({' '.join(str(error).split())})") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in DEEP_MODES:
        return _to_eight_bits(upright, image.format).convert("RGB")
    return on_white(upright)


def on_white(image: Image.Image) -> Image.Image:
    """`image`, of 8 bits a channel, as RGB: transparent parts show white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image, format: str | None) -> Image.Image:
    """A grey image of 16-bit values as one of 8 bits, which Pillow's own conversion would cut off at 255.

    Raises:
        DataError: the range of its values is not known.
    """
    if image.mode == "F" or (image.mode == "I" and format not in INTEGERS_OF_16_BITS):
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise DataError(f"its values are {kind} of unknown range; save it with 8 or 16 bits a channel")
    values = np.asarray(image).astype(np.uint32)
    pixels = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        pixels[values == transparent] = 255
    return Image.fromarray(pixels)
