"""Renders the judge's hands and heads once and keeps them as arrays, cut out of their backgrounds.

    python -m scripts.experiments.hand_judge.data --output runs/hand_judge/data

Each shard is a file of hands at SIZE pixels: RGBA bytes, key points and labels. Training, validation and test hands
come from seeds of their own. The backgrounds are drawn in `augment.py`, in both classes alike.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from geopos_diffusers.command_line import Parser
from geopos_diffusers.data.faces import FaceOptions, FaceRenderer
from geopos_diffusers.data.hand_defects import DEFECTS
from geopos_diffusers.data.hands import HandOptions, HandRenderer, RenderedHand
from geopos_diffusers.data.rendering import from_srgb, to_srgb
from geopos_diffusers.files import atomic_path

SIZE = 96
SHARD = 1000
VIEWS = ("palm", "back", "side")
SOUND = -1  # in `defects`: a well-formed hand
# Any pose from any side, and counting gestures from the front as people hold them up; shards of the two alternate. The
# last ones of each part show fingertips that meet.
OPTIONS: tuple[dict[str, Any], ...] = (
    {"max_rotation": 40.0},
    {"max_rotation": 20.0, "max_tilt": 20.0, "poses": "canonical", "views": ("palm", "back")},
)
TOUCHING: dict[str, Any] = {"max_rotation": 30.0, "poses": "touching"}
SEEDS = {"train": 100, "validation": 200, "test": 300}
COUNTS = {"validation": 2, "test": 4, "train": 36}  # shards
TOUCHING_COUNTS = {"validation": 0, "test": 1, "train": 3}  # shards after those


@dataclass(frozen=True)
class Hands:
    """N hands: `pixels` [N, S, S, 4] bytes, straight alpha; `keypoints` [N, 21, 2] in pixels; and labels [N].

    `fingers` are those raised before a defect, `right` whether it is a right hand, `defects` the index in DEFECTS or
    SOUND, `views` the index in VIEWS.
    """

    pixels: np.ndarray
    keypoints: np.ndarray
    fingers: np.ndarray
    right: np.ndarray
    defects: np.ndarray
    views: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def select(self, chosen: np.ndarray) -> "Hands":
        return Hands(**{name: values[chosen] for name, values in vars(self).items()})


def cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """RGBA bytes [S, S, 4] of a picture [S, S, 3] before a plain background, whose colour is removed from the edges."""
    linear, cover = from_srgb(image), mask[..., None]
    background = linear[np.unravel_index(mask.argmin(), mask.shape)]
    colour = np.where(cover > 0, (linear - (1.0 - cover) * background) / np.maximum(cover, 1e-3), 0.0)
    return np.concatenate([to_srgb(colour), np.rint(cover * 255.0).astype(np.uint8)], axis=2)


def render_hands(part: str, shard: int, count: int = SHARD, defects: float = 0.5) -> Hands:
    """The hands of one shard of a part, one of SEEDS."""
    chosen = TOUCHING if shard >= COUNTS[part] else OPTIONS[shard % 2]
    options = HandOptions(**chosen, backgrounds="plain", defects=defects)
    renderer = HandRenderer(SIZE, SEEDS[part], options)
    start = shard * SHARD
    return stack([*tqdm(renderer.draw(start, start + count), f"{part} {shard}", count)])


def stack(hands: Sequence[RenderedHand]) -> Hands:
    """Rendered hands before plain backgrounds as arrays."""
    rows = [hand.attributes for hand in hands]
    kinds = [row.get("defect") for row in rows]
    return Hands(
        pixels=np.stack([cut_out(np.asarray(hand.image), hand.mask) for hand in hands]),
        keypoints=np.array([row["keypoints"] for row in rows], np.float32),
        fingers=np.array([row["fingers"] for row in rows], np.int64),
        right=np.array([row["handedness"] == "right" for row in rows]),
        defects=np.array([DEFECTS.index(kind) if kind else SOUND for kind in kinds], np.int64),
        views=np.array([VIEWS.index(row["view"]) for row in rows], np.int64),
    )


def render_heads(count: int, seed: int) -> np.ndarray:
    """Heads cut out of their backgrounds, [N, S, S, 4] bytes: pictures of skin that show no hand."""
    renderer = FaceRenderer(SIZE, seed, FaceOptions(backgrounds="plain"))
    return np.stack([cut_out(np.asarray(face.image), face.mask) for face in renderer.draw(0, count)])


def load_hands(folder: Path, part: str, limit: int | None = None) -> Hands:
    """All shards of a part that are there, or the first `limit`."""
    shards = [np.load(path) for path in sorted(folder.glob(f"{part}-*.npz"))[:limit]]
    return Hands(**{name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]})


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="runs/hand_judge/data", help="folder of the arrays (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=1, help="processes (default: %(default)s)")
    args = parser.parse_args(argv)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    hands = [(part, shard) for part in COUNTS for shard in range(COUNTS[part] + TOUCHING_COUNTS[part])]
    with ProcessPoolExecutor(args.num_workers, get_context("spawn")) as pool:
        jobs = [pool.submit(_write_heads, folder, part) for part in SEEDS]
        jobs += [pool.submit(_write_hands, folder, *shard) for shard in hands]
        for job in jobs:
            job.result()


def _write_heads(folder: Path, part: str) -> None:
    path = folder / f"heads-{part}.npy"
    if not path.exists():
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, render_heads(600 if part == "train" else 150, SEEDS[part]))


def _write_hands(folder: Path, part: str, shard: int) -> None:
    path = folder / f"{part}-{shard:02d}.npz"
    if not path.exists():
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(render_hands(part, shard)))


if __name__ == "__main__":
    sys.exit(main())
