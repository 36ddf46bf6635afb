"""What is worth training: geometry weights in two bases beside biases and LoRA, each at its own best learning rate.

    python -m scripts.experiments.trained_parts.run --output runs/trained_parts \
        --results docs/results/trained_parts.json

Renders hands in free poses, from all views, on gradients, which the packaged model does not know. For each arm a sweep
on validation images chooses the learning rate (a seed of its own); then the arm is trained with five other seeds and
measured on test images at several sizes, all arms with the same batches and noise. Writes JSON and a plot of the
sweeps beside it. What is finished is not made again.
"""

import argparse
from pathlib import Path

from geopos_diffusers.command_line import Parser
from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut, base_losses, draw_curves
from geopos_diffusers.training.arguments import read_yaml
from geopos_diffusers.training.processes import run_script

from .. import results
from ..arms import SWEEP_SEED, Arm, TrainedArm, mean_losses, option_words, train_arms
from ..rendered_hands import render

CONFIG = Path(__file__).parents[3] / "configs" / "finetune_hands.yaml"
SIZES = (64, 96, 128)
WORKERS = ["--num-workers", "2"]

CONVOLUTIONS = "conv_in conv1 conv2 conv conv_out"  # of the packaged model's UNet: all with 3x3 kernels
BESIDE_LORA = ("LoRA attention r=4", "lora_learning_rate")
ARMS = {
    "geometry": Arm("--train geoconv", (3e-2, 1e-1, 3e-1)),
    "geometry, no shift": Arm("--train geoconv --shift_range 0", (3e-2, 1e-1, 3e-1)),
    "bias": Arm("--train bias", (3e-2, 1e-1, 3e-1)),
    "taps": Arm("--train geoconv --basis taps", (1e-1, 3e-1, 1.0)),
    "CoordConv terms": Arm("--train geoconv --encoding cartesian --shift_range 0", (3e-2, 1e-1, 3e-1)),
    "CoordConv taps": Arm("--train geoconv --basis taps --encoding cartesian --shift_range 0", (3e-2, 1e-1, 3e-1)),
    "LoRA attention r=4": Arm("--train lora --lora_rank 4", (3e-3, 1e-2, 3e-2)),
    "LoRA attention r=2": Arm("--train lora --lora_rank 2", (3e-3, 1e-2, 3e-2)),
    "LoRA convolutions r=1": Arm(
        f"--train lora --lora_rank 1 --lora_target_modules {CONVOLUTIONS}", (3e-3, 1e-2, 3e-2)
    ),
    "LoRA attention r=4 + geometry": Arm(
        "--train lora+geoconv --lora_rank 4", (1e-2, 3e-2, 1e-1), "geoconv_learning_rate", *BESIDE_LORA
    ),
    "LoRA attention r=4 + bias": Arm(
        "--train lora+bias --lora_rank 4", (1e-1, 3e-1, 1.0), "bias_learning_rate", *BESIDE_LORA
    ),
}


def measure(args: argparse.Namespace) -> dict:
    work = Path(args.output)
    render(work / "train", args.train_images, 64, args.seed, WORKERS)
    render(work / "validation", args.test_images // 2, 64, args.seed + 2, WORKERS)
    for size in SIZES:
        count = args.test_images if size == 64 else args.test_images // 2
        render(work / f"test-{size}", count, size, args.seed + 1, WORKERS)
    validation = {"validation": HeldOut(str(work / "validation"), 64, 64)}
    tests = {f"{size}": HeldOut(str(work / f"test-{size}"), size, size) for size in SIZES}
    base = mean_losses(base_losses(args.model, validation | tests))
    chosen = {name: ARMS[name] for name in args.arms}
    trained = train_arms(
        chosen, common_options(args, work), work, validation, tests, args.num_seeds, base, jobs=args.jobs
    )
    return write_results(args, [*trained], base)


def common_options(args: argparse.Namespace, work: Path) -> list[str]:
    """The configuration for hands with this benchmark's data and steps, and without pictures of prompts."""
    values = {name: value for name, value in read_yaml(str(CONFIG)).items() if not name.startswith("validation_")}
    for name in ("train", "learning_rate", "geoconv_learning_rate"):
        values.pop(name, None)
    values |= {
        "model": args.model,
        "dataset": work / "train",
        "max_train_steps": args.max_train_steps,
        "latents_folder": work,
    }
    values["checkpointing_steps"] = args.max_train_steps
    return option_words(values)


def write_results(args: argparse.Namespace, trained: list[TrainedArm], base_loss: dict[str, float]) -> dict:
    """Write the results file; scores are ratios to the base model's losses."""
    records = [
        {
            "variant": arm.name,
            "seed": seed,
            "scores": {str(size): run.loss(str(size)) / base_loss[str(size)] for size in SIZES},
            "seconds": run.seconds,
        }
        for arm in trained
        for seed, run in enumerate(arm.runs)
    ]
    variants = {arm.name: arm.variant for arm in trained}
    settings = {"model": args.model, "steps": args.max_train_steps, "train_images": args.train_images}
    settings |= {"test_images": args.test_images, "seeds": list(range(args.num_seeds)), "sweep_seed": SWEEP_SEED}
    settings["data_seed"] = args.seed
    return results.write_results(
        args.results, "trained_parts", records, settings, base_loss=base_loss, variants=variants
    )


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", required=True, aliases=["--work"], help="folder for images and runs; what is there is used again"
    )
    parser.add_argument("--results", required=True, help="JSON file to write; the plot gets its name, with .png")
    parser.add_argument("--model", default="hands64", help="pipeline to fine-tune (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM")
    parser.add_argument(
        "--max-train-steps",
        type=int,
        default=300,
        aliases=["--steps"],
        help="fine-tuning steps a run (default: %(default)s)",
    )
    parser.add_argument(
        "--num-seeds",
        type=int,
        default=5,
        aliases=["--seeds"],
        help="runs an arm at its best rate (default: %(default)s)",
    )
    parser.add_argument(
        "--train-images", type=int, default=3000, help="images to render for training (default: %(default)s)"
    )
    parser.add_argument("--test-images", type=int, default=512, help="images of each test set (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the images (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=2, aliases=["--workers"], help="runs at a time (default: %(default)s)"
    )
    args = parser.parse_args()
    result = measure(args)
    curves = {
        name: {float(rate): value for rate, value in arm["sweep"].items()} for name, arm in result["variants"].items()
    }
    draw_curves(curves, Path(args.results).with_suffix(".png"))


if __name__ == "__main__":
    run_script(main)
