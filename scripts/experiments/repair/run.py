"""Does `geopos repair` make hands better? Spoiled photographs and rendered hands with defects, before and after.

    python -m scripts.experiments.repair.run --photographs sign-language-digits --output runs/repair
    python -m scripts.experiments.repair.run --photographs sign-language-digits --model hands64-v2 \
        --output runs/repair_second --results docs/results/repair_second.json

Each hand is repaired with the defaults of `geopos repair` by a packaged model. The second judge chooses, so its own
figures are flattered: the mean of all variants, which nobody chose, the detector's, and the distance from the
photograph that was spoiled stand beside them. Writes a JSON file and a page. Hands that are done are not done again.
"""

import argparse
import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geopos_diffusers.boxes import WHOLE_IMAGE, Box
from geopos_diffusers.command_line import Parser
from geopos_diffusers.data.captions import NUMBER_WORDS
from geopos_diffusers.files import write_text
from geopos_diffusers.images.metadata import METADATA, read_rows
from geopos_diffusers.metrics.finger_count import count_fingers
from geopos_diffusers.metrics.hand_detection import HandDetector
from geopos_diffusers.metrics.hand_judge import HandJudge, load_hand_judge
from geopos_diffusers.pipelines.loading import load_pipeline, recommended_guidance
from geopos_diffusers.repair.hand_finding import find_hands
from geopos_diffusers.repair.options import RepairOptions
from geopos_diffusers.repair.repairing import Repair, repair_image
from geopos_diffusers.training.processes import run_script

from ..arm_pictures import write_rows
from ..photographs import read_photographs
from ..rendered_hands import KNOWN_POSES, render
from ..results import write_results
from .section import page
from .spoiling import KINDS, spoil

SIZE = 64
# How each packaged model was told of photographs, or of what it knew instead.
PHOTOGRAPH_PROMPTS = {
    "hands64": "a photo of the palm of a right hand, {fingers} raised",
    "hands64-v2": "a photograph of a right hand, {fingers} up",
}
HANDS = (*KNOWN_POSES, "--fill", "0.5", "0.7", "--defects", "1")
SHOWN = 12  # hands in the picture
SETS = ("photographs", "rendered", "unspoiled photographs")


@dataclass(frozen=True)
class Example:
    """A hand to repair. clean: what it was before it was spoiled; None of rendered hands. kind: of what spoils it."""

    name: str
    image: Image.Image
    clean: Image.Image | None
    kind: str
    fingers: int
    prompt: str


def photographs(
    path: Path, count: int, seed: int, spoiled: bool, prompt: str, detector: HandDetector
) -> Iterator[Example]:
    """Photographs of one to five fingers in which the detector finds a hand, each with one finger spoiled or none."""
    generator = np.random.default_rng(seed)
    rows = [row for row in read_photographs(path) if 1 <= row["label"] <= 5]
    made = 0
    for place in generator.permutation(len(rows)):
        if made == count:
            return
        row = rows[place]
        if not (found := detector.detect(row["image"])):
            continue
        kind = KINDS[made % len(KINDS)] if spoiled else "none"
        own = np.random.default_rng((seed, int(place)))
        image = spoil(row["image"], found[0].landmarks[:, :2], kind, own) if spoiled else row["image"]
        fingers = f"{NUMBER_WORDS[row['label']]} finger{'s' if row['label'] > 1 else ''}"
        yield Example(f"{place}", image, row["image"], kind, row["label"], prompt.format(fingers=fingers))
        made += 1


def rendered(folder: Path, count: int, seed: int) -> Iterator[Example]:
    """Rendered hands that are not well formed, in the packaged models' domain."""
    render(folder, count, SIZE, seed, [*HANDS, "--quiet"])
    for _, row in islice(read_rows(folder / METADATA), count):
        image = Image.open(folder / row["file_name"]).convert("RGB")
        yield Example(row["file_name"], image, None, row["defect"], row["fingers"], row["text"])


def look(image: Image.Image, judge: HandJudge, detector: HandDetector) -> dict[str, Any]:
    """What both judges say of a whole image."""
    (judgement,) = judge.judge([image])
    fingers = detected_fingers(image, detector)
    return {
        "present": judgement.present,
        "well_formed": judgement.well_formed,
        "judge_fingers": judgement.fingers,
        "found": fingers is not None,
        "detector_fingers": fingers,
    }


def detected_fingers(image: Image.Image, detector: HandDetector) -> int | None:
    """The raised fingers of the first hand that the detector finds; None without one."""
    found = detector.detect(image)
    return count_fingers(found[0].landmarks) if found else None


def distance(first: Image.Image, second: Image.Image, repair: Repair) -> float:
    """Root mean squared difference under the masks, of values from 0 to 255."""
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    under = np.zeros(difference.shape[:2], dtype=bool)
    for hand in repair.hands:
        left, upper, right, lower = hand.region.mask
        under[upper:lower, left:right] = True
    return float(np.sqrt((difference[under] ** 2).mean()))


def repair_example(
    example: Example, pipe: Any, options: RepairOptions, judge: HandJudge, detector: HandDetector
) -> tuple[dict[str, Any], Image.Image]:
    """A row of figures, and the repaired image."""
    started = time.process_time()
    boxes, found_by = find_hands(example.image, detector, judge)
    given: list[Box] = boxes[:1] or [WHOLE_IMAGE]
    repair = repair_image(pipe, example.image, given, example.prompt, options, judge=judge)
    (hand,) = repair.hands
    row: dict[str, Any] = {"name": example.name, "kind": example.kind, "fingers": example.fingers}
    row |= {"found_by": found_by if boxes else "nobody", "replaced": hand.chosen is not None}
    row |= {"before": look(example.image, judge, detector), "after": look(repair.image, judge, detector)}
    row["variants"] = [candidate.score.well_formed for candidate in hand.candidates]
    row["square_before"], row["square_after"] = hand.before.well_formed, hand.after.well_formed
    row["count_before"] = detected_fingers(hand.square, detector) == example.fingers
    row["counts"] = [detected_fingers(one.square, detector) == example.fingers for one in hand.candidates]
    if example.clean is not None:
        row["distance_before"] = distance(example.image, example.clean, repair)
        row["distance_after"] = distance(repair.image, example.clean, repair)
    row["cpu_seconds"] = round(time.process_time() - started, 2)
    return row, repair.image


def set_folder(args: argparse.Namespace, name: str) -> Path:
    return Path(args.output) / name.replace(" ", "_")


def write_picture(folder: Path, target: Path) -> None:
    """The first hands of a set, before and after."""
    rows = []
    for when in ("before", "after"):
        files = sorted(folder.glob(f"*_{when}.png"))[:SHOWN]
        rows.append((when, [Image.open(file) for file in files]))
    write_rows(target, rows, cell=SIZE)


def run_set(name: str, args: argparse.Namespace, options: RepairOptions) -> dict[str, Any]:
    """Repair all hands of a set; rows and images are kept in the output folder as they are done."""
    folder = set_folder(args, name)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:03d}.json" for index in range(args.num_images)]
    if not all(file.is_file() for file in files):
        repair_set(name, folder, files, args, options)
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {"variant": name, "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1), "hands": rows}


def repair_set(name: str, folder: Path, files: list[Path], args: argparse.Namespace, options: RepairOptions) -> None:
    """Write the files of a set that are missing, and the images beside them."""
    judge, pipe = load_hand_judge(), load_pipeline(args.model)
    test = Path(args.photographs) / "test.parquet"
    with HandDetector(presence=False) as detector:
        examples = (
            rendered(folder / "hands", args.num_images, args.seed)
            if name == "rendered"
            else photographs(
                test, args.num_images, args.seed, name == "photographs", PHOTOGRAPH_PROMPTS[args.model], detector
            )
        )
        for file, example in zip(files, examples, strict=True):
            if file.is_file():
                continue
            row, image = repair_example(example, pipe, options, judge, detector)
            example.image.save(file.with_name(f"{file.stem}_before.png"))
            image.save(file.with_name(f"{file.stem}_after.png"))
            write_text(file, json.dumps(row))
            print(f"{name} {file.stem}: {row['square_before']:.2f} -> {row['square_after']:.2f}", flush=True)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", required=True, help="folder with test.parquet: image, label")
    parser.add_argument(
        "--model", choices=[*PHOTOGRAPH_PROMPTS], default="hands64", help="that repairs them (%(default)s)"
    )
    parser.add_argument("--output", default="runs/repair", help="folder of the images (%(default)s)")
    parser.add_argument("--results", default="docs/results/repair.json", help="results file (%(default)s)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="which sets (all)")
    parser.add_argument("--num-images", type=int, default=40, help="hands of each set (%(default)s)")
    parser.add_argument("--seed", type=int, default=6000, help="of hands and spoiling (%(default)s)")
    args = parser.parse_args()
    options = RepairOptions(guidance_scale=recommended_guidance(args.model))
    runs = [run_set(name, args, options) for name in args.sets]
    settings = {
        "model": args.model,
        "images": args.num_images,
        "seed": args.seed,
        "options": vars(options),
        "hands": shlex.join(HANDS),
    }
    results = write_results(args.results, "repair", runs, settings)
    file = Path(args.results)
    if "rendered" in args.sets:
        write_picture(set_folder(args, "rendered"), file.with_suffix(".png"))
    write_text(file.with_suffix(".md"), page(results, file.stem, file.with_suffix(".png").is_file()))
    print(f"Written: {args.results}")


if __name__ == "__main__":
    run_script(main)
