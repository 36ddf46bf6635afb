"""Does geometry help a pretrained diffusion model, in what, and by how much? The main runs; see PLAN.md.

    python -m scripts.experiments.study.run poses --output runs/study --results docs/results/study
    python -m scripts.experiments.study.run photographs --photographs sign-language-digits --output runs/study \
        --results docs/results/study

For each arm of a task a sweep on validation images chooses the learning rate; then the arm is trained with other seeds
and measured on test images, all arms with the same batches and noise. Writes TASK.json after each run. What stands in
it is not made again, also where its folder is gone: arms and seeds can be added on another day and machine.
"""

import argparse
import json
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from geopos_diffusers.command_line import Parser
from geopos_diffusers.finetuning.learning_rate_sweep import FinishedRun, HeldOut, base_losses, run_arm
from geopos_diffusers.training.processes import run_script

from ..arm_pictures import write_rows
from ..arms import arm_folder, arm_options, choose_rate, mean_losses, option_words, seed_options
from ..results import commands_with, read_results, read_standing, write_results
from .arms import ARMS, PILOT_NAMES
from .drift import Drift
from .measuring import ImageMeasures, band_losses, prefixed
from .padding import PaddedHeldOut, padded_training
from .tasks import PARTS, TASKS, Counts, Sources, Task, known_hands

EXPERIMENT = "study"
BASE, REAL, DRIFT = "base", "held-out images", "drift"
SWEEP_SEED = 200  # pilots had 100
SHOWN = 8  # images of each arm in the picture
NOISE_LEVELS = 1000


def common_options(args: argparse.Namespace, task: Task, train: Path, work: Path) -> list[str]:
    steps = task.steps(args.max_train_steps)
    options = {
        "model": args.model,
        "dataset": train,
        "size": task.size,
        "cache_latents": "true",
        "latents_folder": work / "latents",
        "cache_text_embeddings": "true",
        "text_folder": work / "text",
        "random_flip": "false",  # captions say which hand it is
        "train_batch_size": task.batch_size,
        "max_train_steps": steps,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": steps // 15,
        "snr_gamma": 5,
        "use_ema": "true",
        "ema_decay": 0.99,
        "mixed_precision": args.mixed_precision,
        "checkpointing_steps": steps,
    }
    return option_words(options)


class Study:
    """One task's runs, and what is known of them: `variants` by arm, and `records`, one for each arm and seed."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        self.args, self.name, self.task = args, name, TASKS[name]
        self.work, self.file = Path(args.output) / name, Path(args.results) / f"{name}.json"
        counts = Counts(args.train_images, args.validation_images, args.test_images)
        sources = Sources(self.work, counts, args.data_seed, args.photographs)
        folders = self.task.data(sources, self.task.size)
        size = self.task.size
        padding = self.task.padding
        self.validation = {"validation": PaddedHeldOut(str(folders["validation"]), size, size, padding=padding)}
        known = str(known_hands(sources))
        self.tests = {
            "loss": PaddedHeldOut(str(folders["test"]), size, size, padding=padding),
            "forgetting": HeldOut(known, 64, 64),
        }
        self.drift = {DRIFT: Drift(known, 64, 64)}
        self.common = common_options(args, self.task, folders["train"], self.work)
        self.settings = {name: getattr(args, name) for name in SETTINGS}
        self.settings |= {"sweep_seed": SWEEP_SEED, "images": {part: count_images(folders[part]) for part in PARTS}}
        self.pilot = {} if args.pilot is None else pilot_variants(args.pilot)
        self.test_folder = folders["test"]
        self.kind = padded_training(padding)
        self.read()

    @cached_property
    def measures(self) -> ImageMeasures:
        args = self.args
        return ImageMeasures(self.test_folder, args.num_samples, args.sample_steps, args.model, self.task.padding)

    def read(self) -> None:
        """Take up what was measured before."""
        self.variants: dict[str, Any] = {}
        self.records: list[dict[str, Any]] = []
        self.base_loss: dict[str, float] = {}
        found = read_standing(self.file, EXPERIMENT, self.settings)
        self.commands = commands_with(found)
        if found is not None:
            self.variants, self.records, self.base_loss = found["variants"], found["runs"], found["base_loss"]
        else:
            losses = base_losses(self.args.model, self.validation | self.tests)
            self.base_loss = mean_losses(losses)
            self.base_loss |= {
                f"loss {band}": value for band, value in band_losses(losses["loss"], NOISE_LEVELS).items()
            }

    def known(self, arm: str, seed: int) -> bool:
        return any(record["variant"] == arm and record["seed"] == seed for record in self.records)

    def add(self, arm: str, seed: int, scores: Mapping[str, Any], **more: Any) -> None:
        """Write the results with one record more."""
        self.records.append({"variant": arm, "seed": seed, "scores": dict(scores), **more})
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_results(
            self.file,
            EXPERIMENT,
            self.records,
            self.settings,
            task={"name": self.name, "title": self.task.title, "question": self.task.question,
                  "primary": self.task.primary},
            commands=self.commands,
            base_loss=self.base_loss,
            variants=self.variants,
        )  # fmt: skip
        shown = {name: value for name, value in scores.items() if " " not in name}
        print(f"{self.name}: {arm}, seed {seed}: {json.dumps(shown)}", flush=True)

    def image_scores(self, trained: Path | None, padding: str | None = None) -> dict[str, float]:
        scores: dict[str, float] = {}
        for size in self.task.drawn:
            found = self.measures.scores(self.measures.draw(trained, size, padding=padding))
            scores |= prefixed(found, size, size == self.task.drawn[0])
        return scores

    def loss_scores(self, run: FinishedRun) -> dict[str, float]:
        """Ratios to the base's losses, the drift's to that on the same images."""
        found = {name: run.loss(name) for name in self.tests}
        found |= {f"loss {band}": value for band, value in band_losses(run.losses["loss"], NOISE_LEVELS).items()}
        drift = run.loss(DRIFT) / self.base_loss["forgetting"]
        return {name: value / self.base_loss[name] for name, value in found.items()} | {DRIFT: drift}

    def measure_references(self) -> None:
        """The held-out images themselves, and the base."""
        if not self.known(REAL, 0):
            scores = self.measures.scores(self.measures.asked_real)
            self.add(REAL, 0, {name: value for name, value in scores.items() if name != "kid"})
        if not self.known(BASE, 0):
            ones = {name: 1.0 for name in self.base_loss if name != "validation"}
            self.add(BASE, 0, ones | {DRIFT: 0.0} | self.image_scores(None))
        for padding in self.task.paddings:
            if not self.known(name := f"{BASE}, {padding} padding", 0):
                self.add(name, 0, self.image_scores(None, padding))

    @property
    def best_rates(self) -> dict[str, float]:
        """Of the arms that are swept."""
        return {name: variant["best_rate"] for name, variant in self.variants.items()}

    def folder(self, name: str) -> Path:
        """Of an arm's runs."""
        return self.work / "arms" / arm_folder(name)

    def run(self, name: str) -> None:
        """Choose an arm's rate and run its seeds, as far as that is not known."""
        arm, folder = ARMS[name], self.folder(name)
        if arm.beside is not None and arm.beside not in self.variants:
            self.choose(arm.beside)
        if name not in self.variants:
            self.choose(name)
        options = arm_options(arm, self.common, self.best_rates)
        for seed in self.args.seeds:
            if self.known(name, seed):
                continue
            began = time.process_time()
            of_seed = seed_options(arm, options, self.best_rates[name], seed)
            run = run_arm(of_seed, self.tests | self.drift, folder / f"seed-{seed}", self.kind)
            trained = folder / f"seed-{seed}" / "final"
            size = sum(file.stat().st_size for file in trained.rglob("*.safetensors"))
            scores = self.loss_scores(run) | self.image_scores(trained)
            cost = {"seconds": run.seconds, "bytes": size, "cpu_seconds": time.process_time() - began}
            self.add(name, seed, scores, **cost)

    def choose(self, name: str) -> None:
        arm, folder = ARMS[name], self.folder(name) / "sweep"
        if name in self.pilot:
            self.variants[name] = self.pilot[name]
        else:
            options = arm_options(arm, self.common, self.best_rates)
            self.variants[name] = choose_rate(
                arm, options, folder, self.validation, self.base_loss, kind=self.kind, seed=SWEEP_SEED
            )
        print(f"{self.name}: {name}: {self.variants[name]['sweep']}", flush=True)

    def draw(self, arms: list[str]) -> None:
        """A picture of the same captions and noise in each arm whose weights are at hand."""
        folders = {name: self.folder(name) / f"seed-{self.args.seeds[0]}" / "final" for name in arms}
        if not (at_hand := {name: folder for name, folder in folders.items() if folder.is_dir()}):
            return
        size = self.task.drawn[0]
        rows = {REAL: self.measures.asked_real[:SHOWN]} if self.task.shows_held_out else {}
        rows[BASE] = self.measures.draw(None, size, SHOWN)
        rows |= {name: self.measures.draw(folder, size, SHOWN) for name, folder in at_hand.items()}
        write_rows(self.file.with_suffix(".png"), rows.items(), cell=96)


def count_images(folder: Path) -> int:
    return len([*folder.glob("*.png")])


def pilot_variants(file: Path) -> dict[str, Any]:
    """What the results of an earlier experiment, after which their file is named, say of the study's arms: parameters,
    sweep and best rate."""
    found = read_results(file, file.stem)["variants"]
    return {
        name: {**found[named], "options": arm.options, "pilot": file.stem}
        for name, arm in ARMS.items()
        if (named := PILOT_NAMES.get(name, name)) in found
    }


SETTINGS = ("model", "max_train_steps", "data_seed", "num_samples", "sample_steps", "mixed_precision")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=list(TASKS), metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--output", required=True, help="folder of images and runs; what is there is used again")
    parser.add_argument("--results", required=True, help="folder of the results files TASK.json, which are added to")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), metavar="ARM", help="(all of the task)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14], help="of the trainings (10 to 14)"
    )
    parser.add_argument("--photographs", type=Path, help="folder with train.parquet and test.parquet")
    parser.add_argument(
        "--pilot", type=Path, help="results file of an earlier experiment: arms that it swept take its rates"
    )
    parser.add_argument("--model", default="hands64", help="pipeline to fine-tune (%(default)s)")
    parser.add_argument("--data-seed", type=int, default=1400, help="of rendered images (%(default)s)")
    parser.add_argument("--max-train-steps", type=int, default=300, help="of each run; half at 128 px (%(default)s)")
    parser.add_argument("--train-images", type=int, default=2000, help="to render (%(default)s)")
    parser.add_argument("--validation-images", type=int, default=128, help="to render (%(default)s)")
    parser.add_argument("--test-images", type=int, default=256, help="to render (%(default)s)")
    parser.add_argument("--num-samples", type=int, default=96, help="images drawn of each run (%(default)s)")
    parser.add_argument("--sample-steps", type=int, default=15, help="denoising steps of each image (%(default)s)")
    parser.add_argument("--mixed-precision", default="bf16", choices=("no", "bf16"), help="(%(default)s)")
    args = parser.parse_args()
    for name in args.tasks:
        study = Study(args, name)
        study.measure_references()
        arms = [arm for arm in study.task.arms if args.arms is None or arm in args.arms]
        for arm in arms:
            study.run(arm)
        study.draw(arms)


if __name__ == "__main__":
    run_script(main)
