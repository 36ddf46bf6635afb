"""Do frames hold beyond what was trained: sizes and places of boxes, image sizes, boxes that move, and two boxes?

    python -m scripts.experiments.frames.generalisation --output runs/frames --step 1200 \
        --results docs/results/frames_generalisation.json
    python -m scripts.experiments.frames.generalisation --output runs/frames --adapter hands64-frames \
        --results docs/results/frames_adapter.json

Draws with the arm "frames, whole" that `scripts.experiments.frames.run` left in its folder, after its last step, with
each of --seeds, or with an adapter. Hands are trained at 0.35 to 0.8 of the side, all in the image, at 64 x 64 pixels.
The runs of a results file that stands already are kept; --conditions adds some.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from geopos_diffusers.adapters.loading import load_geoconv_weights
from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.metrics.hand_judge import load_hand_judge
from geopos_diffusers.patching.framing import set_geoconv_frames
from geopos_diffusers.pipelines.loading import load_pipeline, recommended_guidance
from geopos_diffusers.training.processes import run_script

from ..results import commands_with, read_standing, write_results
from .arms import ARMS
from .data import SIZE, read_rows, render_test
from .drawing import BATCH, load_arm
from .places import measure, scores
from .run import REFERENCE, last_step, slug

EXPERIMENT = "frames_generalisation"
Boxes = np.ndarray  # [N, 4], or [N, K, 4] of several in an image, in shares of it; they may reach outside


def scaled(factor: float) -> Callable[[Boxes], Boxes]:
    """The boxes around the same middles, moved into the image where they fit."""

    def change(boxes: Boxes) -> Boxes:
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, factor * (boxes[:, 2:] - boxes[:, :2]) / 2
        inside = np.minimum(half, 0.5)
        middle = np.clip(middle, inside, 1 - inside)
        return np.concatenate([middle - half, middle + half], 1)

    return change


def beyond_the_edge(share: float) -> Callable[[Boxes], Boxes]:
    """The boxes across the nearer side, so that `share` of their width lies outside the image."""

    def change(boxes: Boxes) -> Boxes:
        width = boxes[:, 2] - boxes[:, 0]
        left = np.where(boxes[:, 0] + boxes[:, 2] < 1, -share * width, 1 - (1 - share) * width)
        return np.stack([left, boxes[:, 1], left + width, boxes[:, 3]], 1)

    return change


def stretched(factor: float) -> Callable[[Boxes], Boxes]:
    """The boxes `factor` times as wide around the same middle, or as wide as the image."""

    def change(boxes: Boxes) -> Boxes:
        half = np.minimum(factor * (boxes[:, 2] - boxes[:, 0]) / 2, 0.5)
        middle = np.clip((boxes[:, 0] + boxes[:, 2]) / 2, half, 1 - half)
        return np.stack([middle - half, boxes[:, 1], middle + half, boxes[:, 3]], 1)

    return change


def mirrored(boxes: Boxes) -> Boxes:
    """The boxes on the other side of the image, across and down."""
    return 1 - boxes[:, [2, 3, 0, 1]]


@dataclass(frozen=True)
class Condition:
    """boxes: from those of the test rows. size: height and width. moved_after: the share of the denoising steps after
    which the boxes are those of the rows again; None where they never move. boxes_given: of two boxes in the halves of
    an image, that of the row on the left and that of the row before on the right; None for an image with one.
    guided: whether guidance strengthens the boxes. guidance_scale: None for what the model recommends.
    """

    boxes: Callable[[Boxes], Boxes] = lambda boxes: boxes
    size: tuple[int, int] = (SIZE, SIZE)
    moved_after: float | None = None
    boxes_given: int | None = None
    guided: bool = False
    guidance_scale: float | None = None


CONDITIONS = {
    "as trained": Condition(),
    "boxes of 0.6 times the size": Condition(scaled(0.6)),
    "boxes of 1.3 times the size": Condition(scaled(1.3)),
    "boxes of 1.5 times the width": Condition(stretched(1.5)),
    "a quarter of the box outside": Condition(beyond_the_edge(0.25)),
    "half of the box outside": Condition(beyond_the_edge(0.5)),
    "96 x 96 pixels": Condition(size=(96, 96)),
    "128 x 128 pixels": Condition(size=(128, 128)),
    "64 x 96 pixels": Condition(size=(64, 96)),
    "box moved after a sixth of the steps": Condition(mirrored, moved_after=1 / 6),
    "box moved after a third of the steps": Condition(mirrored, moved_after=1 / 3),
    "box moved after half of the steps": Condition(mirrored, moved_after=1 / 2),
    "two boxes, 64 x 128 pixels": Condition(size=(SIZE, 2 * SIZE), boxes_given=2),
    "the left one of them alone": Condition(size=(SIZE, 2 * SIZE), boxes_given=1),
    "guided, as trained": Condition(guided=True),
    "guided, boxes of 0.6 times the size": Condition(scaled(0.6), guided=True),
    "guided, half of the box outside": Condition(beyond_the_edge(0.5), guided=True),
    "guided, two boxes, 64 x 128 pixels": Condition(size=(SIZE, 2 * SIZE), boxes_given=2, guided=True),
    "guidance 4, as trained": Condition(guidance_scale=4.0),
    "guided, guidance 4, as trained": Condition(guided=True, guidance_scale=4.0),
    "guided, guidance 6, as trained": Condition(guided=True, guidance_scale=6.0),
    "guided, guidance 4, two boxes, 64 x 128 pixels": Condition(
        size=(SIZE, 2 * SIZE), boxes_given=2, guided=True, guidance_scale=4.0
    ),
}


def side_by_side(boxes: Boxes) -> Boxes:
    """Two boxes for each image [N, 2, 4] of twice the width: its own in the left half, the one before in the right."""
    pairs = np.stack([boxes, np.roll(boxes, 1, axis=0)], 1)
    pairs[..., [0, 2]] = (pairs[..., [0, 2]] + [[0], [1]]) / 2
    return pairs


def frames_of(boxes: Boxes) -> torch.Tensor:
    """Centres and half sizes [N, 2, 2] or [N, K, 2, 2], which may lie outside the image, of boxes."""
    low, high = torch.tensor(boxes[..., [1, 0]]), torch.tensor(boxes[..., [3, 2]])
    return torch.stack([low + high - 1, high - low], -2).float()


def draw(
    pipe: Any, rows: Sequence[dict[str, Any]], condition: Condition, steps: int, scale: float
) -> list[Image.Image]:
    """An image of each row, always from the noise of its place in the list."""
    asked = np.array([row["box"] for row in rows])
    first = condition.boxes(asked)
    if condition.boxes_given is not None:
        first = side_by_side(first)[:, : condition.boxes_given]
    move_at = None if condition.moved_after is None else round(condition.moved_after * steps)
    images = []
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)

        def move(pipe: Any, step: int, timestep: Any, values: dict, part: slice = part) -> dict:
            if step + 1 == move_at:
                set_geoconv_frames(pipe, frames_of(asked[part]))
            return values

        set_geoconv_frames(pipe, frames_of(first[part]), guided=condition.guided)
        drawn = pipe(
            [row["text"] for row in rows[part]],
            height=condition.size[0],
            width=condition.size[1],
            generator=[torch.Generator().manual_seed(start + index) for index in range(len(rows[part]))],
            num_inference_steps=steps,
            guidance_scale=condition.guidance_scale or scale,
            callback_on_step_end=move,
        )
        images += drawn.images
    set_geoconv_frames(pipe, None)
    return images


def visible(boxes: Boxes) -> Boxes:
    """What of the boxes lies in the image."""
    return np.clip(boxes, 0, 1)


def condition_scores(
    images: Sequence[Image.Image], rows: Sequence[dict[str, Any]], condition: Condition, judge: Any
) -> dict[str, float | None]:
    """Scores of the place beside the boxes asked for in the end, and "first_iou" beside those before they moved."""
    asked = np.array([row["box"] for row in rows])
    if condition.boxes_given is not None:
        return half_scores(images, rows, judge)
    final = visible(asked if condition.moved_after is not None else condition.boxes(asked))

    def beside(boxes: Boxes) -> dict[str, float | None]:
        told = [{**row, "box": tuple(box)} for row, box in zip(rows, boxes.tolist(), strict=True)]
        return scores(measure(images, told, judge), told)

    found = beside(final)
    return found if condition.moved_after is None else found | {"first_iou": beside(mirrored(asked))["iou"]}


def half_scores(images: Sequence[Image.Image], rows: Sequence[dict[str, Any]], judge: Any) -> dict[str, float | None]:
    """Scores of the halves of images with two hands, each beside its box and the number of fingers of the one prompt.

    "left_found" and "right_found" are those of one side.
    """
    halves, told = [], []
    for side in (0, 1):
        for index, (image, row) in enumerate(zip(images, rows, strict=True)):
            halves.append(image.crop((side * image.width // 2, 0, (side + 1) * image.width // 2, image.height)))
            told.append({**row, "box": rows[index - side]["box"]})
    found = measure(halves, told, judge)
    sides = {"left": slice(len(rows)), "right": slice(len(rows), None)}
    by_side = {f"{name}_found": scores(found[part], told[part])["found"] for name, part in sides.items()}
    return scores(found, told) | by_side


def load(args: argparse.Namespace, folder: Path) -> Any:
    """The pipeline with --adapter, or with what a run left in its folder."""
    if args.adapter is not None:
        pipe = load_pipeline(args.model)
        load_geoconv_weights(pipe, args.adapter)
        return pipe
    if last_step(folder) != args.step:
        raise ConfigError(f"{folder} ended at step {last_step(folder)}, and --step is {args.step}")
    return load_arm(ARMS[REFERENCE], args.model, folder / "final")[0]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of the experiment's runs")
    parser.add_argument("--results", required=True, help="JSON file to write")
    parser.add_argument("--step", type=int, help="which the runs ended at")
    parser.add_argument("--adapter", help="folder or name of an adapter that was trained with frames, in place of runs")
    parser.add_argument("--model", default="hands64", help="pipeline that was trained (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the trainings (default: 1)")
    parser.add_argument("--test-images", type=int, default=96, help="images to draw a condition (default: %(default)s)")
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--inference-steps", type=int, default=12, help="of each image (default: %(default)s)")
    args = parser.parse_args()
    if (args.step is None) == (args.adapter is None):
        raise ConfigError("give --step or --adapter")
    seeds = args.seeds if args.adapter is None else [0]
    settings = {"model": args.model, "test_images": args.test_images}
    settings |= {"steps": args.step, "seeds": seeds} if args.adapter is None else {"adapter": args.adapter}
    standing = read_standing(args.results, EXPERIMENT, settings)
    records = {} if standing is None else {(one["seed"], one["variant"]): one for one in standing["runs"]}
    torch.set_num_threads(1)
    work, judge = Path(args.output), load_hand_judge()
    rows = read_rows(render_test(work, args.test_images))[: args.test_images]
    for seed in seeds:
        pipe = load(args, work / "runs" / slug(REFERENCE) / f"seed-{seed}")
        pipe.set_progress_bar_config(disable=True)
        scale = recommended_guidance(args.model) or 1.0
        for name in args.conditions:
            if (seed, name) in records:
                continue
            images = draw(pipe, rows, CONDITIONS[name], args.inference_steps, scale)
            found = condition_scores(images, rows, CONDITIONS[name], judge)
            records[seed, name] = {"variant": name, "seed": seed, "scores": found}
            print(f"{name}, seed {seed}: {found}", flush=True)
    ordered = [records[key] for key in product(seeds, CONDITIONS) if key in records]
    write_results(args.results, EXPERIMENT, ordered, settings, commands=commands_with(standing))


if __name__ == "__main__":
    run_script(main)
