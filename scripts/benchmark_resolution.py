"""Adapters trained at one size, used at others: the denoising loss with the adapter as a ratio to the base model's.

    python scripts/benchmark_resolution.py --work runs/resolution --output docs/results/resolution.json

Renders hands at 64 pixels that differ from those of the packaged model (free poses, all views, gradient backgrounds),
trains one adapter for each normalization of the coordinates, and measures all of them on new hands at several sizes
and aspect ratios, with the same noise and timesteps for base and adapter. Writes a JSON file and a plot beside it.
"""

import argparse
import json
import sys
from datetime import date
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from tqdm import tqdm

from geopos_diffusers import load_geoconv_weights, load_pipeline, remove_geoconv
from geopos_diffusers.cli.main import main as geopos
from geopos_diffusers.config import NORMALIZATIONS
from geopos_diffusers.files import atomic_path, write_json
from geopos_diffusers.metrics.bootstrap import bootstrap_interval
from geopos_diffusers.pictures import open_picture
from geopos_diffusers.training.diffusion_loss import prediction_target
from geopos_diffusers.training.image_text_data import prepare_picture
from geopos_diffusers.training.text_conditions import CaptionEncoder

CONFIG = Path(__file__).parents[1] / "configs" / "finetune_hands.yaml"
TRAINED_SIZE = 64
SIZES = ((64, 64), (48, 48), (96, 96), (128, 128), (96, 64), (64, 96))  # height, width; sides in steps of 16


def run(*command: str) -> None:
    if (code := geopos([str(part) for part in command])) != 0:
        sys.exit(code)


def render(folder: Path, count: int, size: int, seed: int) -> None:
    if not (folder / "metadata.jsonl").is_file():
        run("data", "hands", "--count", count, "--size", size, "--seed", seed, "--workers", 2, "--output", folder)


def load_images(folder: Path, height: int, width: int) -> tuple[Tensor, list[str]]:
    """Pixels [N, 3, height, width] in [-1, 1], cut out of the middle of square images, and their captions."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    side = max(height, width)
    pixels = torch.stack([prepare_picture(open_picture(folder / row["file_name"]), side)[0] for row in rows])
    top, left = (side - height) // 2, (side - width) // 2
    return pixels[:, :, top : top + height, left : left + width], [row["text"] for row in rows]


@torch.no_grad()
def image_losses(pipe, pixels: Tensor, captions: list[str], seed: int, batch_size: int = 16) -> np.ndarray:
    """[N] mean squared error of the denoiser's prediction, each image at a timestep and noise of its own."""
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    encode = CaptionEncoder(pipe, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    limit, count, losses = scheduler.config.num_train_timesteps, len(captions), []
    all_timesteps = (torch.arange(count) * limit // count)[torch.randperm(count, generator=generator)]
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        latents = pipe.vae.encode(pixels[part]).latent_dist.mean * pipe.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = all_timesteps[part]
        conditions = encode(captions[part], torch.zeros(len(latents), 6))
        prediction = pipe.unet(scheduler.add_noise(latents, noise, timesteps), timesteps, **conditions).sample
        target = prediction_target(scheduler, latents, noise, timesteps)
        losses.append((prediction - target).square().flatten(1).mean(1))
    return torch.cat(losses).numpy()


def loss_ratio(pairs: np.ndarray) -> float:
    """Mean of the first column of [N, 2] over the mean of the second."""
    return float(pairs[:, 0].mean() / pairs[:, 1].mean())


def measure(args: argparse.Namespace) -> dict:
    work = Path(args.work)
    render(work / "train", args.train_images, TRAINED_SIZE, args.seed)
    for normalization in NORMALIZATIONS:
        if not (work / normalization / "final").is_dir():
            run(
                *("train", "--config", CONFIG, "--model", args.model, "--dataset", work / "train"),
                *("--output_dir", work / normalization, "--normalization", normalization, "--seed", args.seed),
                *("--max_train_steps", args.steps, "--overwrite", "true", "--validation_steps", args.steps + 1),
            )
    pipe = load_pipeline(args.model)
    rows = []
    for height, width in tqdm(SIZES, desc="sizes"):
        folder = work / f"test-{max(height, width)}"
        render(folder, args.test_images, max(height, width), args.seed + 1)
        pixels, captions = load_images(folder, height, width)
        base = image_losses(pipe, pixels, captions, args.seed)
        row = {"height": height, "width": width, "base_loss": float(base.mean()), "ratio": {}}
        for normalization in NORMALIZATIONS:
            load_geoconv_weights(pipe, work / normalization / "final")
            pipe.unet.eval()
            pairs = np.stack([image_losses(pipe, pixels, captions, args.seed), base], axis=1)
            row["ratio"][normalization] = vars(bootstrap_interval(loss_ratio, pairs, seed=args.seed))
            remove_geoconv(pipe)
        rows.append(row)
    return {
        "trained_size": TRAINED_SIZE,
        "steps": args.steps,
        "train_images": args.train_images,
        "test_images": args.test_images,
        "seed": args.seed,
        "model": args.model,
        "date": date.today().isoformat(),
        "sizes": rows,
    }


def print_table(result: dict) -> None:
    print(f"{'height x width':16}{'base loss':>10}" + "".join(f"{name:>28}" for name in NORMALIZATIONS))
    for row in result["sizes"]:
        ratios = (row["ratio"][name] for name in NORMALIZATIONS)
        cells = "".join(f"{r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}]".rjust(28) for r in ratios)
        print(f"{row['height']:>5} x {row['width']:<8}{row['base_loss']:>10.4f}{cells}")


def draw_plot(result: dict, target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    positions = np.arange(len(result["sizes"]))
    for offset, name in zip((-0.2, 0.0, 0.2), NORMALIZATIONS, strict=True):
        ratios = [row["ratio"][name] for row in result["sizes"]]
        values = np.array([[r["value"], r["value"] - r["low"], r["high"] - r["value"]] for r in ratios])
        axes.errorbar(positions + offset, values[:, 0], values[:, 1:].T, fmt="o", capsize=3, label=name)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(positions, [f"{row['height']}x{row['width']}" for row in result["sizes"]])
    axes.set(xlabel="height x width in pixels", ylabel="loss, ratio to the base model")
    figure.legend(title="normalization", loc="outside right upper", frameon=False)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hands64", help="pipeline to patch (default: %(default)s)")
    parser.add_argument("--work", required=True, help="folder for images and adapters; what is there is used again")
    parser.add_argument("--steps", type=int, default=300, help="fine-tuning steps an adapter (default: %(default)s)")
    parser.add_argument("--train-images", type=int, default=3000)
    parser.add_argument("--test-images", type=int, default=512)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", required=True, help="JSON file to write; the plot gets its name, with .png")
    args = parser.parse_args()
    result = measure(args)
    print_table(result)
    write_json(args.output, result)
    draw_plot(result, Path(args.output).with_suffix(".png"))


if __name__ == "__main__":
    main()
