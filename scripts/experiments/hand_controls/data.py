"""The sets of images of the controls: proper and defective rendered hands, a reference, and changed copies of them."""

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter

from geopos_diffusers.data.hands import HandOptions, make_draw_hands
from geopos_diffusers.data.image_folder import METADATA, write_image_folder
from geopos_diffusers.files import atomic_directory
from geopos_diffusers.images.metadata import read_rows

SIDE = 128  # pixels, of all sets but those of other sizes
DRAWN = 256  # pixels that hands are drawn with
SIZES = (64, 96, 256)
PROPER, DEFECTIVE, REFERENCE = "proper", "defective", "reference"
Change = Callable[[Image.Image], Image.Image]


def jpeg(quality: int, image: Image.Image) -> Image.Image:
    """The image after it was written as JPEG of a quality in 1 to 95."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def blur(share: float, image: Image.Image) -> Image.Image:
    """Gaussian blur with a deviation of `share` of the image's longer side."""
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def contrast(factor: float, image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


CHANGES: dict[str, Change] = {
    "blur 0.5%": partial(blur, 0.005),
    "blur 1%": partial(blur, 0.01),
    "blur 2%": partial(blur, 0.02),
    "contrast 0.5": partial(contrast, 0.5),
    "JPEG 90": partial(jpeg, 90),
    "JPEG 50": partial(jpeg, 50),
}


def resize(side: int, image: Image.Image) -> Image.Image:
    return image if image.width == side else image.resize((side, side), Image.Resampling.LANCZOS)


def render_sets(work: Path, count: int, seed: int, num_workers: int) -> dict[str, Path]:
    """`count` proper hands, as many defective ones and a reference, at DRAWN pixels, where they are not there yet."""
    options = {
        PROPER: HandOptions(),
        DEFECTIVE: HandOptions(defects=1.0),
        REFERENCE: HandOptions(),
    }
    folders = {}
    for index, (name, hands) in enumerate(options.items()):
        folders[name] = work / f"{name}-{DRAWN}"
        if not folders[name].exists():
            write_image_folder(partial(make_draw_hands, DRAWN, seed + index, hands), count, folders[name], num_workers)
    return folders


def changed_copy(source: Path, target: Path, change: Change, start: int = 0, stop: int | None = None) -> Path:
    """Images start..stop-1 of a folder after a change, as PNG, with their metadata; key points follow the size."""
    if target.exists():
        return target
    with atomic_directory(target) as folder, open(folder / METADATA, "w", encoding="utf-8") as metadata:
        for _, row in list(read_rows(source / METADATA))[start:stop]:
            with Image.open(source / row["file_name"]) as image:
                before = image.convert("RGB")
            after = change(before)
            after.save(folder / row["file_name"])
            scale = after.width / before.width
            row["keypoints"] = [[round(scale * x, 3), round(scale * y, 3)] for x, y in row["keypoints"]]
            row["box"] = [round(scale * value, 3) for value in row["box"]]
            metadata.write(json.dumps(row, ensure_ascii=False) + "\n")
    return target
