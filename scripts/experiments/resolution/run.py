"""Adapters trained at one size, used at others: the denoising loss with the adapter as a ratio to the base model's.

    python -m scripts.experiments.resolution.run --output runs/trained_parts --parts docs/results/trained_parts.json \
        --results docs/results/resolution.json

Runs after the experiment trained_parts, in its folder and with its learning rates: takes the adapters of its seed 0 in
the multilinear basis, in taps, and of biases, and trains the multilinear basis with two other normalizations of the
coordinates. All are measured on new hands at several sizes and aspect ratios, with the same noise and timesteps for
base and adapters. Writes a JSON file and a plot beside it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import atomic_path
from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut, base_losses, run_all
from geopos_diffusers.metrics.bootstrap import bootstrap_interval
from geopos_diffusers.training.processes import run_script

from ..rendered_hands import render
from ..results import read_results, select, write_results
from ..trained_parts.run import ARMS as PARTS
from ..trained_parts.run import WORKERS, common_options

TRAINED_SIZE, SEED = 64, 0
SHARED = ("steps", "train_images", "model")  # settings of trained_parts that hold here too
SIZES = ((64, 64), (48, 48), (96, 96), (128, 128), (96, 64), (64, 96))  # height, width; sides in steps of 16
# Arms of trained_parts that are taken from it, and further options of what is trained here. Normalization
# pixel, whose coordinates are smaller, has the rate of unit.
ARMS = {
    "unit": ("geometry", ""),
    "aspect": ("geometry", "--normalization aspect"),
    "pixel": ("geometry", "--normalization pixel"),
    "taps": ("taps", ""),
    "bias": ("bias", ""),
}


def loss_ratio(pairs: np.ndarray) -> float:
    """Mean of the first column of [N, 2] over the mean of the second."""
    return float(pairs[:, 0].mean() / pairs[:, 1].mean())


def measure(args: argparse.Namespace) -> dict:
    work = Path(args.output)
    parts = read_results(args.parts, "trained_parts")
    settings, variants = parts["settings"], parts["variants"]
    args.max_train_steps, args.model = settings["steps"], settings["model"]
    held_out = {}
    for height, width in SIZES:
        folder = work / f"test-{max(height, width)}"
        render(folder, settings["test_images"] // 2, max(height, width), settings["data_seed"] + 1, WORKERS)
        held_out[f"{height}" if height == width else f"{height}x{width}"] = HeldOut(str(folder), height, width)
    jobs = []
    for name, (part, further) in ARMS.items():
        options = [*common_options(args, work), *PARTS[part].options.split(), *further.split()]
        options += [f"--{PARTS[part].swept}", f"{variants[part]['best_rate']:g}", "--seed", str(SEED)]
        jobs.append((options, work / "resolution" / name if further else work / part / f"seed-{SEED}"))
    finished = dict(zip(ARMS, run_all(jobs, held_out, args.jobs), strict=True))
    base = base_losses(args.model, held_out)
    runs = []
    for name, run in finished.items():
        for size, images in held_out.items():
            pairs = np.stack([run.losses[size], base[size]], axis=1)
            runs.append(
                {"variant": name, "seed": SEED, "height": images.height, "width": images.width,
                 "images": len(pairs), "base_loss": float(np.mean(base[size])),
                 "ratio": vars(bootstrap_interval(loss_ratio, pairs, seed=SEED))}
            )  # fmt: skip
    return write_results(
        args.results,
        "resolution",
        runs,
        {"trained_size": TRAINED_SIZE, "seed": SEED, **{name: settings[name] for name in SHARED}},
        variants={
            name: {
                "options": " ".join(filter(None, (PARTS[part].options, further))),
                "rate": variants[part]["best_rate"],
            }
            for name, (part, further) in ARMS.items()
        },
    )


def by_size(result: dict) -> dict[tuple[int, int], list[dict]]:
    """The runs of all arms, in their order, by height and width."""
    sizes = dict.fromkeys((run["height"], run["width"]) for run in result["runs"])
    return {(height, width): select(result["runs"], height=height, width=width) for height, width in sizes}


def print_table(result: dict) -> None:
    print(f"| height x width | base loss | {' | '.join(ARMS)} |\n|{'---|' * (2 + len(ARMS))}")
    for (height, width), runs in by_size(result).items():
        ratios = [run["ratio"] for run in runs]
        cells = [f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]" for ratio in ratios]
        print(f"| {height} x {width} | {runs[0]['base_loss']:.4f} | {' | '.join(cells)} |")


def draw_plot(result: dict, target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.add_subplot()
    sizes = list(by_size(result))
    positions = np.arange(len(sizes))
    for offset, name in zip(np.linspace(-0.3, 0.3, len(ARMS)), ARMS, strict=True):
        ratios = [run["ratio"] for run in select(result["runs"], variant=name)]
        values = np.array([[r["value"], r["value"] - r["low"], r["high"] - r["value"]] for r in ratios])
        axes.errorbar(positions + offset, values[:, 0], values[:, 1:].T, fmt="o", capsize=3, label=name)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(positions, [f"{height}x{width}" for height, width in sizes])
    axes.set(xlabel="height x width in pixels", ylabel="loss, ratio to the base model")
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, aliases=["--work"], help="folder of the experiment trained_parts")
    parser.add_argument("--parts", required=True, help="JSON file that trained_parts wrote")
    parser.add_argument(
        "--jobs", type=int, default=2, aliases=["--workers"], help="runs at a time (default: %(default)s)"
    )
    parser.add_argument("--results", required=True, help="JSON file to write; the plot gets its name, with .png")
    args = parser.parse_args()
    result = measure(args)
    print_table(result)
    draw_plot(result, Path(args.results).with_suffix(".png"))


if __name__ == "__main__":
    sys.exit(run_script(main))
