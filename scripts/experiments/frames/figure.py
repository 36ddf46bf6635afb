"""Pictures of the arms: one prompt and one noise in nine boxes, or what several arms drew of the same test rows.

    python -m scripts.experiments.frames.figure --output runs/frames --arms "frames, whole" \
        --prompt "a photo of the palm of a left hand, five fingers raised" --picture docs/images/frames_nine_places.png
    python -m scripts.experiments.frames.figure --output runs/frames --arms "frames, whole" "no control" --steps 400 \
        --picture docs/results/frames.png

Trained weights and drawn images are those that `scripts.experiments.frames.run` left in its folder, with seed --seed.
"""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from geopos_diffusers.cli.box_options import grid_places
from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.files import atomic_path
from geopos_diffusers.images.box_drawing import draw_boxes
from geopos_diffusers.images.contact_sheet import contact_sheet

from ..arm_pictures import write_rows
from .arms import ARMS
from .data import read_rows
from .drawing import draw, guidance_of, load_arm, prompt_of
from .run import slug

SIDES = (0.42, 0.56)  # width and height of the nine boxes
CELL = 128
DRAWN = 8  # test rows


def nine_places(args: argparse.Namespace, name: str) -> list[Image.Image]:
    """Images of one prompt and noise with their boxes drawn."""
    arm, boxes = ARMS[name], grid_places(3, *SIDES)
    folder = Path(args.output) / "runs" / slug(arm.weights_of or name) / f"seed-{args.seed}" / "final"
    pipe, in_boxes = load_arm(arm, args.model, folder)
    prompts = [prompt_of(arm, args.prompt, box) for box in boxes]
    noises, scale = [args.noise] * len(boxes), guidance_of(arm, args.model)
    images = draw(pipe, in_boxes, prompts, boxes, noises, args.inference_steps, scale)
    return [draw_boxes(image, [box], CELL) for image, box in zip(images, boxes, strict=True)]


def drawn_images(args: argparse.Namespace, name: str) -> list[Image.Image]:
    """The first images of an arm's measurement with their boxes drawn."""
    found = sorted((Path(args.output) / "drawn").glob(f"{slug(name)}-seed-{args.seed}-step-{args.steps}-*"))
    if not found:
        raise ConfigError(f"nothing was drawn of {name!r} after {args.steps} steps with seed {args.seed}")
    rows = read_rows(found[0])[:DRAWN]
    return [draw_boxes(Image.open(found[0] / row["file_name"]), [row["box"]], CELL) for row in rows]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of the experiment's runs")
    parser.add_argument("--picture", required=True, help="PNG to write")
    parser.add_argument("--arms", nargs="+", default=["frames, whole"], choices=list(ARMS), metavar="ARM")
    parser.add_argument("--prompt", help="draw it in nine boxes, with the first arm")
    parser.add_argument("--steps", type=int, help="show what was drawn after so many steps, a row for each arm")
    parser.add_argument("--model", default="hands64", help="pipeline that was trained (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the training (default: %(default)s)")
    parser.add_argument("--noise", type=int, default=0, help="seed of the noise (default: %(default)s)")
    parser.add_argument("--inference-steps", type=int, default=15, help="of each image (default: %(default)s)")
    args = parser.parse_args()
    if (args.prompt is None) == (args.steps is None):
        raise ConfigError("give --prompt or --steps")
    torch.set_num_threads(1)
    if args.prompt is not None:
        sheet = contact_sheet(nine_places(args, args.arms[0]), None, 3, CELL)
        with atomic_path(Path(args.picture)) as temporary:
            sheet.save(temporary, format="PNG")
    else:
        write_rows(Path(args.picture), ((name, drawn_images(args, name)) for name in args.arms), CELL)


if __name__ == "__main__":
    sys.exit(main())
