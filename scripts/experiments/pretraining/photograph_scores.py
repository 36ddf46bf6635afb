"""How well an autoencoder restores photographs, in dB.

    python -m scripts.experiments.pretraining.photograph_scores --vae hands64/vae \
        --photographs sign-language-digits/test.parquet
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from geopos_diffusers.command_line import Parser
from geopos_diffusers.finetuning.framing import prepare_image
from geopos_diffusers.metrics.bootstrap import bootstrap_means

from ..photographs import read_photographs
from .autoencoder_loss import peak_signal_to_noise, reconstruct


def score(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """PSNR in dB of each of the images [N, 3, S, S] in [-1, 1]."""
    vae.eval()
    return torch.cat([peak_signal_to_noise(part, reconstruct(vae, part)) for part in pixels.split(32)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", required=True, help="folder of an AutoencoderKL")
    parser.add_argument("--photographs", required=True, help="Parquet file with a column of images")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    args = parser.parse_args(argv)
    rows = read_photographs(Path(args.photographs), ("image",))
    pixels = torch.stack([prepare_image(row["image"], args.size)[0] for row in rows])
    values = score(AutoencoderKL.from_pretrained(args.vae, torch_dtype=torch.float32), pixels).numpy()
    (found,) = bootstrap_means(values[:, None], seed=0)
    print(f"{len(values)} photographs, {found.value:.2f} dB [{found.low:.2f}, {found.high:.2f}]")


if __name__ == "__main__":
    sys.exit(main())
