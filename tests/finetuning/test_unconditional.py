import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from two_processes import PARALLEL, SHARDED, check_continued

from geopos_diffusers import load_geoconv_weights
from geopos_diffusers.errors import ConfigError, DataError, GeoPosError
from geopos_diffusers.finetuning.denoising_loss import held_out_losses
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.finetuning.streaming import StreamedData
from geopos_diffusers.finetuning.trained_parts import load_trained_parts
from geopos_diffusers.finetuning.unconditional import main, pixel_losses
from geopos_diffusers.finetuning.unconditional_models import (
    draw_images,
    load_unconditional,
    new_unconditional,
    to_channels,
)

CONFIG = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
CLASSES = 3


def tiny_unet(**options) -> UNet2DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DModel(**{**CONFIG, **options}).eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A DDIMPipeline's folder."""
    folder = tmp_path_factory.mktemp("ddim")
    DDIMPipeline(tiny_unet(), DDPMScheduler(num_train_timesteps=200)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Eight grey 24x20 images of discs, whose radius grows with their class, and metadata without captions."""
    folder = tmp_path_factory.mktemp("discs")
    lines = []
    for index in range(8):
        y, x = np.mgrid[:20, :24]
        disc = np.hypot(x - 12, y - 10) < 3 + 3 * (index % CLASSES)
        Image.fromarray((disc * 200).astype(np.uint8)).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "label": index % CLASSES}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def train(model, images, tmp_path):
    """train("name", option=value, ...) -> the folder of the run and the lines of its losses.jsonl."""

    def run(name: str, **options) -> tuple[Path, list[dict]]:
        AcceleratorState._reset_state(reset_partial_state=True)
        options = {
            "model": model,
            "dataset": images,
            "output_dir": tmp_path / name,
            "report_to": "none",
            "train_batch_size": 2,
            "max_train_steps": 2,
            "validation_grid": 0,
            **options,
        }
        words = [
            word
            for key, value in options.items()
            if value is not None
            for word in (f"--{key}", *map(str, np.atleast_1d(value)))
        ]
        main(words)
        log = tmp_path / name / "losses.jsonl"
        return tmp_path / name, [json.loads(line) for line in log.read_text().splitlines()]

    return run


@torch.no_grad()
def predict(unet, labels=None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    size = (1, unet.config.in_channels, 16, 16)
    return unet.eval()(torch.randn(size, generator=generator), 50, labels).sample


class TestWhatIsTrained:
    @pytest.mark.parametrize("parts", ["geoconv", "bias", "lora", "lora+bias"])
    def test_adapters_load_into_the_base(self, train, model, parts):
        rank = {"lora_rank": 2} if "lora" in parts else {}
        folder, _ = train("run", train=parts, learning_rate=0.05, **rank)
        pipe = DDIMPipeline.from_pretrained(model)
        before = predict(pipe.unet)
        load_trained_parts(pipe, folder / "final")
        assert (predict(pipe.unet) - before).abs().max() > 1e-3
        again = DDIMPipeline.from_pretrained(model)
        load_trained_parts(again, folder / "checkpoint-2")
        assert torch.equal(predict(again.unet), predict(pipe.unet))

    def test_the_whole_model_is_saved_as_a_pipeline(self, train, model):
        folder, _ = train("run", train="full+geoconv", learning_rate=1e-2, prediction_type="v_prediction")
        pipe = DDPMPipeline.from_pretrained(folder / "final")
        assert pipe.scheduler.config.prediction_type == "v_prediction"
        assert pipe.scheduler.config.num_train_timesteps == 200
        assert json.loads((folder / "final" / "model_index.json").read_text())["_class_name"] == "DDIMPipeline"
        alone = predict(pipe.unet)
        load_geoconv_weights(pipe, folder / "final")
        base = predict(DDIMPipeline.from_pretrained(model).unet)
        assert (alone - base).abs().max() > 1e-3
        assert (predict(pipe.unet) - alone).abs().max() > 1e-3

    def test_a_new_model_of_a_configuration_learns(self, train, tmp_path):
        file = tmp_path / "unet.json"
        file.write_text(json.dumps({**CONFIG, "in_channels": 1, "out_channels": 1}))
        options = {"model": None, "model_config": file, "train": "full", "learning_rate": 3e-3, "use_ema": True}
        folder, lines = train(
            "new", **options, max_train_steps=40, train_batch_size=8, beta_schedule="squaredcos_cap_v2"
        )
        losses = [line["loss"] for line in lines]
        assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
        pipe = DDPMPipeline.from_pretrained(folder / "final")
        assert pipe.unet.config.in_channels == 1
        assert pipe.scheduler.config.beta_schedule == "squaredcos_cap_v2"
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["model"], summary["channels"]) == ("unet.json", 1)

    def test_the_weights_of_a_new_model_are_those_of_the_seed(self, tmp_path):
        file = tmp_path / "unet.json"
        file.write_text(json.dumps(CONFIG))
        torch.manual_seed(5)
        first = predict(new_unconditional(str(file)).unet)
        torch.manual_seed(5)
        assert torch.equal(predict(new_unconditional(str(file)).unet), first)

    def test_a_bare_model_becomes_a_pipeline(self, train, tmp_path):
        tiny_unet().save_pretrained(tmp_path / "bare")
        folder, _ = train("run", model=tmp_path / "bare", train="full", learning_rate=1e-3)
        assert isinstance(DDPMPipeline.from_pretrained(folder / "final").unet, UNet2DModel)

    def test_a_resumed_run_is_the_undisturbed_one(self, train):
        options = {"train": "geoconv+lora", "learning_rate": 1e-2, "use_ema": True, "random_flip": "true"}
        whole, expected = train("whole", **options, max_train_steps=4)
        train("parts", **options, max_train_steps=2)
        # Grids and held-out losses in between leave no trace.
        folder, lines = train("parts", **options, max_train_steps=4, validation_grid=2, validation_inference_steps=2)
        assert [line["loss"] for line in lines] == [line["loss"] for line in expected]
        for name in ("geoconv_weights.safetensors", "pytorch_lora_weights.safetensors"):
            first, second = (load_file(run / "final" / name) for run in (whole, folder))
            assert all(torch.equal(first[key], second[key]) for key in first | second)


class TestClasses:
    @pytest.fixture
    def classes(self, tmp_path) -> Path:
        folder = tmp_path / "classes"
        DDPMPipeline(tiny_unet(num_class_embeds=CLASSES + 1), DDPMScheduler()).save_pretrained(folder)
        return folder

    def test_classes_are_learnt_and_drawn_in_turn(self, train, classes):
        options = {"model": classes, "class_column": "label", "class_dropout": 0.2, "validation_guidance_scale": 2}
        folder, lines = train(
            "run", train="full", learning_rate=1e-3, validation_grid=5, validation_inference_steps=2, **options
        )
        assert all(math.isfinite(line["loss"]) for line in lines)
        assert sorted(path.name for path in folder.glob("validation-*.png")) == [
            "validation-000000.png",
            "validation-000002.png",
        ]
        before, after = DDPMPipeline.from_pretrained(classes).unet, DDPMPipeline.from_pretrained(folder / "final").unet
        changed = (before.class_embedding.weight - after.class_embedding.weight).abs().amax(1)
        assert changed[-1] >= 0
        assert changed.max() > 0
        assert json.loads((folder / "summary.json").read_text())["classes"] == CLASSES

    def test_guidance_leads_away_from_no_class(self, classes):
        pipe = load_unconditional(str(classes))
        plain, guided = (draw_images(pipe, 1, 16, 2, 0, [1], scale)[0] for scale in (1.0, 4.0))
        none = draw_images(pipe, 1, 16, 2, 0, [CLASSES])[0]
        first, second, third = (np.asarray(image, float) for image in (none, plain, guided))
        assert np.abs(third - first).mean() > np.abs(second - first).mean()

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({}, ConfigError, "4 classes; give class_column"),
            ({"class_column": "size"}, DataError, "no field 'size'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, train, classes, options, error, message):
        with pytest.raises(error, match=message):
            train("run", model=classes, **options)

    def test_too_few_classes_are_refused(self, train, tmp_path):
        DDPMPipeline(tiny_unet(num_class_embeds=CLASSES), DDPMScheduler()).save_pretrained(tmp_path / "few")
        train("all", model=tmp_path / "few", class_column="label", max_train_steps=1)
        with pytest.raises(DataError, match=r"label goes up to 2; the model has 3 classes, of which class_dropout"):
            train("none", model=tmp_path / "few", class_column="label", class_dropout=0.1)


class TestImages:
    def test_streams_need_no_captions(self, train, images, tmp_path):
        (tmp_path / "shards").mkdir()
        with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
            for file in sorted(images.glob("*.png")):
                tar.add(file, file.name)
        options = {"dataset": tmp_path / "shards", "streaming": True, "shuffle_buffer": 1}
        _, lines = train("stream", **options)
        assert len(lines) == 2
        assert all(math.isfinite(line["loss"]) for line in lines)
        items = list(StreamedData(str(tmp_path / "shards"), 16, Columns(caption=None)).sample(8))
        assert len(items) == 8
        assert {item["caption"] for item in items} == {""}

    def test_plain_folders_need_no_metadata(self, images, tmp_path):
        for index in range(3):
            (tmp_path / f"part-{index % 2}").mkdir(exist_ok=True)
            Image.new("L", (16, 16), 100 + index).save(tmp_path / f"part-{index % 2}" / f"{index}.png")
        data = load_image_text(str(tmp_path), 16, columns=Columns(caption=None))
        values = [round(float((data[index]["pixels"].mean() + 1) * 127.5)) for index in range(len(data))]
        assert values == [100, 102, 101]
        print_before = data.fingerprint()
        Image.new("L", (16, 16), 7).save(tmp_path / "part-0" / "0.png")
        assert load_image_text(str(tmp_path), 16, columns=Columns(caption=None)).fingerprint() != print_before

    def test_other_classes_are_other_data(self, images, tmp_path):
        prints = []
        for shift in (0, 1):
            folder = tmp_path / str(shift)
            folder.mkdir()
            Image.new("L", (16, 16)).save(folder / "0.png")
            (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "label": shift}))
            prints.append(load_image_text(str(folder), 16, columns=Columns(caption=None, label="label")).fingerprint())
        assert prints[0] != prints[1]

    def test_luma_of_grey_is_grey(self):
        grey = torch.rand(2, 1, 4, 4) * 2 - 1
        torch.testing.assert_close(to_channels(grey.expand(2, 3, 4, 4), 1), grey)
        colour = torch.rand(2, 3, 4, 4)
        assert to_channels(colour, 3) is colour

    def test_an_image_does_not_depend_on_how_many_are_drawn(self, model):
        pipe = load_unconditional(str(model))
        pipe.unet.eval()
        five = draw_images(pipe, 5, 16, 3, seed=4, batch_size=2)
        one = draw_images(pipe, 1, 16, 3, seed=4)
        assert np.abs(np.asarray(five[0], int) - np.asarray(one[0], int)).max() <= 1
        assert not np.array_equal(np.asarray(five[0]), np.asarray(five[1]))


class TestHeldOutLosses:
    def test_a_perfect_model_has_none_and_the_noise_is_fixed(self):
        scheduler, clean = DDPMScheduler(), torch.rand(10, 1, 4, 4)
        seen = []

        def perfect(part, noisy, timesteps):
            seen.append(timesteps)
            alphas = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
            return (noisy - alphas.sqrt() * clean[part]) / (1 - alphas).sqrt()

        assert held_out_losses(scheduler, 10, lambda part: clean[part], perfect, 0, 4).max() < 1e-4
        assert sorted(torch.cat(seen).tolist()) == [100 * index for index in range(10)]

        def guess(part, noisy, timesteps):
            return torch.zeros_like(noisy)

        before = torch.get_rng_state()
        first, second = (held_out_losses(scheduler, 10, lambda part: clean[part], guess, 0, size) for size in (4, 10))
        assert np.array_equal(first, second)
        assert first.mean() == pytest.approx(1, abs=0.3)
        assert torch.equal(before, torch.get_rng_state())

    def test_training_reports_them(self, train, images, model):
        folder, _ = train(
            "run",
            train="bias",
            learning_rate=0.05,
            validation_dataset=images,
            max_train_steps=20,
        )
        data = load_image_text(str(images), 16, columns=Columns(caption=None))
        base, trained = (load_unconditional(str(model)) for _ in range(2))
        load_trained_parts(trained, folder / "final")
        base.unet.eval(), trained.unet.eval()
        before, after = (pixel_losses(pipe, data, 0).mean() for pipe in (base, trained))
        assert after < before
        lines = [json.loads(line) for line in (folder / "validation_losses.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [0, 20]
        assert lines[1]["validation_loss"] < lines[0]["validation_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_config": "unet.json"}, "give model, .* or model_config"),
        ({"model": None, "model_config": "unet.json", "train": "geoconv"}, "give train full"),
        ({"class_dropout": 0.1}, "class_dropout needs class_column"),
        ({"validation_guidance_scale": 2.0}, "needs class_dropout"),
        ({"class_column": "label"}, "the model has no classes"),
        ({"beta_schedule": "linear"}, "beta_schedule is for models without a scheduler"),
        ({"size": 17}, "size must be a multiple of 2"),
    ],
)
def test_options_that_do_not_fit_are_refused(train, options, message):
    with pytest.raises(ConfigError, match=message):
        train("run", **options)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("no JSON", "is not JSON"),
        (json.dumps({"block_out_chanels": [8]}), "has no block_out_chanels"),
        (json.dumps({**CONFIG, "norm_num_groups": 5}), "makes no UNet2DModel"),
        (json.dumps({**CONFIG, "out_channels": 6}), "takes 3 channels and returns 6"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, config, message):
    (tmp_path / "unet.json").write_text(config)
    with pytest.raises(ConfigError, match=message):
        new_unconditional(str(tmp_path / "unet.json"))


def test_other_models_are_refused(tmp_path):
    tiny_stable_diffusion().save_pretrained(tmp_path / "sd")
    with pytest.raises(ConfigError, match="StableDiffusionPipeline cannot be trained here"):
        load_unconditional(str(tmp_path / "sd"))
    with pytest.raises(ConfigError, match="holds a UNet2DConditionModel"):
        load_unconditional(str(tmp_path / "sd" / "unet"))
    with pytest.raises(GeoPosError, match="no pipeline"):
        load_unconditional(str(tmp_path / "missing"))


@pytest.mark.slow
def test_two_processes_sharded_or_not(model, images, tmp_path):
    options = {"model": model, "dataset": images, "train": "full+geoconv", "learning_rate": 1e-3, "use_ema": "true"}
    options["validation_grid"] = 0
    parallel = check_continued("unconditional", tmp_path / "parallel", PARALLEL, **options)
    sharded = check_continued("unconditional", tmp_path / "sharded", SHARDED, **options)
    assert [line["loss"] for line in sharded] == pytest.approx([line["loss"] for line in parallel], rel=1e-5)
