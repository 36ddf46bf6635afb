"""Reading the images that are to be repaired, and writing the repaired ones, without any loss."""

import io
import json
import os
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..errors import DataError

RGB_MODES = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "YCbCr")  # whose pixels an RGB profile describes
SPACES = {"L": b"GRAY", "CMYK": b"CMYK"}  # of the profiles that describe other pixels, by mode


def open_picture(path: str | os.PathLike) -> Image.Image:
    """Decode an image file fully: upright, RGB or, where parts may be transparent, RGBA.

    An RGB image's colour profile stays with it. Grey and CMYK images are brought to sRGB by theirs. A profile that is
    damaged or of another kind than the image is left out.

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
            profile = opened.info.get("icc_profile") or b""
            made = to_srgb(upright, profile) or upright.convert("RGBA" if upright.has_transparency_data else "RGB")
            made.info = {"prompt": opened.info["prompt"]} if "prompt" in opened.info else {}
            if opened.mode in RGB_MODES and colour_space(profile) == b"RGB ":
                made.info["icc_profile"] = profile
            return made
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a readable image (empty, or of no known format)") from error
    except Exception as error:  # decoders raise many unrelated types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable image ({reason})") from error


def colour_space(profile: bytes) -> bytes:
    """What the header of an ICC profile says that its colours are: `b"RGB "`, `b"GRAY"`, `b"CMYK"` or another."""
    return profile[16:20]


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """A grey or CMYK image as RGB(A), by its colour profile; None where that is damaged or not for such images."""
    clear = image.has_transparency_data
    mode = "L" if image.mode in ("1", "LA") else image.mode
    if mode not in SPACES or colour_space(profile) != SPACES[mode]:
        return None
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        made = ImageCms.profileToProfile(image.convert(mode), given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ImageCms.PyCMSError, ImportError):  # ImportError: a Pillow that was built without LittleCMS
        return None
    if made is not None and clear:
        made.putalpha(image.convert("RGBA").getchannel("A"))
    return made


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
