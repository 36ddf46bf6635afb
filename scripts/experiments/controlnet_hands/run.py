"""ControlNets that draw hands with given joints: how far the joints of what is drawn lie from where they should.

    python -m scripts.experiments.controlnet_hands.run whole --photographs sign-language-digits \
        --output runs/controlnet_hands --results docs/results/controlnet_hands.json
    python -m scripts.experiments.controlnet_hands.run adapters --photographs sign-language-digits \
        --output runs/controlnet_hands --results docs/results/controlnet_adapters.json

whole: new ControlNets of the packaged model learn pictures of skeletons, as a whole, without and with geometry layers.
adapters: geometry weights, biases or LoRA beside the first of these learn pictures of depth in their place. Each arm
has its own learning rate, by a sweep on validation images with a seed of its own. Measured are the denoising loss of
test hands, and the joint error of what is drawn under the skeletons of rendered hands and of photographs. What is
finished is not made again.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.files import write_text
from geopos_diffusers.finetuning.controlnet import as_image, conditioned_losses
from geopos_diffusers.finetuning.controlnet_models import add_controlnet, draw_conditioned
from geopos_diffusers.finetuning.image_text_data import ImageTextData, load_image_text
from geopos_diffusers.finetuning.joint_scores import JointScorer, summarise
from geopos_diffusers.finetuning.learning_rate_sweep import base_losses
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.images.opening import open_image
from geopos_diffusers.pipelines.loading import load_pipeline, recommended_guidance
from geopos_diffusers.training.processes import run_script

from ..arm_pictures import write_rows
from ..arms import SWEEP_SEED, Arm, kept_scores, mean_losses, option_words, train_arms
from ..results import write_results
from .data import export_photographs, render_conditioned
from .section import page

KIND, MODEL, SIZE = "controlnet", "hands64", 64
SHOWN = 6  # images of each arm in the picture


ARMS = {
    "whole": {
        "whole": Arm("--train full", (1e-4, 3e-4, 1e-3)),
        "whole + geometry": Arm("--train full+geoconv", (1e-3, 1e-2, 1e-1), "geoconv_learning_rate", "whole"),
    },
    "adapters": {
        "geometry": Arm("--train geoconv", (3e-2, 1e-1, 3e-1)),
        "bias": Arm("--train bias", (3e-2, 1e-1, 3e-1)),
        "LoRA attention r=4": Arm("--train lora --lora_rank 4", (3e-3, 1e-2, 3e-2)),
    },
}
CONDITION = {"whole": "skeleton", "adapters": "depth"}


def columns(condition: str) -> Columns:
    return Columns(conditioning=f"{condition}_file_name", keypoints="keypoints")


@dataclass(frozen=True)
class ConditionedSet:
    """Denoising losses of held-out images of a folder; an image set of the learning-rate sweep.

    controlnet: what adapters lie beside; None for a new one.
    """

    folder: str
    condition: str
    controlnet: str | None
    seed: int = 0

    def losses(self, model: str, trained: Path | None) -> list[float]:
        data = load_image_text(self.folder, SIZE, columns=columns(self.condition), show_progress=False)
        base, pipe = load_trained(self.controlnet, trained)
        return conditioned_losses(base, pipe.controlnet, data, self.seed).tolist()


def load_trained(controlnet: str | None, trained: Path | None) -> tuple[Any, Any]:
    """The packaged pipeline, and the same with the ControlNet of a run in eval mode."""
    base = load_pipeline(MODEL)
    pipe = add_controlnet(base, controlnet)
    if trained is not None:
        load_trained_parts(pipe, trained, "controlnet")
    pipe.controlnet.eval()
    return base, pipe


@dataclass
class Drawings:
    """Draws under the conditions of some folders and measures joints.

    folders: by name, each with the pictures that are its conditions.
    """

    folders: dict[str, tuple[Path, str]]
    steps: int
    controlnet: str | None
    _scorer: JointScorer = field(default_factory=JointScorer, init=False)

    def scores(self, trained: Path | None, file: Path) -> dict[str, float]:
        """Joint errors by folder and name; kept in `file`."""
        return kept_scores(file, {"steps": self.steps}, lambda: self.measure(trained))

    def measure(self, trained: Path | None) -> dict[str, float]:
        scores = {}
        for name, (folder, condition) in self.folders.items():
            data = load_image_text(str(folder), SIZE, columns=columns(condition), show_progress=False)
            images = self.draw(trained, data)
            scores |= {f"{name} {key}": value for key, value in self.errors(images, data).items()}
        return scores

    def close(self) -> None:
        self._scorer.close()

    def originals(self) -> dict[str, float]:
        """Those of the images themselves: the detector's own error."""
        scores = {}
        for name, (folder, condition) in self.folders.items():
            data = load_image_text(str(folder), SIZE, columns=columns(condition), show_progress=False)
            images = [open_image(data.records[row].image) for row in data.kept]
            scores |= {f"{name} {key}": value for key, value in self.errors(images, data).items()}
        return scores

    def errors(self, images: Sequence[Image.Image], data: ImageTextData) -> dict[str, float]:
        points = [data.keypoints(index, data[index]["sizes"]) for index in range(len(images))]
        return summarise(self._scorer.errors(images, points))

    def draw(self, trained: Path | None, data: ImageTextData, count: int | None = None) -> list[Image.Image]:
        _, pipe = load_trained(self.controlnet, trained)
        indices = range(len(data) if count is None else min(count, len(data)))
        conditions = [as_image(data.conditioning(index, data[index]["sizes"])) for index in indices]
        captions = [data.captions[index] for index in indices]
        return draw_conditioned(pipe, captions, conditions, 0, self.steps, recommended_guidance(MODEL) or 1.0)


def common_options(args: argparse.Namespace, work: Path, controlnet: str | None) -> list[str]:
    steps = args.max_train_steps
    options = {
        "dataset": work / "train",
        "conditioning_column": f"{CONDITION[args.stage]}_file_name",
        "max_train_steps": steps,
        "train_batch_size": args.batch_size,
        "lr_scheduler": "warmup_stable_decay",  # a new ControlNet needs its rate for long
        "lr_warmup_steps": steps // 25,
        "caption_dropout": 0.5,
        "use_ema": "true",
        "ema_decay": 0.99,
        "cache_latents": "true",
        "latents_folder": work / "latents",
        "validation_grid": 0,
        "checkpointing_steps": max(1, steps // 4),
        "checkpoints_total_limit": 1,
        **({} if controlnet is None else {"controlnet": controlnet}),
    }
    return option_words(options)


def measure(args: argparse.Namespace) -> dict:
    work, condition = Path(args.output), CONDITION[args.stage]
    render_conditioned(work / "train", args.train_images, SIZE, args.seed)
    render_conditioned(work / "validation", args.test_images // 2, SIZE, args.seed + 1)
    test = render_conditioned(work / "test", args.test_images, SIZE, args.seed + 2)
    photographs = export_photographs(args.photographs / "test.parquet", work / "photographs", args.test_images, SIZE)
    controlnet = None
    if args.stage == "adapters":
        controlnet = str(work / "whole" / "seed-0" / "final" / "controlnet")
    shown = {"rendered": (test, condition)} | ({"photographs": (photographs, condition)} if not controlnet else {})
    drawings = Drawings(shown, args.sample_steps, controlnet)
    validation = {"validation": ConditionedSet(str(work / "validation"), condition, controlnet)}
    tests = {"test": ConditionedSet(str(test), condition, controlnet)}
    base_loss = mean_losses(base_losses(MODEL, validation | tests))
    records = [
        {"variant": "the images themselves", "seed": 0, "scores": drawings.originals()},
        {
            "variant": "untrained",
            "seed": 0,
            "scores": {"loss": 1.0, **drawings.scores(None, work / f"untrained-{args.stage}.json")},
        },
    ]
    variants: dict[str, Any] = {}
    finals: dict[str, Path] = {}
    common = common_options(args, work, controlnet)
    chosen = {name: ARMS[args.stage][name] for name in args.arms or ARMS[args.stage]}
    for arm in train_arms(chosen, common, work, validation, tests, args.num_seeds, base_loss, kind=KIND):
        variants[arm.name], finals[arm.name] = arm.variant, arm.final(0)
        for seed, run in enumerate(arm.runs):
            scores = drawings.scores(arm.final(seed), arm.folder / f"seed-{seed}" / "joints.json")
            scores = {"loss": run.loss("test") / base_loss["test"], **scores}
            records.append({"variant": arm.name, "seed": seed, "scores": scores, "seconds": run.seconds})
            print(f"{arm.name}, seed {seed}: {scores}", flush=True)
    draw_picture(drawings, finals, args.results)
    drawings.close()
    settings = {
        name: getattr(args, name) for name in ("stage", "max_train_steps", "batch_size", "train_images", "seed")
    }
    settings |= {"test_images": args.test_images, "sample_steps": args.sample_steps, "condition": condition}
    settings |= {"model": MODEL, "seeds": [*range(args.num_seeds)], "sweep_seed": SWEEP_SEED}
    settings["photographs"] = len([*photographs.glob("*.png")])
    return write_results(args.results, "controlnet_hands", records, settings, base_loss=base_loss, variants=variants)


def draw_picture(drawings: Drawings, trained: dict[str, Path], results: str) -> None:
    """A row of conditions, of what an untrained ControlNet draws, and of what each arm draws, for each folder."""
    rows: list[tuple[str, list[Image.Image]]] = []
    for name, (folder, condition) in drawings.folders.items():
        data = load_image_text(str(folder), SIZE, columns=columns(condition), show_progress=False)
        conditions = [as_image(data.conditioning(i, data[i]["sizes"])) for i in range(SHOWN)]
        rows += [(f"{condition}, {name}", conditions), ("untrained", drawings.draw(None, data, SHOWN))]
        rows += [(arm, drawings.draw(place, data, SHOWN)) for arm, place in trained.items()]
    write_rows(Path(results).with_suffix(".png"), rows, cell=128)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(ARMS), help="whole: new ControlNets; adapters: beside one of these")
    parser.add_argument(
        "--photographs", type=Path, required=True, help="folder with test.parquet, photographs of hands"
    )
    parser.add_argument("--output", required=True, help="folder of images and runs; what is there is used again")
    parser.add_argument("--results", required=True, help="JSON file to write; its page and picture lie beside it")
    parser.add_argument("--max-train-steps", type=int, help="steps of each run (whole: 1000, adapters: 200)")
    parser.add_argument("--batch-size", type=int, default=8, help="images a step (%(default)s)")
    parser.add_argument("--num-seeds", type=int, default=3, help="runs of each arm at its best rate (%(default)s)")
    parser.add_argument("--train-images", type=int, default=1500, help="rendered hands (%(default)s)")
    parser.add_argument("--test-images", type=int, default=96, help="images of each test set (%(default)s)")
    parser.add_argument("--sample-steps", type=int, default=12, help="denoising steps of each image (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the images (%(default)s)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="some of the stage's arms (all)")
    args = parser.parse_args()
    if unknown := set(args.arms or ()) - ARMS[args.stage].keys():
        raise ConfigError(f"{args.stage} has no arm {min(unknown)!r}; it has {', '.join(ARMS[args.stage])}")
    args.max_train_steps = args.max_train_steps or {"whole": 1000, "adapters": 200}[args.stage]
    results = measure(args)
    write_text(Path(args.results).with_suffix(".md"), page(results, Path(args.results)))


if __name__ == "__main__":
    run_script(main)
