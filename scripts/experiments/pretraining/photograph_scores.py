"""How well autoencoders restore photographs, in dB.

    python -m scripts.experiments.pretraining.photograph_scores --vae hands64/vae RUN/vae/checkpoint-4500/vae \
        --photographs sign-language-digits/test.parquet --picture docs/images/second_autoencoder.jpg
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
from geopos_diffusers.finetuning.vae_scores import picture
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.metrics.bootstrap import bootstrap_means

from ..arms_page import estimate_cell
from ..photographs import read_photographs
from .autoencoder_loss import peak_signal_to_noise, reconstruct

SHOWN = 10  # photographs of a picture


def restore(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Images [N, 3, S, S] in [-1, 1] through the autoencoder."""
    vae.eval()
    return torch.cat([reconstruct(vae, part) for part in pixels.split(32)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", required=True, nargs="+", help="folders of AutoencoderKLs")
    parser.add_argument("--photographs", required=True, help="Parquet file with a column of images")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument("--picture", help=f"JPEG of {SHOWN} photographs, and below them what each folder makes of them")
    args = parser.parse_args(argv)
    rows = read_photographs(Path(args.photographs), ("image",))
    pixels = torch.stack([prepare_image(row["image"], args.size)[0] for row in rows])
    shown = pixels[:: max(1, len(pixels) // SHOWN)][:SHOWN]
    pictures = [*shown]
    for folder in args.vae:
        vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
        values = peak_signal_to_noise(pixels, restore(vae, pixels))
        (found,) = bootstrap_means(values[:, None].numpy(), seed=0)
        print(f"{folder}: {len(values)} photographs, {estimate_cell(found, '.2f')} dB")
        pictures += [*restore(vae, shown)]
    if args.picture:
        sheet = contact_sheet([picture(one) for one in pictures], columns=len(shown), cell=2 * args.size)
        sheet.save(args.picture, quality=90)


if __name__ == "__main__":
    sys.exit(main())
