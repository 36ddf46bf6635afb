"""Inpainting UNets: masks, what the UNet is told of the rest, and whole runs."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tiny_models import tiny_inpainting, tiny_inpainting_xl, tiny_stable_diffusion

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.inpainting import Inpainting, as_image, masked_channels, random_masks
from geopos_diffusers.finetuning.supported_pipelines import check_supported
from geopos_diffusers.finetuning.trained_parts import load_trained_parts

BUILD = {"sd": tiny_inpainting, "xl": tiny_inpainting_xl}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpainting")
    for name, build in BUILD.items():
        build().save_pretrained(folder / name)
    return folder


@pytest.fixture
def masked_images(images, tmp_path):
    """The ten images with masks: white in the left half."""
    rows = [json.loads(line) for line in (images / "metadata.jsonl").read_text().splitlines()]
    mask = np.zeros((40, 48), dtype=np.uint8)
    mask[:, :24] = 255
    for row in rows:
        (tmp_path / row["file_name"]).write_bytes((images / row["file_name"]).read_bytes())
        Image.fromarray(mask).save(tmp_path / f"mask-{row['file_name']}")
        row["mask"] = f"mask-{row['file_name']}"
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


class TestMasks:
    def test_rectangles_and_strokes_in_equal_number(self):
        masks = random_masks(400, 24, 32, torch.Generator().manual_seed(0))[:, 0]
        assert masks.shape == (400, 24, 32)
        assert set(masks.unique().tolist()) == {0, 1}
        boxes = sum(self.is_rectangle(mask) for mask in masks) / 400
        assert 0.4 < boxes < 0.6
        assert 0.2 < masks.mean() < 0.45
        assert masks.flatten(1).any(1).all()

    def is_rectangle(self, mask: torch.Tensor) -> bool:
        rows, columns = mask.any(1), mask.any(0)
        return bool((mask == (rows[:, None] & columns[None])).all())

    def test_without_a_generator_they_are_the_trainings_random_numbers(self):
        torch.manual_seed(3)
        one = random_masks(2, 8, 8)
        state = torch.get_rng_state()
        random_masks(2, 8, 8, torch.Generator().manual_seed(0))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(3)
        assert torch.equal(random_masks(2, 8, 8), one)


def test_the_channels_are_those_of_the_pipeline():
    pipe = tiny_inpainting()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    masks = random_masks(2, 32, 32, torch.Generator().manual_seed(1))
    channels = masked_channels(pipe.vae, pixels, masks, sampled=False)
    rest = pixels * (masks < 0.5)
    with torch.no_grad():
        latents = pipe.vae.encode(rest).latent_dist.mode() * pipe.vae.config.scaling_factor
    small, _ = pipe.prepare_mask_latents(
        masks, rest, 2, 32, 32, torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0), False
    )
    torch.testing.assert_close(channels, torch.cat([small, latents], 1))


@pytest.mark.parametrize(("name", "more"), [("sd", {}), ("xl", {"train_text_encoder": True})])
def test_a_run(finetune, models, name, more):
    options = {"train": "geoconv+lora", "learning_rate": 1e-2, "max_train_steps": 3, **more}
    options |= {"validation_prompts": ["a hand", "a fist"], "validation_steps": 3, "validation_inference_steps": 1}
    folder, lines = finetune("run", model=models / name, **options)
    assert len(lines) == 3
    grid = Image.open(folder / "validation-000003.png")
    assert grid.width > 2 * 2 * 32
    pipe = DiffusionPipeline.from_pretrained(models / name)
    load_trained_parts(pipe, folder / "final")
    before = {key: value for key, value in pipe.unet.named_parameters() if "geo_weight" in key}
    assert before["conv_in.geo_weight"].any()


def test_a_resumed_run_is_the_undisturbed_one_and_its_held_out_loss_falls_by_fixed_masks(finetune, models, images):
    options = {"model": models / "sd", "train": "full", "learning_rate": 1e-3, "validation_dataset": images}
    options |= {"validation_loss_steps": 1}
    whole, expected = finetune("whole", max_train_steps=3, **options)
    finetune("cut", max_train_steps=2, **options)
    cut, lines = finetune("cut", max_train_steps=3, **options)
    assert lines == expected
    logs = [(folder / "validation_losses.jsonl").read_text() for folder in (whole, cut)]
    assert logs[0] == logs[1]
    values = [json.loads(line)["validation_loss"] for line in logs[0].splitlines()]
    assert values[-1] < values[0]


def test_masks_of_a_column_are_what_is_redrawn_and_do_not_weight_the_loss(finetune, models, masked_images):
    options = {"model": models / "sd", "dataset": masked_images, "mask_column": "mask", "max_train_steps": 1}
    options |= {"validation_prompts": ["a hand"], "validation_inference_steps": 1}
    folder, lines = finetune("column", inpaint_masks="column", **options)
    assert "mask_loss_share" not in lines[0]
    shown = np.asarray(Image.open(folder / "validation-000000.png").convert("RGB"))
    grey = (abs(shown.astype(int) - 128) <= 1).all(-1).sum() / (shown.shape[0] * shown.shape[1])
    assert 0.05 < grey < 0.5
    assert "mask_loss_share" in finetune("random", **options)[1][0]


@pytest.mark.parametrize("masks", ["random", "column"])
def test_items_of_several_sizes_are_drawn(masks):
    args = SimpleNamespace(seed=3, inpaint_masks=masks, cache_latents=False, evaluate_every=None, class_prompt=None)
    inpainting = Inpainting(tiny_inpainting(), args)
    pixels, masks = torch.zeros(3, 28, 36), torch.ones(1, 28, 36)
    items = [{"pixels": pixels, "mask": masks}, {"pixels": pixels.mT, "mask": masks.mT}]
    options = {"num_inference_steps": 1, "guidance_scale": 1.0}
    drawn = inpainting.draw(items, [{"prompt": "a hand"}] * 2, **options)
    assert [image.size for image in drawn] == [(72, 28), (56, 36)]
    alone = inpainting.draw(items[:1], [{"prompt": "a hand"}], **options)
    assert np.array_equal(np.asarray(drawn[0]), np.asarray(alone[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_latents": True}, "told the masked images too, so cache_latents cannot go with them"),
        ({"with_prior_preservation": True, "class_prompt": "a hand"}, "class_prompt draws images of prompts alone"),
    ],
)
def test_what_cannot_go_with_them(finetune, models, options, message):
    with pytest.raises(ConfigError, match=message):
        finetune("bad", model=models / "sd", **options)


def test_options_and_models_of_the_other_kind_are_refused(finetune):
    with pytest.raises(ConfigError, match="inpaint_masks is of inpainting models; the model is a StableDiffusionPipe"):
        finetune("bad", inpaint_masks="random")
    pipe = tiny_inpainting()
    check_supported(pipe)
    pipe.register_modules(unet=tiny_stable_diffusion().unet)
    with pytest.raises(ConfigError, match="its denoiser has 4 input channels instead of 9"):
        check_supported(pipe)


def test_pixels_become_images():
    assert as_image(torch.ones(1, 2, 3)).size == (3, 2)
    assert np.asarray(as_image(torch.full((3, 2, 2), 0.5))).tolist() == [[[128] * 3] * 2] * 2
