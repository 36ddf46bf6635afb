"""Draw what a training sees of a few rendered hands: the centre, a bucket, the surroundings of a box, a mask.

    python scripts/draw_training_data.py --seed 12 --output docs/images/training_data.png

The hands are rendered as squares and cut to photographs' shapes, wide and high in turn.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

from geopos_diffusers.command_line import Parser
from geopos_diffusers.data.hand_masks import dimmed_outside, hands_of_row, write_masks
from geopos_diffusers.data.hands import render_hands
from geopos_diffusers.errors import GeoPosError
from geopos_diffusers.files import atomic_path
from geopos_diffusers.finetuning.image_text_data import ImageTextData, load_image_text
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.images.contact_sheet import contact_sheet

SIZE, LONG, SHORT = 260, 200, 112  # of what is rendered, and of the images
RESOLUTION, STEP = 128, 8
COUNT = 3


def write_hands(folder: Path, seed: int) -> None:
    """Wide and high images with their key points and boxes."""
    rows = []
    for index, (image, row) in enumerate(render_hands(COUNT, SIZE, seed, max_rotation=30.0, fill=(0.4, 0.45))):
        # The hand stands at one end, where a crop to the centre cuts it off.
        size = (LONG, SHORT) if index % 2 == 0 else (SHORT, LONG)
        left, top = (int(min(max(row["box"][axis] - 4, 0), SIZE - size[axis])) for axis in range(2))
        image.crop((left, top, left + size[0], top + size[1])).save(folder / f"{index}.png")
        shifts = (left, top)
        keypoints = [[value - shifts[axis] for axis, value in enumerate(point)] for point in row["keypoints"]]
        box = [value - shifts[axis % 2] for axis, value in enumerate(row["box"])]
        rows.append({"file_name": f"{index}.png", "text": row["text"], "keypoints": keypoints, "box": box})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def shown(data: ImageTextData, index: int) -> Image.Image:
    """An item as an image, dimmed outside its mask if it has one."""
    item = data[index]
    pixels = ((item["pixels"] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels)
    if "mask" not in item:
        return image
    return dimmed_outside(image, Image.fromarray((item["mask"][0] * 255).byte().numpy()))


def draw(folder: Path) -> Image.Image:
    write_masks(folder, hands_of_row, progress=False)
    file, box = str(folder / "metadata_masked.jsonl"), Columns(box="box", box_format="xyxy")
    kinds = {
        "centre crop": load_image_text(file, RESOLUTION, show_progress=False),
        "--aspect-ratio-buckets": load_image_text(file, RESOLUTION, show_progress=False, bucket_step=STEP),
        "--crop-to box": load_image_text(file, RESOLUTION, show_progress=False, columns=box, margin=0.2),
        "--mask-column mask": load_image_text(
            file, RESOLUTION, show_progress=False, columns=Columns(mask="mask"), bucket_step=STEP
        ),
    }
    images, captions = [], []
    for index in range(COUNT):
        images.append(Image.open(folder / f"{index}.png"))
        captions.append("the image")
        for name, data in kinds.items():
            images.append(shown(data, index))
            captions.append(name)
    return contact_sheet(images, captions, columns=5, cell=160)


def main() -> None:
    parser = Parser(description="Draw what a training sees of a few rendered hands.")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--output", required=True, metavar="FILE", help="PNG to write")
    args: argparse.Namespace = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        write_hands(Path(temporary), args.seed)
        sheet = draw(Path(temporary))
    with atomic_path(args.output) as path:
        sheet.save(path, format="PNG", optimize=True)


if __name__ == "__main__":
    try:
        main()
    except GeoPosError as error:
        sys.exit(f"draw_training_data.py: error: {error}")
