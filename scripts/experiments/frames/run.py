"""Do frames say where the hand goes? Beside words, a token, a picture of the box, and coordinates of the image.

    python -m scripts.experiments.frames.run --output runs/frames --results docs/results/frames.json

The packaged model, which has only seen hands in the middle, learns rendered hands of all places and sizes, from
captions that do not say where. The arms differ in how they are told of the box and in what is trained; see `arms.py`.
Each is trained at its best rate (--sweep-steps; else the middle one), with a moving average, and at each of --steps
draws held-out prompts in held-out boxes, which are measured by the package's own judge of hands
and by the silhouette. Writes JSON. What is finished is not made again, and more steps, seeds or arms go on from what is
there. The runs of a results file that stands already are kept, and its rates are used, also where the folder of its
trainings is gone. --rates-of takes the rates of another results file, such as one of fewer test images;
arms that it lacks are swept.

Rates are constant, so that one training is measured at several steps. With --schedule cosine they fall to 0 over
--steps, which is one number then, and the held-out loss chooses the rate of every arm: what a high rate spoils on the
way is mended in the end.
"""

import argparse
import json
import math
import shlex
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict
from itertools import product
from os import devnull
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import ConfigError, DivergedError
from geopos_diffusers.files import write_json
from geopos_diffusers.finetuning.engine import finetune
from geopos_diffusers.metrics.bootstrap import bootstrap_means
from geopos_diffusers.metrics.features import extract_features, load_mobilenet
from geopos_diffusers.metrics.hand_judge import load_hand_judge
from geopos_diffusers.metrics.kid import kid
from geopos_diffusers.pipelines.loading import recommended_guidance
from geopos_diffusers.training.loss_log import VALIDATION_LOSSES, read_losses
from geopos_diffusers.training.processes import run_script
from geopos_diffusers.training.rate_grid import best_rate, sweep_rates

from .. import results
from .arms import ARMS, Arm
from .data import PLACED_TEXT, read_images, read_rows, render_placed, render_test
from .drawing import draw_folder, guidance_of
from .places import image_columns, measure, scores

SWEEP_SEED = 100
REFERENCE = "frames, whole"
VALIDATION_IMAGES = 128
CONSTANT = "constant"
SWEEP_IMAGES = 64  # drawn in validation boxes at each rate
EMPTY: dict[str, Any] = {"variants": {}, "image_differences": {"steps": 0, "arms": {}}, "runs": []}


def train(args: argparse.Namespace, arm: Arm, rates: dict[str, float], folder: Path, seed: int, steps: int) -> None:
    """Train up to so many steps into `folder`, from where it stands.

    Args:
        rates: that the arm's options have places for.
    """
    if last_step(folder) >= steps:
        return
    work = Path(args.output)
    options = ["--model", args.model, "--dataset", work / "data" / "train", *shlex.split(arm.options.format(**rates))]
    options += ["--cache-latents", "--latents-folder", work / "latents"]
    options += ["--cache-text-embeddings", "--text-folder", work / "text"]
    options += ["--caption-column", PLACED_TEXT] if arm.placed_text else []
    options += ["--validation-dataset", work / "data" / "validation", "--validation-loss-images", VALIDATION_IMAGES]
    options += ["--validation-loss-steps", 1_000_000, "--train-batch-size", args.batch_size, "--max-train-steps", steps]
    options += [
        "--lr-scheduler",
        args.schedule,
        "--lr-warmup-steps",
        20,
        "--use-ema",
        "--ema-decay",
        0.99,
        "--seed",
        seed,
        "--report-to",
        "none",
    ]
    options += ["--checkpointing-steps", 50, "--checkpoints-total-limit", 1, "--mixed-precision", args.mixed_precision]
    options += ["--output", folder]
    with open(devnull, "w") as quiet, redirect_stdout(quiet):
        finetune(arm.task, [str(word) for word in options])


def slug(name: str) -> str:
    """An arm's name as a folder's."""
    return name.replace(",", "").replace(" ", "-")


def last_step(folder: Path) -> int:
    """The step that a finished run ended at; 0 of one that is not finished."""
    file = folder / "summary.json"
    return json.loads(file.read_text(encoding="utf-8"))["steps"] if file.is_file() else 0


def held_out_loss(folder: Path) -> float:
    return read_losses(folder / VALIDATION_LOSSES)[-1]["validation_loss"]


class Rates:
    """The learning rates of the arms, each swept once.

    Where rates are constant, an arm that is told of the box has the rate at which the places of hands correlate most
    with those of validation boxes: after a few steps the denoising loss says hardly anything of whether a hand is where
    it was asked for, and the overlap is high enough for hands that stay in the middle. Else the rate of the least loss.
    """

    def __init__(
        self, args: argparse.Namespace, validation: "Measuring", variants: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """variants: what a results file says of arms that were swept before."""
        self.args, self.validation = args, validation
        self._found: dict[str, tuple[dict[str, float], dict[str, float | None]]] = {
            name: ({place: known[place] for place in ("beside", "rate") if place in known}, known["sweep"])
            for name, known in variants.items()
        }

    def of(self, name: str) -> dict[str, float]:
        """By their places in the arm's options."""
        return self._swept(name)[0]

    def sweep(self, name: str) -> dict[str, float | None]:
        """What each rate was judged by, lower is better: 1 - mean correlation, or the loss; None where it diverged."""
        return self._swept(name)[1]

    def _swept(self, name: str) -> tuple[dict[str, float], dict[str, float | None]]:
        name = ARMS[name].weights_of or name
        if name not in self._found:
            arm = ARMS[name]
            fixed = {} if arm.beside is None else {"beside": self.of(arm.beside)["rate"]}
            if not self.args.sweep_steps:
                self._found[name] = fixed | {"rate": sorted(arm.rates)[len(arm.rates) // 2]}, {}
            else:
                found = sweep_rates(arm.rates, lambda rates: [self._judge(name, fixed, rate) for rate in rates])
                shown = {f"{rate:g}": None if math.isnan(value) else value for rate, value in found.items()}
                self._found[name] = fixed | {"rate": best_rate(found)}, shown
                print(f"{name}: {self._found[name]}", flush=True)
        return self._found[name]

    def _judge(self, name: str, fixed: dict[str, float], rate: float) -> float:
        arm, label = ARMS[name], f"rate-{rate:g}-{self.args.sweep_steps}"
        folder = Path(self.args.output) / "sweeps" / slug(name) / label
        try:
            train(self.args, arm, fixed | {"rate": rate}, folder, SWEEP_SEED, self.args.sweep_steps)
        except DivergedError:
            return math.nan
        if not arm.told or self.args.schedule != CONSTANT:
            return held_out_loss(folder)
        measured = self.validation.measured(arm, folder / "final", f"sweep-{slug(name)}-{label}")
        return 1 - sum(measured["scores"][axis] or 0.0 for axis in ("correlation_x", "correlation_y")) / 2


def image_intervals(columns: dict[str, list[dict[str, np.ndarray]]], reference: str) -> dict[str, dict]:
    """Differences of an arm and each other one, mean over seeds, with 95% intervals over the images (paired).

    Args:
        columns: of each arm by seed, see `image_columns`.
    """
    means = {
        name: {score: np.mean([one[score] for one in found], axis=0) for score in found[0]}
        for name, found in columns.items()
    }
    first, differences = means.pop(reference, None), {}
    for name, other in means.items() if first is not None else ():
        gains = np.stack([first[score] - other[score] for score in first], axis=1)
        intervals = bootstrap_means(gains, seed=0)
        differences[name] = {score: asdict(one) for score, one in zip(first, intervals, strict=True)}
    return differences


def reference_of(settings: Mapping[str, Any]) -> str:
    """The arm that the others of a results file are compared with."""
    return settings.get("reference", REFERENCE)


class Measuring:
    """The first `count` rows of a folder of rendered hands, and what images are measured with; loaded once."""

    def __init__(self, args: argparse.Namespace, folder: Path, count: int) -> None:
        self.args, self.work, self.folder = args, Path(args.output), folder
        self.rows = read_rows(self.folder)[:count]
        self.judge, self.network = load_hand_judge(), load_mobilenet()
        self.reference = self.features(self.folder)

    def features(self, folder: Path) -> np.ndarray:
        file = self.work / "features" / f"{folder.name}-{len(self.rows)}.npy"
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            np.save(file, extract_features(self.network, self.images(folder)), allow_pickle=False)
        return np.load(file, allow_pickle=False)

    def images(self, folder: Path) -> list[Image.Image]:
        return read_images(folder, len(self.rows))

    def measured(self, arm: Arm, trained: Path, name: str) -> dict[str, Any]:
        """Draw with what was trained, and measure; or read what was measured."""
        file = self.work / "measured" / f"{name}-{len(self.rows)}.json"
        if not file.is_file():
            args = self.args
            scale = guidance_of(arm, args.model)
            target = self.work / "drawn" / f"{name}-{len(self.rows)}"
            folder = draw_folder(arm, args.model, trained, self.rows, target, args.inference_steps, scale)
            found = measure(self.images(folder), self.rows, self.judge)
            file.parent.mkdir(exist_ok=True)
            write_json(file, {"kid": kid(self.features(folder), self.reference, seed=0).value, "images": found})
        kept = json.loads(file.read_text(encoding="utf-8"))
        return {"scores": {**scores(kept["images"], self.rows), "kid": kept["kid"]}, "images": kept["images"]}


def run(args: argparse.Namespace) -> dict[str, Any]:
    trained_with = {"model": args.model, "batch_size": args.batch_size, "train_images": args.train_images}
    settings = {
        **trained_with,
        "test_images": args.test_images,
        "inference_steps": args.inference_steps,
        "guidance_scale": recommended_guidance(args.model) or 1.0,
        "sweep_steps": args.sweep_steps,
    }
    if args.schedule != CONSTANT:
        if len(args.steps) > 1 or args.sweep_steps not in (0, args.steps[0]):
            raise ConfigError(f"a {args.schedule} schedule has one number of --steps, which --sweep-steps is too")
        settings["schedule"] = args.schedule
    if args.reference != REFERENCE:
        settings["reference"] = args.reference
    swept: dict[str, Any] = {}  # arms of another results file
    if args.rates_of is not None:
        other = results.read_results(args.rates_of, "frames")
        if any(other["settings"][name] != value for name, value in trained_with.items()):
            raise ConfigError(f"the arms of {args.rates_of} were trained with other settings; sweep the rates instead")
        settings["sweep_steps"], swept = args.sweep_steps or other["settings"]["sweep_steps"], other["variants"]
    if settings["guidance_scale"] <= 1 and (guided := [name for name in args.arms if ARMS[name].guided]):
        raise ConfigError(f"{args.model} has no guidance, which {guided[0]!r} needs")
    standing = results.read_standing(args.results, "frames", settings)
    known, commands = standing or EMPTY, results.commands_with(standing)
    work = Path(args.output)
    for number, (name, count) in enumerate((("train", args.train_images), ("validation", VALIDATION_IMAGES)), 1):
        render_placed(work / "data" / name, count, number)
    render_test(work, args.test_images)
    torch.set_num_threads(args.threads)
    measuring = Measuring(args, work / "data" / "test", args.test_images)
    rates = Rates(args, Measuring(args, work / "data" / "validation", SWEEP_IMAGES), swept | known["variants"])
    real = scores(measure(measuring.images(measuring.folder), measuring.rows, measuring.judge), measuring.rows)
    records = {(one["variant"], one["seed"], one["steps"]): one for one in known["runs"]}
    variants = dict(known["variants"])
    columns: dict[int, dict[str, list]] = {}  # by steps and arm
    trained = {name: ARMS[name].weights_of or name for name in args.arms}
    for seed in args.seeds:
        for weights in dict.fromkeys(trained.values()):
            folder = work / "runs" / slug(weights) / f"seed-{seed}"
            for steps, name in product(sorted(args.steps), [name for name in args.arms if trained[name] == weights]):
                arm, label = ARMS[name], f"{slug(name)}-seed-{seed}-step-{steps}"
                measured = work / "measured" / f"{label}-{args.test_images}.json"
                if not measured.is_file() and (name, seed, steps) in records:
                    continue
                if not measured.is_file() and (args.finished_only or last_step(folder) > steps):
                    print(f"{name}, seed {seed}: left out after {steps} steps, which are not measured", flush=True)
                    continue
                if not measured.is_file():
                    train(args, arm, rates.of(name), folder, seed, steps)
                found = measuring.measured(arm, folder / "final", label)
                values = found["scores"]
                own = columns.setdefault(steps, {}).setdefault(name, [])
                own.append(image_columns(found["images"], measuring.rows))
                summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
                variants[name] = {"options": arm.options, **rates.of(name), "sweep": rates.sweep(name)}
                variants[name]["parameters"] = summary["trained_parameters"]
                losses_at = {line["step"]: line["validation_loss"] for line in read_losses(folder / VALIDATION_LOSSES)}
                record = {"variant": name, "seed": seed, "steps": steps, "mixed_precision": args.mixed_precision}
                records[name, seed, steps] = record | {"scores": values, "held_out_loss": losses_at.get(steps)}
                shown = ", ".join(f"{key} {value:.3f}" for key, value in values.items() if value is not None)
                print(f"{name}, seed {seed}, {steps} steps: {shown}", flush=True)
    # After the most steps that most arms have.
    compared = max(columns, key=lambda steps: (len(columns[steps]), steps), default=0)
    differences = {"steps": compared, "arms": image_intervals(columns.get(compared, {}), reference_of(settings))}
    if known["image_differences"]["steps"] in (0, compared):
        differences["arms"] = known["image_differences"]["arms"] | differences["arms"]
    elif len(differences["arms"]) <= len(known["image_differences"]["arms"]):
        differences = known["image_differences"]
    ordered = {name: variants[name] for name in ARMS if name in variants}
    runs = sorted(records.values(), key=lambda one: (one["seed"], list(ARMS).index(one["variant"]), one["steps"]))
    more = {"commands": commands, "variants": ordered, "rendered": real, "image_differences": differences}
    return results.write_results(args.results, "frames", runs, settings, **more)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for images and runs; what is there is used again")
    parser.add_argument("--results", required=True, help="JSON file to write")
    parser.add_argument("--model", default="hands64", help="pipeline to fine-tune (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--steps", type=int, nargs="+", default=[2000], help="steps to measure at (2000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the trainings (1 2 3)")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step (default: %(default)s)")
    parser.add_argument("--sweep-steps", type=int, default=0, help="of each rate that is tried; 0 for no sweep")
    parser.add_argument("--rates-of", metavar="FILE", help="results file whose rates are used, instead of a sweep")
    parser.add_argument(
        "--schedule", default=CONSTANT, choices=(CONSTANT, "cosine"), help="of the rates (default: %(default)s)"
    )
    parser.add_argument(
        "--reference", default=REFERENCE, choices=list(ARMS), metavar="ARM", help="compare it with others"
    )
    parser.add_argument("--train-images", type=int, default=5000, help="images to render (default: %(default)s)")
    parser.add_argument("--test-images", type=int, default=500, help="images to draw an arm (default: %(default)s)")
    parser.add_argument("--inference-steps", type=int, default=12, help="of each image (default: %(default)s)")
    parser.add_argument(
        "--mixed-precision", default="no", choices=("no", "bf16"), help="of the trainings (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: %(default)s)")
    parser.add_argument("--finished-only", action="store_true", help="write what is measured, and run nothing")
    run(parser.parse_args())


if __name__ == "__main__":
    run_script(main)
