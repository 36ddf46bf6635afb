"""Train DCGANs with plain, CoordConv and GeoConv layers and measure when they collapse (claim C3, questions Q1, N3).

    accelerate launch -m scripts.experiments.gan.run --config configs/experiments/gan.yaml --dataset DATA \
        --output RUNS --results docs/results/paper_gan_hands

One run a variant and seed, each in a folder of its own. Started again with the same options, finished runs are skipped
and a stopped one continues where its last checkpoint is, with the same figures as without the stop; --overwrite begins
anew. The results hold all finished runs of the variants and seeds that are asked for.
"""

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from geopos_diffusers.errors import DataError
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.metrics.features import load_mobilenet
from geopos_diffusers.metrics.mode_coverage import MINIMUM_REAL
from geopos_diffusers.metrics.ms_ssim import mean_pairwise_ms_ssim
from geopos_diffusers.metrics.sample_scores import ImageScores
from geopos_diffusers.training.arguments import parse_arguments
from geopos_diffusers.training.processes import end_run, run_script
from geopos_diffusers.training.tracking import build_accelerator, start_trackers

from .arguments import GanArguments
from .results import write_results
from .training import train_gan

SCORE_SEED = 0  # of bins, pairs and halves: the same ones in every run


def load_images(args: GanArguments, show_progress: bool) -> Tensor:
    """All training images [N, 3, S, S] in [-1, 1], decoded once.

    Raises:
        DataError: no such data, or too few images for the bins or for a batch.
    """
    data = load_image_text(args.train_data, args.size, limit=args.limit, show_progress=show_progress)
    images = torch.stack(
        [data[index]["pixels"] for index in tqdm(range(len(data)), "decoding", disable=not show_progress)]
    )
    needed = max(args.batch_size, MINIMUM_REAL * args.bins)
    if len(images) < needed:
        raise DataError(f"{args.train_data} has {len(images)} images; this batch size and these bins need {needed}")
    return images


def main() -> None:
    args = parse_arguments(GanArguments)
    accelerator = build_accelerator(args.output_dir, "no", 1, args.report_to)
    start_trackers(accelerator, "paper_gan", args.settings())
    # Collapsed networks have vanishing gradients, and numbers below 1e-38 take a CPU a hundred times as long.
    torch.set_flush_denormal(True)
    images = load_images(args, accelerator.is_main_process)
    network = load_mobilenet() if args.mobilenet_every else None
    scored = ImageScores(images, args.pairs, SCORE_SEED, network, args.bins)

    def scores(samples: Tensor, epoch: int) -> dict[str, float]:
        rare = args.mobilenet_every and (epoch % args.mobilenet_every == 0 or epoch == args.epochs)
        return scored(samples, mobilenet=bool(rare))

    if not args.results_only:
        for seed in args.seeds:
            for variant in args.variants:
                train_gan(args, accelerator, variant, seed, images, scores)
    if args.results is not None and accelerator.is_main_process:
        real = scored.of_halves(args.bins // 2)
        real["ms_ssim"] = mean_pairwise_ms_ssim(images, args.pairs, SCORE_SEED)
        for path in write_results(args, len(images), real, Path(args.results)):
            print(f"wrote {path}")
    end_run(accelerator)


if __name__ == "__main__":
    run_script(main)
