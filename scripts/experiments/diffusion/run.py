"""The diffusion part of claim C6, and next check N2: GeoConv in denoisers that learn from random weights.

    python -m scripts.experiments.diffusion.run --config configs/experiments/diffusion_unet.yaml
    python -m scripts.experiments.diffusion.run --config configs/experiments/diffusion_transformer.yaml
    python -m scripts.experiments.diffusion.run --config configs/experiments/diffusion_transformer.yaml \
        --network transformer-without-positions \
        --output runs/paper/diffusion_unplaced --results docs/results/paper_own_rates_diffusion_unplaced.json

Denoisers of the latents of rendered hands, with plain convolutions, CoordConv and GeoConv in both bases, each at its
own best learning rate of a sweep by the validation loss. In a transformer the patch embedding is the only convolution.
Trained networks are scored by their error on test images and by what a judge of hands says of images that they draw.

Started again, it skips the runs that are finished and continues the one that is not; --overwrite begins anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.latents import mean_latents, scale_latents
from geopos_diffusers.finetuning.vae_scores import picture
from geopos_diffusers.metrics.features import SMALL_EXTRACTOR, load_mobilenet
from geopos_diffusers.metrics.hand_judge import HandJudge, load_hand_judge
from geopos_diffusers.metrics.measure_values import LIKELY
from geopos_diffusers.metrics.sample_scores import ImageScores
from geopos_diffusers.pipelines.loading import load_pipeline
from geopos_diffusers.training.arguments import option, parse_arguments, required
from geopos_diffusers.training.processes import end_run, run_script

from ..arm_pictures import write_rows
from ..baselines.kinds import KINDS
from ..comparison import ComparisonArguments, Task, begin, run_folder
from ..gan.training import write_sheet
from ..own_rates.comparison import run_at_own_rates
from ..rendered_hands import KNOWN_HANDS, render
from ..results import rounded
from .network import CHANNELS, NETWORKS, SIDE, TOGETHER, Denoiser, DiffusionTrial, held_out_error, noise_error
from .section import draws_hands

AUTOENCODER = "hands64-v2"
PIXELS = 64
PARTS = {"train": 21, "validation": 22, "test": 23}  # seeds of the rendered images
NOISE_SEED, SAMPLE_SEED, SCORE_SEED = 1, 2, 0
PAIRS = 200  # of samples, for the mean MS-SSIM
SHOWN = 16  # images of each variant in the picture
SAMPLES_FILE = "samples.png"


@dataclass(kw_only=True)
class DiffusionArguments(ComparisonArguments):
    """Options of this experiment. learning_rate is not read: each variant has its own."""

    network: str = required(f"one of {', '.join(NETWORKS)}", resume="free")
    widths: list[int] = option([24, 48, 72], "channels of the blocks", resume="free", at_least=1)
    samples: int = option(128, "images that each network draws, to be scored", resume="fixed", at_least=16)
    sample_steps: int = option(25, "denoising steps of each", resume="fixed", at_least=1)


class Hands:
    """Rendered hands as latents [N, 8, 16, 16], as a denoiser sees them, and the way back to images."""

    def __init__(self, args: DiffusionArguments) -> None:
        self.vae: AutoencoderKL = load_pipeline(AUTOENCODER).vae.eval()
        folders = {}
        for part, seed in PARTS.items():
            count = args.train_count if part == "train" else args.test_count
            folder = Path(args.output_dir) / "images" / f"{part}-{count}"
            folders[part] = render(folder, count, PIXELS, seed, [*KNOWN_HANDS, "--quiet"])
        images = {part: load_image_text(str(folder), PIXELS) for part, folder in folders.items()}
        self.pixels = {
            part: torch.stack([data[index]["pixels"] for index in range(len(data))]) for part, data in images.items()
        }
        self.latents = {part: self.encode(pixels) for part, pixels in self.pixels.items()}

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        return torch.cat([scale_latents(self.vae, mean_latents(self.vae, part)) for part in pixels.split(TOGETHER)])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images [N, 3, 64, 64] in [-1, 1]."""
        unscaled = latents / self.vae.config.scaling_factor
        return torch.cat([self.vae.decode(part).sample.clamp(-1, 1) for part in unscaled.split(TOGETHER)])


def sample_scores(images: Tensor, judge: HandJudge, scores: ImageScores) -> dict[str, float]:
    """Of images [N, 3, 64, 64] in [-1, 1]: what the judge says, and how near and diverse they are.

    found: share with a hand; well_formed: mean probability of it, 0 without a hand; kid: to the test images, in
    MobileNetV2's features; vendi: Vendi score in these features.
    """
    judged = judge.judge([picture(image) for image in images])
    present = [one.present > LIKELY for one in judged]
    found = {
        "found": sum(present) / len(present),
        "well_formed": sum(one.well_formed for one, there in zip(judged, present, strict=True) if there) / len(present),
    }
    beside = scores(images)
    return found | {name: beside[f"{SMALL_EXTRACTOR}_{name}"] for name in ("kid", "vendi")}


def build_task(args: DiffusionArguments, hands: Hands, score: Callable[[Tensor], dict[str, float]]) -> Task:
    """score: of images that a network drew."""
    noise = torch.randn(args.samples, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(SAMPLE_SEED))

    def scores(network: nn.Module, trial: DiffusionTrial) -> dict[str, float]:
        return {part: held_out_error(network, hands.latents[part], NOISE_SEED) for part in ("validation", "test")}

    def finish(network: Denoiser, trial: DiffusionTrial, folder: Path) -> dict[str, Any]:
        images = hands.decode(network.sample(noise, args.sample_steps))
        if trial.seed == 0:
            write_sheet(images[:SHOWN], folder / SAMPLES_FILE, SHOWN)
        return {"sample_scores": rounded(score(images))}

    return Task(
        build=lambda trial: Denoiser(trial.network, trial.widths),
        loss=noise_error,
        train_set=lambda data: (hands.latents["train"], hands.latents["train"]),
        scores=scores,
        finish=finish,
    )


def trials(args: DiffusionArguments, seed: int) -> Iterator[DiffusionTrial]:
    shared = {"data": "hands", "widths": tuple(args.widths), "seed": seed, "network": args.network}
    return (DiffusionTrial(kind=kind, **shared) for kind in KINDS)


def write_samples(records: list[dict[str, Any]], args: DiffusionArguments) -> None:
    """The first images of each variant's first seed, from the same noise, beside the results."""
    rows = []
    for trial in trials(args, 0):
        rate = next(record["learning_rate"] for record in records if record["variant"] == trial.variant)
        with Image.open(run_folder(replace(trial, learning_rate=rate), args) / SAMPLES_FILE) as strip:
            cells = [strip.crop((left, 0, left + PIXELS, PIXELS)) for left in range(0, strip.width, PIXELS)]
        rows.append((trial.variant, cells))
    write_rows(Path(args.results).with_suffix(".png"), rows, cell=PIXELS)


def main() -> None:
    args = parse_arguments(DiffusionArguments)
    accelerator = begin(args, "paper_diffusion")
    torch.set_flush_denormal(True)
    with accelerator.main_process_first():
        hands = Hands(args)
    beside = ImageScores(hands.pixels["test"], PAIRS, SCORE_SEED, load_mobilenet())
    score = partial(sample_scores, judge=load_hand_judge(), scores=beside)
    task = build_task(args, hands, score)
    head = {"autoencoder": AUTOENCODER, "real": score(hands.decode(hands.latents["validation"][: args.samples]))}
    records = run_at_own_rates("diffusion", partial(trials, args), task, args, accelerator, **head)
    if accelerator.is_main_process and len(records) == args.seeds * len(KINDS) and draws_hands(records):
        write_samples(records, args)
    end_run(accelerator)


if __name__ == "__main__":
    run_script(main)
