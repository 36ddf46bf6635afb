"""The programs that measure a pipeline: its loss with wrong words, and photographs through its autoencoder."""

import io
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from experiments.pretraining import photograph_scores, word_losses
from experiments.pretraining.arguments import PretrainingArguments
from experiments.pretraining.caption_tokenizer import train_caption_tokenizer
from experiments.pretraining.models import build_pipeline, build_text_encoder, build_unet, build_vae
from experiments.pretraining.run import tokenize
from experiments.pretraining.text_to_image_loss import TextToImageLoss, stratified_timesteps
from PIL import Image

from geopos_diffusers import load_pipeline

CAPTIONS = ["a left hand, palm view", "a right hand, a fist", "a right hand", "a smiling face"]
NAMED = {"handedness": 3, "number": 1, "view": 1}


def pictures(count: int, size: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (size, size, 3), np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The folder of a pipeline of random weights."""
    torch.manual_seed(0)
    args = PretrainingArguments(
        train_data="", output_dir="", resolution=32, vae_channels=[8, 8, 8], vae_latent_channels=4,
        vae_crop=16, unet_channels=[32, 32, 32], text_width=32, text_layers=1, text_length=12,
    )  # fmt: skip
    tokenizer = train_caption_tokenizer(CAPTIONS, 600, args.text_length)
    pipe = build_pipeline(build_vae(args), build_text_encoder(args, tokenizer), tokenizer, build_unet(args))
    folder = tmp_path_factory.mktemp("pipeline")
    pipe.save_pretrained(folder)
    return folder


def test_losses_of_images_have_the_training_loss_as_their_mean(pipeline):
    pipe = load_pipeline(pipeline)
    latents = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    found = word_losses.losses(pipe, latents, CAPTIONS, 3.0, seed=5)
    scheduler, generator = DDPMScheduler.from_config(pipe.scheduler.config), torch.Generator().manual_seed(5)
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = stratified_timesteps(4, scheduler.config.num_train_timesteps, generator, 3.0)
    loss = TextToImageLoss(pipe.unet, pipe.text_encoder, scheduler, None)
    with torch.no_grad():
        expected = loss(latents, noise, timesteps, tokenize(pipe.tokenizer, CAPTIONS))["loss"]
    torch.testing.assert_close(found.mean(), expected)


def test_wrong_words_are_those_that_captions_name(pipeline, tmp_path, capsys):
    rows = []
    for number, (image, text) in enumerate(zip(pictures(4, 32), CAPTIONS, strict=True)):
        image.save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    word_losses.main(["--model", str(pipeline), "--dataset", str(tmp_path), "--size", "32"])
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert {kind: int(lines[kind].split()[0]) for kind in NAMED} == NAMED
    assert lines["place"] == "named in no caption"
    assert all("+0.0000 [" not in lines[kind] for kind in NAMED)


def test_photographs_are_scored_and_shown(pipeline, tmp_path, capsys):
    images = pictures(4, 32)
    rows = []
    for image in images:
        file = io.BytesIO()
        image.save(file, format="PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "photographs.parquet")
    argv = ["--vae", str(pipeline / "vae"), "--photographs", str(tmp_path / "photographs.parquet"), "--size", "32"]
    photograph_scores.main([*argv, "--picture", str(tmp_path / "picture.jpg")])
    vae = AutoencoderKL.from_pretrained(pipeline / "vae").eval()
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1 for image in images])
    with torch.no_grad():
        restored = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    decibels = [-10 * np.log10(error) for error in ((restored - pixels) / 2).square().mean((1, 2, 3)).tolist()]
    assert f"4 photographs, {np.mean(decibels):.2f} [" in capsys.readouterr().out
    with Image.open(tmp_path / "picture.jpg") as picture:
        assert picture.width > 4 * 64 > picture.height > 2 * 64
