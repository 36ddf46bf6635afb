import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.reconstruction import reconstruction_psnr, warn_of_lost_detail
from geopos_diffusers.pipelines.generation import generate_images
from geopos_diffusers.pipelines.loading import load_pipeline

CPU = torch.device("cpu")


def save_images(folder, images: list[np.ndarray]):
    lines = []
    for index, pixels in enumerate(images):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a hand"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


class Darker(nn.Module):
    """An autoencoder of one's own that makes every image darker by 10 of 255 levels, and counts them."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def encode(self, pixels):
        self.seen.append(pixels)
        return type("Encoded", (), {"latent_dist": type("Latents", (), {"mode": lambda _: pixels - 20 / 255})()})

    def decode(self, latents):
        return type("Decoded", (), {"sample": latents})


def test_by_hand_and_of_images_from_all_of_the_data(tmp_path):
    data = load_image_text(str(save_images(tmp_path, [np.full((8, 8, 3), 100 + i) for i in range(32)])), 8)
    vae = Darker()
    assert reconstruction_psnr(data, vae, CPU) == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    levels = [round((pixels[0, 0, 0, 0].item() + 1) * 127.5) for pixels in vae.seen]
    assert levels == list(range(100, 132, 2))


def test_the_packaged_autoencoder_holds_hands_and_no_noise(tmp_path, caplog):
    pipe = load_pipeline("hands64")
    prompts = ["a photo of the palm of a left hand, an open hand, light skin, on a blue background"] * 2
    hands = [np.array(item.image) for item in generate_images(pipe, prompts, steps=10, guidance_scale=2.5)]
    (tmp_path / "hands").mkdir()
    (tmp_path / "noise").mkdir()
    save_images(tmp_path / "hands", hands)
    save_images(tmp_path / "noise", [np.random.default_rng(0).integers(0, 255, (64, 64, 3))])
    state = torch.get_rng_state()
    high, low = (
        reconstruction_psnr(load_image_text(str(tmp_path / name), 64), pipe.vae, CPU) for name in ("hands", "noise")
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert low < 20 < 30 < high
    warn_of_lost_detail(high)
    assert not caplog.records
    warn_of_lost_detail(low)
    assert f"the autoencoder loses detail of these images: it reconstructs them at {low:.1f} dB" in caplog.text
