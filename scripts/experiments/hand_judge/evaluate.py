"""Measures the judge on rendered test hands, on photographs, and on the packaged model's images labelled by hand.

    python -m scripts.experiments.hand_judge.evaluate --judge geopos_diffusers/pretrained/hand_judge

Photographs (digits in sign language, Arda Mavi et al., arXiv 2011.08927, Apache-2.0) and labelled images are measured
where their files are given; nothing is trained or chosen on the test subjects.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from geopos_diffusers.command_line import Parser
from geopos_diffusers.data.hand_defects import DEFECTS
from geopos_diffusers.metrics.agreement import cohen_kappa
from geopos_diffusers.metrics.bootstrap import bootstrap_interval, mean
from geopos_diffusers.metrics.hand_judge import WEIGHTS_FILE, HandJudge, load_hand_judge, network_of

from ..photographs import read_photographs
from ..results import write_results
from ..statistics import area_under_curve
from .backgrounds import draw_backgrounds
from .batches import compose
from .data import SIZE, SOUND, Hands, load_hands
from .run import SUMMARY

NEGATIVES = 600
RESULTS = "docs/results/hand_judge.json"
LABELS = "scripts/experiments/hand_judge/packaged_model_labels.json"
PHOTOGRAPHS = "../shared/data/sign-language-digits"


def interval(values: Sequence[float] | np.ndarray, seed: int = 0) -> dict[str, float | None]:
    """A mean with its 95% bootstrap interval, rounded for the results file."""
    found = asdict(bootstrap_interval(mean, np.asarray(values, float), seed=seed))
    return {name: None if value is None else round(value, 4) for name, value in found.items()} | {"n": len(values)}


def area_interval(positive: np.ndarray, negative: np.ndarray, seed: int = 0) -> dict[str, float | None]:
    """Area under the ROC curve of two sets of scores, with its 95% bootstrap interval."""
    found = asdict(
        bootstrap_interval(
            lambda above, below: area_under_curve(below, above), positive, negative, seed=seed, resamples=500
        )
    )
    rounded = {name: None if value is None else round(value, 4) for name, value in found.items()}
    return rounded | {"n": [len(positive), len(negative)]}


def test_images(hands: Hands, heads: np.ndarray, negatives: bool) -> tuple[list[Image.Image], np.ndarray, np.ndarray]:
    """Degraded images of test hands, as in training; key points [N, 21, 2] in pixels; which are mirrored [N]."""
    backgrounds = torch.from_numpy(draw_backgrounds(500, SIZE, heads, np.random.default_rng(9)))
    generator = torch.Generator().manual_seed(9)
    images, keypoints, mirrored = [], [], []
    for start in range(0, len(hands), 64):
        part = slice(start, start + 64)
        pixels = torch.from_numpy(hands.pixels[part])
        batch = compose(
            pixels,
            torch.from_numpy(hands.keypoints[part]),
            backgrounds,
            torch.from_numpy(heads),
            torch.full((len(pixels),), negatives),
            generator,
        )
        bytes_ = (batch["images"].permute(0, 2, 3, 1).clamp(0, 1) * 255.0).round().to(torch.uint8).numpy()
        images += [Image.fromarray(picture) for picture in bytes_]
        keypoints.append(batch["keypoints"].numpy() * SIZE)
        mirrored.append(batch["mirrored"].numpy())
    return images, np.concatenate(keypoints), np.concatenate(mirrored)


def rendered_scores(judge: HandJudge, hands: Hands, heads: np.ndarray) -> dict[str, Any]:
    """On test hands, half of them with defects; what needs a sound hand is measured on those."""
    images, keypoints, mirrored = test_images(hands, heads, negatives=False)
    start = time.perf_counter()
    found = judge.judge(images)
    seconds = time.perf_counter() - start
    others = judge.judge(test_images(hands.select(np.arange(NEGATIVES)), heads, negatives=True)[0])
    sound = hands.defects == SOUND
    well_formed = np.array([one.well_formed for one in found])
    fingers = np.array([one.fingers for one in found])
    right = np.array([one.right_hand > 0.5 for one in found])
    places = np.stack([one.keypoints for one in found])
    extent = np.ptp(keypoints, axis=1).max(1)
    error = np.linalg.norm(places - keypoints, axis=2).mean(1) / extent
    kinds = {kind: hands.defects == index for index, kind in enumerate(DEFECTS)}
    front = sound & (hands.views != 2)
    return {
        "images": len(hands),
        "milliseconds_an_image": round(1000 * seconds / len(hands), 2),
        "present_auc": area_interval(
            np.array([one.present for one in found]), np.array([one.present for one in others])
        ),
        "present_found": interval([one.present > 0.5 for one in found]),
        "present_without_hand": interval([one.present > 0.5 for one in others]),
        "well_formed_auc": area_interval(well_formed[sound], well_formed[~sound]),
        "well_formed_accuracy": interval((well_formed > 0.5) == sound),
        "well_formed_auc_by_kind": {
            kind: area_interval(well_formed[sound], well_formed[of_kind]) for kind, of_kind in kinds.items()
        },
        "called_well_formed_by_kind": {
            "none": interval(well_formed[sound] > 0.5),
            **{kind: interval(well_formed[of_kind] > 0.5) for kind, of_kind in kinds.items()},
        },
        "fingers": interval(fingers[sound] == hands.fingers[sound]),
        "fingers_front": interval(fingers[front] == hands.fingers[front]),
        "handedness": interval(right[sound] == (hands.right ^ mirrored)[sound]),
        "handedness_front": interval(right[front] == (hands.right ^ mirrored)[front]),
        "keypoint_error_by_hand_size": interval(error[sound]),
        "keypoint_error_by_hand_size_defects": interval(error[~sound]),
    }


def photograph_scores(judge: HandJudge, path: Path) -> dict[str, Any]:
    """On photographs of real hands, nearly all of them right ones; digits 0 to 5 show that many fingers."""
    rows = read_photographs(path, ("image", "label", "subject"))
    found = judge.judge([row["image"] for row in rows])
    counted = [(one.fingers, row["label"]) for one, row in zip(found, rows, strict=True) if row["label"] <= 5]
    return {
        "images": len(rows),
        "subjects": len({row["subject"] for row in rows}),
        "present": interval([one.present > 0.5 for one in found]),
        "called_well_formed": interval([one.well_formed > 0.5 for one in found]),
        "well_formed": interval([one.well_formed for one in found]),
        "right_hand": interval([one.right_hand > 0.5 for one in found]),
        "fingers": interval([seen == label for seen, label in counted]),
        "fingers_by_digit": {
            str(digit): interval([seen == label for seen, label in counted if label == digit]) for digit in range(6)
        },
    }


def labelled_scores(judge: HandJudge, labels: Path, images: Path) -> dict[str, Any]:
    """On generated images with labels by hand: rows of seed, well_formed (true, false or null) and fingers.

    `images` is a folder of folders that `geopos generate` wrote; an image is found by its seed.
    """
    rows = json.loads(labels.read_text(encoding="utf-8"))["rows"]
    files = {}
    for metadata in images.glob("**/metadata.jsonl"):
        for line in metadata.read_text(encoding="utf-8").splitlines():
            described = json.loads(line)
            if "seed" in described:
                files[described["seed"]] = metadata.parent / described["file_name"]
    found = judge.judge([Image.open(files[row["seed"]]) for row in rows])
    pairs = list(zip(found, rows, strict=True))
    told = [(one.well_formed, row["well_formed"]) for one, row in pairs if row["well_formed"] is not None]
    scores, sound = np.array([score for score, _ in told]), np.array([label for _, label in told], bool)
    counted = [one.fingers == row["fingers"] for one, row in pairs if row.get("fingers") is not None]
    well_counted = [
        one.fingers == row["fingers"] for one, row in pairs if row["well_formed"] and row.get("fingers") is not None
    ]
    return {
        "images": len(rows),
        "labelled_well_formed": interval(sound),
        "well_formed_auc": area_interval(scores[sound], scores[~sound]),
        "well_formed_accuracy": interval((scores > 0.5) == sound),
        "well_formed_kappa": round(cohens_kappa(scores > 0.5, sound), 4),
        "called_well_formed": {
            "labelled well formed": interval(scores[sound] > 0.5),
            "labelled not well formed": interval(scores[~sound] > 0.5),
        },
        "fingers": interval(counted),
        "fingers_of_well_formed": interval(well_counted),
    }


def cohens_kappa(first: np.ndarray, second: np.ndarray) -> float:
    """`cohen_kappa`; full agreement is 1 even where both give one answer alone."""
    return 1.0 if (first == second).all() else cohen_kappa(first, second)


def judge_of(folder: Path | None) -> HandJudge:
    """The packaged judge, or that of a run's folder."""
    return load_hand_judge() if folder is None else HandJudge(network_of(load_file(folder / WEIGHTS_FILE)))


def measure(judge: HandJudge, args: argparse.Namespace) -> dict[str, Any]:
    data = Path(args.data)
    hands = load_hands(data, "test", args.shards)
    results = {"rendered": rendered_scores(judge, hands, np.load(data / "heads-test.npy"))}
    for part in ("train", "test"):
        if (path := Path(args.photographs) / f"{part}.parquet").is_file():
            results.setdefault("photographs", {})[f"{part} subjects"] = photograph_scores(judge, path)
    if Path(args.labels).is_file() and args.labelled_images:
        results["labelled"] = labelled_scores(judge, Path(args.labels), Path(args.labelled_images))
    return results


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default=None, help="folder of a run; without it the packaged judge")
    parser.add_argument("--data", default="runs/hand_judge/data", help="arrays of data.py (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=None, help="the first so many files of test hands (all)")
    parser.add_argument("--photographs", default=PHOTOGRAPHS, help="folder with train.parquet and test.parquet")
    parser.add_argument("--labels", default=LABELS, help="labels by hand (default: %(default)s)")
    parser.add_argument("--labelled-images", default=None, help="folder of the folders of labelled images")
    parser.add_argument("--output", default=None, help="JSON file to write; without it, it is printed")
    args = parser.parse_args(argv)
    torch.set_flush_denormal(True)
    results = measure(judge_of(Path(args.judge) if args.judge else None), args)
    if args.judge and (summary := Path(args.judge) / SUMMARY).is_file():
        results["training"] = json.loads(summary.read_text(encoding="utf-8"))
    if args.output:
        write_results(args.output, "hand_judge", [{"variant": "second judge"}], {"labels": LABELS}, **results)
    else:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.exit(main())
