"""Which small adapter mends a decoder, and where: geometry weights beside biases, LoRA of as many parameters, and all.

    python -m scripts.experiments.vae_decoder.run --photographs sign-language-digits --output runs/vae_decoder \
        --results docs/results/vae_decoder.json

The packaged autoencoder was trained on rendered hands. Its decoder is fine-tuned on photographs of real hands, whose
people are others in training, validation and test. For each arm a sweep on validation images chooses the learning rate
(a seed of its own); then the arm is trained with other seeds, which all arms share, and scored on test images beside
the untouched decoder, in a ring along the border and in the centre. Writes JSON; the page is `section.py`'s. What is
finished is not made again.
"""

import argparse
import json
import math
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from os import devnull
from pathlib import Path

import numpy as np
import torch

from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import ConfigError, DivergedError
from geopos_diffusers.files import atomic_directory, write_json
from geopos_diffusers.finetuning.autoencoders import decode, encode, load_autoencoder
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.perceptual_loss import PerceptualLoss
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.finetuning.vae import main as finetune
from geopos_diffusers.finetuning.vae_scores import HeldOutImages, picture
from geopos_diffusers.metrics.bootstrap import bootstrap_means
from geopos_diffusers.training.processes import run_script
from geopos_diffusers.training.rate_grid import best_rate, is_bracketed, sweep_rates

from .. import results
from ..photographs import read_photographs

SIZE = 64
SWEEP_SEED = 100
UNTOUCHED = "untouched"
VALIDATION_SHARE = 5  # one in so many of the training's people
PICTURES = 4


@dataclass(frozen=True)
class Arm:
    """options: of `geopos train vae`. rates: where the sweep begins."""

    options: str
    rates: tuple[float, ...]


ARMS = {
    "geometry": Arm("--train geoconv", (1e-2, 3e-2, 1e-1)),
    "bias": Arm("--train bias", (3e-2, 1e-1, 3e-1)),
    # 5,760 parameters beside 5,644 of the geometry weights.
    "LoRA": Arm("--train lora --lora-rank 1 --lora-target-modules conv2", (3e-3, 1e-2, 3e-2)),
    "whole decoder": Arm("--train full", (1e-4, 3e-4, 1e-3)),
}


@dataclass
class Finished:
    """A run with its scores on some images: of each image by name, and of the set."""

    options: list[str]
    parameters: int
    seconds: float
    values: dict[str, list[float]]
    kid: float | None

    def mean(self, name: str) -> float:
        return sum(self.values[name]) / len(self.values[name])

    def scores(self) -> dict[str, float]:
        known = {name: self.mean(name) for name in self.values}
        return known if self.kid is None else known | {"kid": self.kid}


def export(photographs: Path, work: Path) -> None:
    """Write the photographs as image folders: train, validation (every fifth of the training's people), test."""
    if all((work / name).is_dir() for name in ("train", "validation", "test")):
        return
    rows = {
        split: read_photographs(photographs / f"{split}.parquet", ("image", "subject")) for split in ("train", "test")
    }
    people = sorted({row["subject"] for row in rows["train"]})
    held_out = set(people[::VALIDATION_SHARE])
    parts = {
        "train": [row for row in rows["train"] if row["subject"] not in held_out],
        "validation": [row for row in rows["train"] if row["subject"] in held_out],
        "test": rows["test"],
    }
    for name, chosen in parts.items():
        with atomic_directory(work / name) as folder:
            for number, row in enumerate(chosen):
                row["image"].save(folder / f"{number:04d}.png")


def compared_images(folder: Path, limit: int, autoencoder: str, perceptual: bool) -> HeldOutImages:
    """Up to `limit` images out of all of a folder, with the untouched autoencoder's scores."""
    data = load_image_text(str(folder), SIZE, columns=Columns("image", None), show_progress=False)
    count = min(limit, len(data))
    pixels = torch.stack([data[index * len(data) // count]["pixels"] for index in range(count)])
    maps = PerceptualLoss("mobilenet").maps if perceptual else None
    images = HeldOutImages(pixels, 16, maps, kid=perceptual)
    images.remember_untouched(reconstruction(load_autoencoder(autoencoder).vae))
    return images


def reconstruction(vae):
    vae.eval()
    return lambda pixels: decode(vae, encode(vae, pixels)[0])[0]


def trained(folder: Path, model: str):
    """The autoencoder with what a run trained."""
    owner = load_autoencoder(model)
    load_trained_parts(owner, folder / "final", component="vae")
    return owner.vae


def run_once(options: Sequence[str], folder: Path, images: HeldOutImages, model: str) -> Finished:
    """Train into `folder` and score, unless that is done."""
    file, options = folder / "scores.json", list(options)
    if file.is_file():
        run = Finished(**json.loads(file.read_text(encoding="utf-8")))
        if run.options != options:
            raise ConfigError(f"{folder} holds a run with other options; give another output folder")
        return run
    with open(devnull, "w") as quiet, redirect_stdout(quiet):
        finetune([*options, "--output", str(folder), "--report-to", "none", "--log-every", "1000"])
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    scores, _ = images.compare(reconstruction(trained(folder, model)))
    values = {name: column.tolist() for name, column in images.trained.items()}
    kid = scores["kid"]["trained"]["value"] if "kid" in scores else None
    run = Finished(options, summary["trained_parameters"], summary["seconds"], values, kid)
    write_json(file, asdict(run))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return run


def swept(options: list[str], rates: Sequence[float], folder: Path, images: HeldOutImages, model: str):
    """Mean absolute error of the validation images by rate, and the parameters that are trained."""
    parameters = 0

    def measure(new: list[float]) -> list[float]:
        nonlocal parameters
        found = []
        for rate in new:
            try:
                run = run_once([*options, "--learning-rate", f"{rate:g}"], folder / f"rate-{rate:g}", images, model)
            except DivergedError:
                found.append(math.nan)
                continue
            parameters = run.parameters
            found.append(run.mean("l1_image"))
            print(f"{folder.parent.name}: rate {rate:g}: {found[-1]:.5f}", flush=True)
        return found

    return sweep_rates(rates, measure), parameters


def measure(args: argparse.Namespace) -> None:
    work = Path(args.output)
    export(Path(args.photographs), work)
    validation = compared_images(work / "validation", args.validation_images, args.model, perceptual=False)
    common = ["--model", args.model, "--dataset", str(work / "train"), "--size", str(SIZE), "--crop", "random"]
    common += ["--random-flip", "--train-batch-size", str(args.batch_size), "--max-train-steps", str(args.steps)]
    common += ["--lr-scheduler", "cosine", "--lr-warmup-steps", str(args.steps // 10), "--lpips-network", "none"]
    common += ["--checkpointing-steps", str(args.steps)]
    variants, runs, test = {}, {}, None
    for name in args.arms:
        arm, folder = ARMS[name], work / name.replace(" ", "-")
        options = [*common, *arm.options.split()]
        losses, parameters = swept(
            [*options, "--seed", str(SWEEP_SEED)], arm.rates, folder / "sweep", validation, args.model
        )
        best = best_rate(losses)
        variants[name] = {
            "options": arm.options,
            "parameters": parameters,
            "sweep": {f"{rate:g}": None if math.isnan(loss) else loss for rate, loss in losses.items()},
            "best_rate": best,
            "bracketed": is_bracketed(losses),
        }
        test = test or compared_images(work / "test", args.test_images, args.model, perceptual=True)
        runs[name] = []
        for seed in range(args.num_seeds):
            words = [*options, "--learning-rate", f"{best:g}", "--seed", str(seed)]
            runs[name].append(run_once(words, folder / f"seed-{seed}", test, args.model))
            print(f"{name}: seed {seed}: {runs[name][-1].mean('psnr_image'):.3f} dB", flush=True)
    write(args, variants, runs, test, {name: work / name.replace(" ", "-") / "seed-0" for name in args.arms})


def write(args: argparse.Namespace, variants: dict, runs: dict, test: HeldOutImages, firsts: dict[str, Path]) -> None:
    """Write the results file and the pictures beside it."""
    from .figure import draw

    untouched = Finished([], 0, 0.0, {name: column.tolist() for name, column in test.untouched.items()}, None)
    before, _ = test.compare(reconstruction(load_autoencoder(args.model).vae))
    untouched.kid = before["kid"]["untouched"]["value"] if "kid" in before else None
    records = [{"variant": UNTOUCHED, "seed": 0, "scores": untouched.scores(), "seconds": 0.0}]
    records += [
        {"variant": name, "seed": seed, "scores": run.scores(), "seconds": run.seconds}
        for name, finished in runs.items()
        for seed, run in enumerate(finished)
    ]
    settings = {"model": args.model, "steps": args.steps, "batch_size": args.batch_size, "size": SIZE}
    settings |= {"ring_pixels": test.width, "validation_images": args.validation_images}
    settings |= {"test_images": len(test.pixels), "seeds": list(range(args.num_seeds)), "sweep_seed": SWEEP_SEED}
    found = results.write_results(
        args.results,
        "vae_decoder",
        records,
        settings,
        lpips=before["lpips_name"],
        kid=before.get("kid_name"),
        variants=variants,
        image_intervals=image_intervals(runs, test),
    )
    images = {UNTOUCHED: load_autoencoder(args.model).vae}
    images |= {name: trained(folder, args.model) for name, folder in firsts.items()}
    chosen = test.pixels[:: max(1, len(test.pixels) // PICTURES)][:PICTURES]
    with torch.no_grad():
        shown = {
            name: [picture(one.clamp(-1, 1)) for one in reconstruction(vae)(chosen)] for name, vae in images.items()
        }
    draw(found, {"original": [picture(one) for one in chosen], **shown}, Path(args.results).with_suffix(".png"))


def image_intervals(runs: dict[str, list[Finished]], test: HeldOutImages) -> dict[str, dict[str, dict]]:
    """Differences of two decoders, mean over seeds, with 95% intervals over the images (bootstrap, paired).

    By "FIRST - SECOND" and score; "SCORE_ring_minus_centre" is how much larger a difference is in the ring.
    """
    means = {
        name: {score: np.mean([run.values[score] for run in finished], axis=0) for score in finished[0].values}
        for name, finished in runs.items()
    }
    means[UNTOUCHED] = test.untouched
    compared = [(name, UNTOUCHED) for name in runs]
    compared += [("geometry", name) for name in runs if name != "geometry" and "geometry" in runs]
    found = {}
    for first, second in compared:
        columns = {score: means[first][score] - means[second][score] for score in means[first]}
        for measure in ("psnr", "l1", "lpips"):
            columns[f"{measure}_ring_minus_centre"] = columns[f"{measure}_ring"] - columns[f"{measure}_centre"]
        intervals = bootstrap_means(np.stack([*columns.values()], axis=1), seed=0)
        found[f"{first} - {second}"] = {
            name: asdict(interval) for name, interval in zip(columns, intervals, strict=True)
        }
    return found


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photographs", required=True, help="folder of train.parquet and test.parquet (image, subject)"
    )
    parser.add_argument("--output", required=True, help="folder for images and runs; what is there is used again")
    parser.add_argument("--results", required=True, help="JSON file to write; the picture gets its name, with .png")
    parser.add_argument("--model", default="hands64", help="pipeline with the autoencoder (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument("--steps", type=int, default=80, help="steps a run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="images a step (default: %(default)s)")
    parser.add_argument("--num-seeds", type=int, default=5, help="runs an arm at its best rate (default: %(default)s)")
    parser.add_argument("--validation-images", type=int, default=64, help="of the sweeps (default: %(default)s)")
    parser.add_argument("--test-images", type=int, default=128, help="of the report (default: %(default)s)")
    measure(parser.parse_args())


if __name__ == "__main__":
    run_script(main)
