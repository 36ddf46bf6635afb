"""Whether words matter to a denoiser: its loss on held-out images with the right caption and with one word wrong.

    python -m scripts.experiments.pretraining.word_losses --model RUN/pipeline --dataset DATA

The images are the last of the data, which the training held out. Noise and timesteps are the same with both captions.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch import Tensor

from geopos_diffusers import load_pipeline
from geopos_diffusers.command_line import Parser
from geopos_diffusers.finetuning.diffusion_loss import prediction_target
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.metrics.bootstrap import bootstrap_means

from ..arms_page import estimate_cell
from .autoencoder_loss import encode_means
from .text_to_image_loss import stratified_timesteps
from .wrong_captions import WRONG, wrong_captions

BATCH = 32


@torch.no_grad()
def losses(pipe: StableDiffusionPipeline, latents: Tensor, captions: list[str], shift: float, seed: int) -> Tensor:
    """Mean squared error of the velocity [N] for scaled latents [N, C, h, w] and their captions."""
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    generator = torch.Generator().manual_seed(seed)
    limit, values = scheduler.config.num_train_timesteps, []
    for start in range(0, len(captions), BATCH):
        part = latents[start : start + BATCH]
        noise = torch.randn(part.shape, generator=generator)
        timesteps = stratified_timesteps(len(part), limit, generator, shift)
        text = pipe.encode_prompt(captions[start : start + BATCH], "cpu", 1, False)[0]
        noisy = scheduler.add_noise(part, noise, timesteps)
        error = pipe.unet(noisy, timesteps, text).sample - prediction_target(scheduler, part, noise, timesteps)
        values.append(error.square().flatten(1).mean(1))
    return torch.cat(values)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="pipeline")
    parser.add_argument("--dataset", required=True, help="image folder of the training")
    parser.add_argument("--images", type=int, default=640, help="how many of the last (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of noise (default: %(default)s)")
    args = parser.parse_args(argv)
    pipe = load_pipeline(args.model)
    data = load_image_text(args.dataset, args.size, show_progress=False)
    items = [data[index] for index in range(max(0, len(data) - args.images), len(data))]
    captions = [item["caption"] for item in items]
    pixels = torch.stack([item["pixels"] for item in items]).split(BATCH)
    latents = torch.cat([encode_means(pipe.vae, part) for part in pixels]) * pipe.vae.config.scaling_factor
    generator = np.random.default_rng(args.seed)
    wrong = [wrong_captions(caption, generator) for caption in captions]
    for kind in WRONG:
        named = [index for index, each in enumerate(wrong) if kind in each]
        if not named:
            print(f"{kind}: named in no caption")
            continue
        right = losses(pipe, latents[named], [captions[index] for index in named], 3.0, args.seed)
        worse = losses(pipe, latents[named], [wrong[index][kind] for index in named], 3.0, args.seed)
        (rise,) = bootstrap_means((worse - right)[:, None].numpy(), seed=0)
        print(
            f"{kind}: {len(named)} images, loss {right.mean():.4f}, with the wrong word {estimate_cell(rise, '+.4f')}"
        )


if __name__ == "__main__":
    sys.exit(main())
