"""The packaged text-to-image model, which knows rendered hands, learns photographs of hands: which part serves best?

    python -m scripts.experiments.text_to_image_photographs.run --photographs sign-language-digits \
        --output runs/text_to_image_photographs --results docs/results/text_to_image_photographs.json

Geometry weights, biases of the same layers, LoRA and the whole UNet, each at its own learning rate, by a sweep on
photographs of people who are in no other part and a seed of its own. Measured on the test people: the denoising loss,
and of images drawn from their captions the distance to the photographs and the share in which a hand is found. What is
finished is not made again.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_text
from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut, base_losses
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.images.opening import open_image
from geopos_diffusers.metrics.hand_detection import HandDetector
from geopos_diffusers.pipelines.generation import generate_images
from geopos_diffusers.pipelines.loading import load_pipeline, recommended_guidance
from geopos_diffusers.training.processes import run_script

from ..arm_pictures import write_rows
from ..arms import SWEEP_SEED, Arm, kept_scores, mean_losses, option_words, train_arms
from ..image_distances import ImageDistances
from ..results import write_results
from ..unconditional.data import export_hands
from .section import page

MODEL, SIZE = "hands64", 64
BASE = "base"
SHOWN = 8  # images of each arm in the picture
ARMS = {
    "geometry": Arm("--train geoconv", (3e-2, 1e-1, 3e-1)),
    "bias": Arm("--train bias", (3e-2, 1e-1, 3e-1)),
    # 18,304 weights beside 14,240 of geometry and 3,560 biases.
    "LoRA attention r=2": Arm("--train lora --lora_rank 2", (3e-3, 1e-2, 3e-2)),
    "whole UNet": Arm("--train full", (1e-4, 3e-4, 1e-3)),
}


class DrawnImages:
    """Images drawn from the test captions, and how near they are to the photographs of these.

    folder: of the photographs. count: images drawn. steps: of denoising.
    """

    def __init__(self, folder: Path, count: int, steps: int) -> None:
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
        self.captions = [rows[index * len(rows) // count]["text"] for index in range(count)]
        self.settings = {"count": count, "steps": steps}
        self.photographs = [open_image(folder / row["file_name"]) for row in rows]
        self.distances = ImageDistances(self.photographs)

    def scores(self, trained: Path | None, file: Path) -> dict[str, float]:
        """Kept in `file`."""
        return kept_scores(file, self.settings, lambda: self.measure(self.draw(trained)))

    def measure(self, images: Sequence[Image.Image]) -> dict[str, float]:
        distance, frechet = self.distances.measure(images)
        assert distance is not None
        with HandDetector() as detector:
            found = [bool(detector.detect(image)) for image in images]
        return {"kid": float(distance), "frechet": frechet, "hands_found": sum(found) / len(found)}

    def draw(self, trained: Path | None, count: int | None = None) -> list[Image.Image]:
        """Of the same noise for all models."""
        pipe = load_pipeline(MODEL)
        if trained is not None:
            load_trained_parts(pipe, trained, "unet")
        drawn = generate_images(
            pipe,
            self.captions[:count],
            steps=self.settings["steps"],
            guidance_scale=recommended_guidance(MODEL),
            batch_size=16,
        )
        return [one.image for one in drawn]


def common_options(args: argparse.Namespace, work: Path, train: Path) -> list[str]:
    options = {
        "model": MODEL,
        "dataset": train,
        "cache_latents": "true",
        "latents_folder": work / "latents",
        "random_flip": "false",  # cached latents are of images as they are
        "max_train_steps": args.max_train_steps,
        "train_batch_size": args.batch_size,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": args.max_train_steps // 15,
        "snr_gamma": 5,
        "use_ema": "true",
        "ema_decay": 0.99,
        "checkpointing_steps": args.max_train_steps,
    }
    return option_words(options)


def measure(args: argparse.Namespace) -> dict:
    work = Path(args.output)
    folders = export_hands(args.photographs, work, SIZE, ("text",))
    validation = {"validation": HeldOut(str(folders["validation"]), SIZE, SIZE)}
    test = {"test": HeldOut(str(folders["test"]), SIZE, SIZE)}
    base_loss = mean_losses(base_losses(MODEL, validation | test))
    drawn = DrawnImages(folders["test"], args.num_samples, args.sample_steps)
    photographs = {"hands_found": drawn.measure(drawn.photographs)["hands_found"]}
    records = [
        {"variant": "photographs", "seed": 0, "scores": photographs},
        {"variant": BASE, "seed": 0, "scores": {"loss": 1.0, **drawn.scores(None, work / "base.json")}},
    ]
    variants, shown = {}, {"photographs": drawn.photographs[:SHOWN], BASE: drawn.draw(None, SHOWN)}
    common = common_options(args, work, folders["train"])
    for arm in train_arms(ARMS, common, work, validation, test, args.num_seeds, base_loss):
        variants[arm.name] = arm.variant
        for seed, run in enumerate(arm.runs):
            scores = drawn.scores(arm.final(seed), arm.folder / f"seed-{seed}" / "images.json")
            scores = {"loss": run.loss("test") / base_loss["test"], **scores}
            records.append({"variant": arm.name, "seed": seed, "scores": scores, "seconds": run.seconds})
            print(f"{arm.name}, seed {seed}: {scores}", flush=True)
        shown[arm.name] = drawn.draw(arm.final(0), SHOWN)
    write_rows(Path(args.results).with_suffix(".png"), shown.items(), cell=96)
    settings = {name: getattr(args, name) for name in ("max_train_steps", "batch_size", "num_samples", "sample_steps")}
    settings |= {"model": MODEL, "seeds": [*range(args.num_seeds)], "sweep_seed": SWEEP_SEED}
    counts = {name: len([*folder.glob("*.png")]) for name, folder in folders.items()}
    return write_results(
        args.results,
        "text_to_image_photographs",
        records,
        settings,
        base_loss=base_loss,
        images=counts,
        variants=variants,
    )


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--output", required=True, help="folder of images and runs; what is there is used again")
    parser.add_argument("--results", required=True, help="JSON file to write; its page and picture lie beside it")
    parser.add_argument("--max-train-steps", type=int, default=200, help="steps of each run (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step (%(default)s)")
    parser.add_argument("--num-seeds", type=int, default=5, help="runs of each arm at its best rate (%(default)s)")
    parser.add_argument("--num-samples", type=int, default=128, help="images drawn of each run (%(default)s)")
    parser.add_argument("--sample-steps", type=int, default=15, help="denoising steps of each image (%(default)s)")
    args = parser.parse_args()
    results = measure(args)
    write_text(Path(args.results).with_suffix(".md"), page(results, Path(args.results)))


if __name__ == "__main__":
    run_script(main)
