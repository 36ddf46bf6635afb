"""One prompt and one noise in nine boxes, for each arm.

    python -m scripts.experiments.frames.figure --output runs/frames --arms "frames, whole" \
        --prompt "a left hand, five fingers raised" --picture docs/images/frames_nine_places.png

Of one arm it draws a square of its nine places, of several a row for each. Trained weights are those that
`scripts.experiments.frames.run` left in its folder, with seed --seed.
"""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image

from geopos_diffusers.cli.box_options import grid_places
from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import atomic_path
from geopos_diffusers.images.box_drawing import draw_boxes
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.pipelines.loading import recommended_guidance

from .arms import ARMS
from .drawing import draw, load_arm, prompt_of
from .run import slug

SIDES = (0.42, 0.56)  # width and height of the boxes


def nine_places(args: argparse.Namespace, name: str) -> list[Image.Image]:
    """The images with their boxes drawn."""
    arm, boxes = ARMS[name], grid_places(3, *SIDES)
    pipe, in_boxes = load_arm(arm, args.model, Path(args.output) / "runs" / slug(name) / f"seed-{args.seed}" / "final")
    prompts = [prompt_of(arm, args.prompt, box) for box in boxes]
    scale = recommended_guidance(args.model) or 1.0
    images = draw(pipe, in_boxes, prompts, boxes, [args.noise] * len(boxes), args.inference_steps, scale)
    return [draw_boxes(image, [box]) for image, box in zip(images, boxes, strict=True)]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of the experiment's runs")
    parser.add_argument("--picture", required=True, help="PNG to write")
    parser.add_argument("--arms", nargs="+", default=["frames, whole"], choices=list(ARMS), metavar="ARM")
    parser.add_argument("--prompt", required=True, help="what to draw")
    parser.add_argument("--model", default="hands64", help="pipeline that was trained (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the training (default: %(default)s)")
    parser.add_argument("--noise", type=int, default=0, help="seed of the noise (default: %(default)s)")
    parser.add_argument("--inference-steps", type=int, default=15, help="of each image (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = [image for name in args.arms for image in nine_places(args, name)]
    captions = None
    if len(args.arms) > 1:
        captions = [name if place == 0 else "" for name in args.arms for place in range(9)]
    with atomic_path(Path(args.picture)) as temporary:
        contact_sheet(images, captions, 3 if len(args.arms) == 1 else 9, 128).save(temporary, format="PNG")


if __name__ == "__main__":
    sys.exit(main())
