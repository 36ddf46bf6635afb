"""Render the demo's hands: upright, counting, before a background that is bright at the top and dark at the bottom.

    python scripts/experiments/demo/data.py --num-images 3000 --seed 1000 --output hands

The packaged model knows these hands and colours (see its model card), but before backgrounds of one brightness only.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from geopos_diffusers.command_line import Parser
from geopos_diffusers.data.hands import HandOptions, HandRenderer, RenderedHand
from geopos_diffusers.data.image_folder import DrawRange, write_image_folder
from geopos_diffusers.data.rendering import from_srgb, to_srgb

SIZE = 64
# As the packaged model was trained, without black, which cannot get darker.
HANDS = HandOptions(
    views=("palm", "back"),
    poses="canonical",
    max_tilt=12,
    max_rotation=15,
    backgrounds="plain",
    colours=("white", "gray", "yellow", "green", "teal", "blue", "purple"),
    fill=(0.7, 0.88),
)
DARKEST = 0.1  # brightness at the lower edge by that at the upper one, as sRGB values


def shade_background(hand: RenderedHand) -> Image.Image:
    """The picture with its plain background darkened evenly from the upper edge to the lower one."""
    linear, cover = from_srgb(np.asarray(hand.image)), hand.mask[..., None]
    free = np.unravel_index(hand.mask.argmin(), hand.mask.shape)
    brightness = np.linspace(1.0, DARKEST, len(linear))[:, None, None]
    shaded = from_srgb(np.asarray(hand.image)[free] * brightness)
    return Image.fromarray(to_srgb(linear + (1.0 - cover) * (shaded - linear[free])))


def make_draw(seed: int) -> DrawRange:
    """The function that draws a range of indices, for `write_image_folder`."""
    renderer = HandRenderer(SIZE, seed, HANDS)

    def draw(start: int, stop: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
        return ((shade_background(hand), hand.attributes) for hand in renderer.draw(start, stop))

    return draw


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, required=True, aliases=["--count"], help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument(
        "--num-workers", type=int, default=1, aliases=["--workers"], help="processes (default: %(default)s)"
    )
    parser.add_argument("--output", required=True, help="folder to make; one that is there is replaced")
    args = parser.parse_args(argv)
    write_image_folder(partial(make_draw, args.seed), args.num_images, args.output, args.num_workers, overwrite=True)


if __name__ == "__main__":
    sys.exit(main())
