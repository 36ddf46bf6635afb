"""Stable Diffusion 3 and Sana: transformers that are trained by flow matching."""

import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_sana, tiny_stable_diffusion_3

from geopos_diffusers import geoconv_status
from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut
from geopos_diffusers.finetuning.text_conditions import CaptionEncoder, warn_of_long_captions
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.finetuning.trained_parts import add_trained_parts, load_trained_parts
from geopos_diffusers.pipelines.generation import generate_images

CPU = torch.device("cpu")
BUILD = {"sd3": tiny_stable_diffusion_3, "sana": tiny_sana}
SIZES = torch.zeros(2, 6)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformers")
    for name, build in BUILD.items():
        build().save_pretrained(folder / name)
    return folder


@torch.no_grad()
def predict(pipe) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    config = pipe.transformer.config
    latents = torch.randn(1, config.in_channels, 16, 16, generator=generator)
    conditions = CaptionEncoder(pipe, CPU)(["a hand"], SIZES[:1])
    return pipe.transformer.eval()(latents, timestep=torch.tensor([500.0]), **conditions).sample


@pytest.mark.parametrize("name", BUILD)
class TestTraining:
    @pytest.mark.parametrize("train", ["geoconv+lora", pytest.param("full", marks=pytest.mark.slow)])
    def test_what_is_saved_loads_into_the_base(self, finetune, models, name, train, caplog):
        options = {"train": train, "learning_rate": 1e-2} | ({"lora_alpha": 3} if "lora" in train else {})
        folder, lines = finetune(train, model=models / name, **options)
        assert [line["step"] for line in lines] == [1, 2]
        assert json.loads((folder / "summary.json").read_text())["transformer_parameters"] > 10_000
        pipe = DiffusionPipeline.from_pretrained(models / name)
        base = predict(pipe)
        load_trained_parts(pipe, folder / "final", "transformer")
        loaded = predict(pipe)
        assert (loaded - base).abs().max() > 1e-4

        trained = BUILD[name]()
        arguments = TextToImageArguments(dataset="d", output_dir="o", max_train_steps=1, **options)
        parameters = add_trained_parts(trained, "transformer", arguments)
        weights = load_file(folder / "checkpoint-2" / "training_state" / "weights.safetensors")
        for key, parameter in parameters.items():
            parameter.data.copy_(weights[key])
        torch.testing.assert_close(loaded, predict(trained), rtol=1e-5, atol=1e-6)
        if "geoconv" in train:
            assert len(geoconv_status(pipe).patched) == {"sd3": 1, "sana": 2}[name]
            few = "only pos_embed.proj of this SD3Transformer2DModel can be patched"
            assert (few in caplog.text) == (name == "sd3")

    def test_captions_encoded_once_give_the_same_losses_and_images(self, finetune, models, name):
        options = {
            "model": models / name,
            "train": "lora",
            "validation_prompts": ["a hand"],
            "validation_inference_steps": 2,
            "validation_guidance_scale": 3,
            "max_train_steps": 3,
        }
        folder, expected = finetune("each step", **options)
        cached, lines = finetune("once", cache_text_embeddings=True, cache_latents=True, **options)
        assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=1e-5)
        for grid in ("validation-000000.png", "validation-000003.png"):
            images = [np.asarray(Image.open(place / grid)).astype(int) for place in (folder, cached)]
            assert abs(images[0] - images[1]).max() <= 1


def test_a_resumed_run_is_the_undisturbed_one(finetune, models):
    options = {"model": models / "sana", "train": "geoconv+lora", "timestep_weighting": "mode"}
    options |= {"cache_text_embeddings": True, "cache_latents": True}
    whole, expected = finetune("whole", max_train_steps=3, **options)
    finetune("cut", max_train_steps=2, **options)
    cut, lines = finetune("cut", max_train_steps=3, **options)
    assert lines == expected
    states = [load_file(folder / "checkpoint-3/training_state/weights.safetensors") for folder in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_training_lowers_the_loss(finetune, models):
    options = {"train": "full", "learning_rate": 3e-3, "max_train_steps": 30, "train_batch_size": 4}
    _, lines = finetune("learns", model=models / "sana", cache_text_embeddings=True, cache_latents=True, **options)
    losses = [line["loss"] for line in lines]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_a_sweep_measures_what_was_saved(finetune, models, images):
    """On the training's own images, where training helps."""
    options = {"train": "full", "learning_rate": 3e-3, "max_train_steps": 10, "train_batch_size": 4}
    folder, _ = finetune("measured", model=models / "sana", cache_latents=True, cache_text_embeddings=True, **options)
    held_out = HeldOut(str(images), 32, 32)
    before, after = (held_out.losses(str(models / "sana"), trained) for trained in (None, folder / "final"))
    assert len(before) == 10
    assert np.mean(after) < 0.95 * np.mean(before)


class TestCaptions:
    @pytest.mark.parametrize("build", [tiny_stable_diffusion_3, tiny_sana])
    def test_are_encoded_as_the_pipeline_draws_them(self, build):
        """The images of texts and of their encodings are the same, guidance included."""
        pipe, options = build(), {"steps": 2, "guidance_scale": 3.0, "height": 32, "width": 32}
        encoder = CaptionEncoder(pipe, CPU)
        prompts = ["a hand", "a fist"]
        texts = [*generate_images(pipe, prompts, call_arguments=encoder.call_arguments, **options)]
        encoder.keep(prompts)
        assert pipe.text_encoder is None
        kept = [*generate_images(pipe, prompts, call_arguments=encoder.call_arguments, **options)]
        for text, encoded in zip(texts, kept, strict=True):
            assert np.array_equal(np.asarray(text.image), np.asarray(encoded.image))

    def test_sana_is_told_the_mask_and_reads_the_empty_caption_without_the_instruction(self):
        pipe = tiny_sana()
        encoder = CaptionEncoder(pipe, CPU)
        conditions = encoder(["a hand", "a longer caption"], SIZES)
        assert conditions["encoder_hidden_states"].shape == (2, 300, 16)
        assert conditions["encoder_attention_mask"].shape == (2, 300)
        assert encoder.empty[1].sum() == 1  # <bos>
        assert torch.isfinite(encoder.empty[0][:, :1]).all()
        assert warn_of_long_captions(pipe, ["a hand", "hands" * 80]) == 1

    def test_sd3_reads_as_much_as_its_longest_encoder(self):
        pipe = tiny_stable_diffusion_3()
        captions = ["a" * 100, "a" * 300]
        assert warn_of_long_captions(pipe, captions) == 1
        assert warn_of_long_captions(tiny_stable_diffusion_3(with_t5=False), captions) == 2
        conditions = CaptionEncoder(pipe, CPU)(captions, SIZES)
        assert conditions["encoder_hidden_states"].shape == (2, 77 + 256, 64)
        assert conditions["pooled_projections"].shape == (2, 32)

    def test_sd3_without_t5(self, finetune, tmp_path):
        tiny_stable_diffusion_3(with_t5=False).save_pretrained(tmp_path / "two")
        assert len(finetune("two encoders", model=tmp_path / "two", train="lora")[1]) == 2
