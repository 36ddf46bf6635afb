"""Make the training data of the packaged model's second edition: rendered hands and heads, and photographs.

    python -m scripts.experiments.pretraining.mixture --photographs sign-language-digits/train.parquet \
        --num-images 38400 --num-workers 2 --output DATA

Images of one kind come in blocks, and the kinds of blocks in a cycle of CYCLE images. The photographs of the last cycle
are of people who are in no other: `--validation-images 640` of the training never learns from them.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from geopos_diffusers.command_line import Parser
from geopos_diffusers.data.captions import pick
from geopos_diffusers.data.faces import FaceRenderer
from geopos_diffusers.data.hands import HandOptions, HandRenderer, RenderedHand
from geopos_diffusers.data.image_folder import CHUNK, DrawRange, write_image_folder
from geopos_diffusers.errors import DataError

from ..hand_judge.backgrounds import draw_background, paste
from ..hand_judge.data import cut_out
from ..photographs import read_photographs
from .mixture_captions import describe_photograph, describe_placed_hand, place_of

COUNTING: dict[str, Any] = {
    "views": ("palm", "back"),
    "max_tilt": 12.0,
    "max_rotation": 15.0,
    "poses": "canonical",
}
COLOURS = ("white", "gray", "black", "yellow", "green", "teal", "blue", "purple")


@dataclass(frozen=True)
class Kind:
    """Rendered hands. place_share: of captions that name the place. textured: before drawn backgrounds."""

    options: HandOptions
    place_share: float
    textured: bool = False


HANDS = {
    # The hands of the first edition, whose boxes, given a scale, are shares of the image here too.
    "centred": Kind(HandOptions(**COUNTING, backgrounds="plain", colours=COLOURS, scale=(0.7, 0.88)), 0.2),
    "anywhere": Kind(HandOptions(**COUNTING, placement="anywhere", scale=(0.45, 0.9)), 0.75),
    "textured": Kind(HandOptions(**COUNTING, backgrounds="plain", placement="anywhere", scale=(0.45, 0.9)), 0.6, True),
    "free": Kind(HandOptions(max_tilt=25.0, max_rotation=40.0, placement="anywhere", scale=(0.55, 0.9)), 0.3),
}
TEXTURES = {"paper": "paper", "noise": "mottled", "stripes": "striped"}  # what a caption calls each
# Kinds of twenty blocks in a row.
PATTERN = (
    *("centred", "photographs", "anywhere", "textured", "centred", "anywhere", "photographs", "centred", "textured"),
    *("anywhere", "centred", "photographs", "faces", "anywhere", "centred", "textured", "photographs", "centred"),
    *("anywhere", "free"),
)
CYCLE = len(PATTERN) * CHUNK
HELD_OUT = 10  # one in so many people is held out
CROP = (0.8, 1.0)  # side of the part of a photograph that is shown


class Mixture:
    """Draws ranges of images, each a function of its index, `seed`, `size`, `count` and the photographs."""

    def __init__(self, size: int, seed: int, count: int, photographs: Path) -> None:
        self.size, self.seed, self.count = size, seed, count
        rows = read_photographs(photographs, ("image", "label", "subject"))
        people = sorted({row["subject"] for row in rows})
        held_out = set(people[::HELD_OUT])
        self.photographs = [row for row in rows if row["subject"] not in held_out]
        self.held_out = [row for row in rows if row["subject"] in held_out]
        if not self.photographs:
            raise DataError(f"{photographs} shows {len(people)} people; two or more are needed")
        self.renderers = {name: HandRenderer(size, seed + number, kind.options)
                          for number, (name, kind) in enumerate(HANDS.items())}  # fmt: skip
        self.faces = FaceRenderer(size, seed)

    def draw(self, start: int, stop: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
        """Images start..stop-1 with attributes: "text", "kind", and those of the renderer or the photograph."""
        for block in range(start // CHUNK, -(-stop // CHUNK)):
            cycle, place = divmod(block, len(PATTERN))
            kind = PATTERN[place]
            own = cycle * PATTERN.count(kind) + PATTERN[:place].count(kind)  # which block of its kind it is
            first = block * CHUNK
            low, high = max(start, first) - first + own * CHUNK, min(stop, first + CHUNK) - first + own * CHUNK
            for image, attributes in self._draw_kind(kind, low, high, cycle == (self.count - 1) // CYCLE):
                yield image, {"text": attributes.pop("text"), "kind": kind, **attributes}

    def _draw_kind(self, kind: str, low: int, high: int, last: bool) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
        if kind == "photographs":
            for index in range(low, high):
                yield self._photograph(self.held_out if last else self.photographs, index)
        elif kind == "faces":
            for face in self.faces.draw(low, high):
                yield face.image, {**face.attributes}
        else:
            for index, hand in zip(range(low, high), self.renderers[kind].draw(low, high), strict=True):
                yield self._hand(HANDS[kind], hand, self._generator(list(HANDS).index(kind), index))

    def _generator(self, stream: int, index: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, stream, index], spawn_key=(3,)))

    def _hand(
        self, kind: Kind, hand: RenderedHand, generator: np.random.Generator
    ) -> tuple[Image.Image, dict[str, Any]]:
        attributes, image = {**hand.attributes}, hand.image
        if kind.textured:
            texture = pick(generator, tuple(TEXTURES))
            background = draw_background(texture, self.size, None, generator)
            image = Image.fromarray(paste(cut_out(np.asarray(image), hand.mask), background))
            attributes["background"] = TEXTURES[texture]
        place = place_of(attributes["box"])
        text = describe_placed_hand(attributes, place, kind.place_share, generator)
        return image, {**attributes, "text": text, "place": place}

    def _photograph(self, rows: list[dict[str, Any]], index: int) -> tuple[Image.Image, dict[str, Any]]:
        """One of the photographs, in turn, each time another part of it."""
        row, generator = rows[index % len(rows)], self._generator(len(HANDS), index)
        text, mirrored = describe_photograph(row["label"], generator)
        image = row["image"]
        side = generator.uniform(*CROP) * min(image.size)
        left, top = (generator.uniform(0.0, length - side) for length in image.size)
        box = (left, top, left + side, top + side)
        image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box, reducing_gap=None)
        image = ImageOps.mirror(image) if mirrored else image
        return image, {"text": text, "digit": row["label"], "subject": row["subject"], "mirrored": mirrored}


def make_mixture(size: int, seed: int, count: int, photographs: Path) -> DrawRange:
    """The function that draws a range of indices, for `write_image_folder`."""
    return Mixture(size, seed, count, photographs).draw


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", required=True, help="Parquet file of sign-language digits, of the training")
    parser.add_argument("--output", required=True, help="image folder to make")
    parser.add_argument("--num-images", type=int, default=60 * CYCLE, help="how many (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder")
    args = parser.parse_args(argv)
    make = partial(make_mixture, args.size, args.seed, args.num_images, Path(args.photographs))
    print(f"wrote {write_image_folder(make, args.num_images, args.output, args.num_workers, args.overwrite)}")


if __name__ == "__main__":
    sys.exit(main())
