"""Diffusion of 32 px pixels: a model of rendered hands adapted to photographs, and models of faces from random weights.

    python -m scripts.experiments.unconditional.run hands --photographs sign-language-digits \
        --output runs/unconditional_hands --results docs/results/unconditional_hands.json
    python -m scripts.experiments.unconditional.run faces --photographs smile-faces \
        --output runs/unconditional_faces --results docs/results/unconditional_faces.json

hands: trains a small UNet2DModel on rendered hands, then adapts it to photographs of hands by geometry weights, biases,
LoRA and as a whole. faces: trains convolutions, and GeoConv as in the paper, from random weights. Each arm has its own
learning rate, by a sweep on validation images with a seed of its own, and is measured on test photographs: by the
denoising loss, and by the kernel distance of drawn images. What is finished is not made again.
"""

import argparse
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from os import devnull
from pathlib import Path
from typing import Any

from PIL import Image

from geopos_diffusers.adapters.files import WEIGHTS_NAME
from geopos_diffusers.adapters.loading import load_geoconv_weights
from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_json, write_text
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.kinds import main_of
from geopos_diffusers.finetuning.learning_rate_sweep import base_losses
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.finetuning.unconditional import pixel_losses
from geopos_diffusers.finetuning.unconditional_models import draw_images, load_unconditional
from geopos_diffusers.images.opening import open_image
from geopos_diffusers.training.processes import run_script

from ..arm_pictures import write_rows
from ..arms import SWEEP_SEED, Arm, kept_scores, mean_losses, option_words, train_arms
from ..image_distances import ImageDistances
from ..rendered_hands import render
from ..results import write_results
from .data import export_faces, export_hands
from .section import page

KIND = "unconditional"
SIZE = 32
SHOWN = 8  # images of each arm in the picture
UNET = {
    "sample_size": SIZE,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 16,
    "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
}
UNETS = {
    "hands": {**UNET, "in_channels": 3, "out_channels": 3, "block_out_channels": [32, 64, 96]},
    "faces": {**UNET, "in_channels": 1, "out_channels": 1, "block_out_channels": [24, 48, 64]},
}
ATTENTION = "to_q to_k to_v to_out.0"


ARMS = {
    "hands": {
        "geometry": Arm("--train geoconv", (3e-2, 1e-1, 3e-1)),
        "bias": Arm("--train bias", (3e-2, 1e-1, 3e-1)),
        "LoRA attention r=2": Arm(f"--train lora --lora_rank 2 --lora_target_modules {ATTENTION}", (1e-2, 3e-2, 1e-1)),
        "whole model": Arm("--train full", (3e-4, 1e-3, 3e-3)),
    },
    "faces": {
        "convolution": Arm("--train full", (1e-3, 3e-3, 1e-2)),
        "GeoConv": Arm("--train full+geoconv --basis taps", (1e-3, 3e-3, 1e-2)),
    },
}


@dataclass(frozen=True)
class PixelSet:
    """Denoising losses of held-out images of a folder; an image set of the learning-rate sweep."""

    folder: str
    seed: int = 0

    def losses(self, model: str, trained: Path | None) -> list[float]:
        data = load_image_text(self.folder, SIZE, columns=Columns(caption=None), show_progress=False)
        return pixel_losses(load_trained(model, trained), data, self.seed).tolist()


def load_trained(model: str, trained: Path | None) -> Any:
    """The pipeline of a run in eval mode: what it saved as a whole, or beside its base."""
    if trained is not None and (trained / "model_index.json").is_file():
        pipe = load_unconditional(str(trained))
        if (trained / WEIGHTS_NAME).is_file():
            load_geoconv_weights(pipe, trained)
    else:
        pipe = load_unconditional(model)
        if trained is not None:
            load_trained_parts(pipe, trained)
    pipe.unet.eval()
    return pipe


@dataclass
class Images:
    """Draws images of runs and compares them with the test photographs, in features that need no download."""

    reference: Path
    count: int
    steps: int

    @cached_property
    def distances(self) -> ImageDistances:
        return ImageDistances([open_image(path) for path in sorted(self.reference.glob("*.png"))])

    def scores(self, model: str, trained: Path | None, file: Path) -> dict[str, float]:
        """Kernel and Fréchet distance; kept in `file`."""

        def measure() -> dict[str, float]:
            distance, frechet = self.distances.measure(self.draw(model, trained, self.count))
            return {"kid": float(distance or 0.0), "frechet": frechet}

        return kept_scores(file, {"count": self.count, "steps": self.steps}, measure)

    def draw(self, model: str, trained: Path | None, count: int) -> list[Image.Image]:
        """Images of the same noise for all models."""
        return draw_images(load_trained(model, trained), count, SIZE, self.steps, seed=0)


def common_options(args: argparse.Namespace, dataset: Path, steps: int) -> list[str]:
    options = {
        "dataset": dataset,
        "max_train_steps": steps,
        "train_batch_size": args.batch_size,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": steps // 15,
        "snr_gamma": 5,
        "use_ema": "true",
        "ema_decay": 0.99,
        "random_flip": "true",
        "validation_grid": 0,
        "checkpointing_steps": max(1, steps // 4),
        "checkpoints_total_limit": 1,
    }
    return option_words(options)


def make_base(args: argparse.Namespace, work: Path, config: Path) -> str:
    """The model that is adapted: of rendered hands, from random weights. Returns its folder."""
    rendered = render(work / "rendered", args.base_images, SIZE, seed=7)
    folder = work / "base"
    if not (folder / "summary.json").is_file():
        with open(devnull, "w") as quiet, redirect_stdout(quiet):
            main_of(KIND)(
                [
                    *common_options(args, rendered, args.base_steps),
                    *("--model_config", str(config), "--beta_schedule", "squaredcos_cap_v2", "--train", "full"),
                    *("--learning_rate", "2e-3", "--report-to", "none", "--output", str(folder)),
                ]
            )
    return str(folder / "final")


def measure(args: argparse.Namespace) -> dict:
    work, arms = Path(args.output), ARMS[args.subject]
    config = work / "unet.json"
    write_json(config, UNETS[args.subject])
    if args.subject == "hands":
        folders = export_hands(args.photographs, work, SIZE)
        base = make_base(args, work, config)
        begin = ["--model", base]
    else:
        folders = export_faces(args.photographs, work, SIZE, validation=500)
        base, begin = "", ["--model_config", str(config), "--beta_schedule", "squaredcos_cap_v2"]
    validation, test = {"validation": PixelSet(str(folders["validation"]))}, {"test": PixelSet(str(folders["test"]))}
    images = Images(folders["test"], args.num_samples, args.sample_steps)
    unit = dict.fromkeys(("validation", "test"), 1.0)
    if base:  # losses are ratios to its
        unit = mean_losses(base_losses(base, validation | test))
    common = [*common_options(args, folders["train"], args.max_train_steps), *begin]
    variants, records, shown = {}, [], {}
    if base:
        scores = images.scores(base, None, work / "base" / "images.json")
        records.append({"variant": "base", "seed": 0, "scores": {"loss": 1.0, **scores}})
        shown["base"] = images.draw(base, None, SHOWN)
    for arm in train_arms(arms, common, work, validation, test, args.num_seeds, unit, kind=KIND):
        variants[arm.name] = arm.variant
        for seed, run in enumerate(arm.runs):
            scores = images.scores(base, arm.final(seed), arm.folder / f"seed-{seed}" / "images.json")
            scores = {"loss": run.loss("test") / unit["test"], **scores}
            records.append({"variant": arm.name, "seed": seed, "scores": scores, "seconds": run.seconds})
        shown[arm.name] = images.draw(base, arm.final(0), SHOWN)
    if args.subject == "hands":  # no picture of the faces, whose licence is not known
        write_rows(Path(args.results).with_suffix(".png"), shown.items(), cell=96)
    settings = {
        name: getattr(args, name)
        for name in ("subject", "max_train_steps", "batch_size", "num_samples", "sample_steps")
    }
    settings |= {"seeds": [*range(args.num_seeds)], "sweep_seed": SWEEP_SEED, "unet": UNETS[args.subject]}
    if base:
        settings |= {"base_steps": args.base_steps, "base_images": args.base_images}
    counts = {name: len(list(folder.glob("*.png"))) for name, folder in folders.items()}
    return write_results(args.results, KIND, records, settings, base_loss=unit, images=counts, variants=variants)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=list(ARMS), help="hands: adapt a model; faces: train from random weights")
    parser.add_argument("--photographs", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--output", required=True, help="folder of images and runs; what is there is used again")
    parser.add_argument("--results", required=True, help="JSON file to write; its page and picture lie beside it")
    parser.add_argument("--max-train-steps", type=int, help="steps of each run (hands: 80, faces: 400)")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step (%(default)s)")
    parser.add_argument("--base-steps", type=int, default=800, help="steps of the model that is adapted (%(default)s)")
    parser.add_argument("--base-images", type=int, default=3000, help="rendered hands it learns from (%(default)s)")
    parser.add_argument("--num-seeds", type=int, help="runs of each arm at its best rate (hands: 5, faces: 3)")
    parser.add_argument("--num-samples", type=int, default=128, help="images drawn of each run (%(default)s)")
    parser.add_argument("--sample-steps", type=int, default=10, help="DDIM steps of each image (%(default)s)")
    args = parser.parse_args()
    args.max_train_steps = args.max_train_steps or {"hands": 80, "faces": 400}[args.subject]
    args.num_seeds = args.num_seeds or {"hands": 5, "faces": 3}[args.subject]
    results = measure(args)
    write_text(Path(args.results).with_suffix(".md"), page(results, Path(args.results)))


if __name__ == "__main__":
    run_script(main)
