import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_xl
from two_processes import PARALLEL, SHARDED, check_continued

from geopos_diffusers import GeoConvConfig, apply_geoconv
from geopos_diffusers.errors import ConfigError, DataError, GeoPosError
from geopos_diffusers.finetuning.controlnet import main
from geopos_diffusers.finetuning.controlnet_models import add_controlnet, draw_conditioned, new_controlnet
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.joint_scores import summarise
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.finetuning.trained_parts import load_trained_parts

IMAGES = 6


def fresh(model: Path, controlnet: Path | None = None):
    """The pipeline with a new ControlNet, or with a saved one."""
    return add_controlnet(tiny_stable_diffusion(), None if controlnet is None else str(controlnet))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_stable_diffusion().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def controlnet(tmp_path_factory) -> Path:
    """A ControlNet whose zero convolutions are no longer zero."""
    folder = tmp_path_factory.mktemp("controlnet")
    made = new_controlnet(tiny_stable_diffusion())
    generator = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        if "controlnet_" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """White discs on black, 48x40; the conditioning image is a red dot where the disc is."""
    folder = tmp_path_factory.mktemp("discs")
    rng, lines = np.random.default_rng(0), []
    for index in range(IMAGES):
        x, y = rng.integers(12, 36), rng.integers(10, 30)
        for name, radius, colour in (("image", 8, "white"), ("dot", 3, "red")):
            picture = Image.new("RGB", (48, 40))
            ImageDraw.Draw(picture).ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
            picture.save(folder / f"{name}-{index}.png")
        points = [[float(x), float(y)]] * 20 + [[float(x) + 4, float(y)]]
        row = {"file_name": f"image-{index}.png", "text": "a disc", "dot": f"dot-{index}.png", "keypoints": points}
        lines.append(json.dumps(row))
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
            "conditioning_column": "dot",
            "output_dir": tmp_path / name,
            "report_to": "none",
            "train_batch_size": 2,
            "max_train_steps": 2,
            "validation_grid": 0,
            **options,
        }
        main([word for key, value in options.items() for word in (f"--{key}", *map(str, np.atleast_1d(value)))])
        log = tmp_path / name / "losses.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return tmp_path / name, [json.loads(line) for line in lines]

    return run


@torch.no_grad()
def predict(pipe) -> torch.Tensor:
    """What the ControlNet adds to the UNet in all places, as one vector."""
    generator = torch.Generator().manual_seed(0)
    latents, text = (torch.randn(1, *shape, generator=generator) for shape in ((4, 16, 16), (7, 16)))
    picture = torch.rand(1, 3, 32, 32, generator=generator)
    down, middle = pipe.controlnet.eval()(latents, 500, text, picture, return_dict=False)
    return torch.cat([value.flatten() for value in (*down, middle)])


class TestWhatIsTrained:
    @pytest.mark.parametrize("parts", ["full", "full+geoconv"])
    def test_a_new_controlnet_is_saved_whole(self, train, model, parts):
        assert predict(fresh(model)).abs().max() == 0
        folder, _ = train("run", train=parts, learning_rate=1e-2)
        saved = fresh(model, folder / "final" / "controlnet")
        alone = predict(saved)
        assert alone.abs().max() > 1e-4
        pipe = fresh(model)
        load_trained_parts(pipe, folder / "final", "controlnet")
        assert torch.equal(predict(pipe), alone) == (parts == "full")
        assert isinstance(ControlNetModel.from_pretrained(folder / "final" / "controlnet"), ControlNetModel)

    @pytest.mark.parametrize("parts", ["geoconv", "bias", "lora", "lora+geoconv"])
    def test_adapters_load_into_the_controlnet(self, train, model, controlnet, parts):
        rank = {"lora_rank": 2} if "lora" in parts else {}
        folder, _ = train("run", train=parts, controlnet=controlnet, learning_rate=0.05, **rank)
        pipe = fresh(model, controlnet)
        before = predict(pipe)
        load_trained_parts(pipe, folder / "final", "controlnet")
        assert (predict(pipe) - before).abs().max() > 1e-4
        assert not (folder / "final" / "controlnet").exists()

    @pytest.mark.slow
    def test_the_unet_stays_as_it_is_and_the_loss_falls(self, train, model):
        folder, lines = train(
            "run", train="full", learning_rate=3e-3, max_train_steps=60, train_batch_size=6, cache_latents="true"
        )
        losses = [line["loss"] for line in lines]
        assert np.mean(losses[-15:]) < np.mean(losses[:10])
        weights = load_file(folder / "checkpoint-60" / "training_state" / "weights.safetensors")
        assert weights.keys() == dict(fresh(model).controlnet.named_parameters()).keys()

    def test_a_resumed_run_is_the_undisturbed_one(self, train, controlnet):
        options = {"train": "full+geoconv", "controlnet": controlnet, "random_flip": "true", "use_ema": True}
        whole, expected = train("whole", **options, max_train_steps=3)
        train("parts", **options, max_train_steps=1)
        folder, lines = train("parts", **options, max_train_steps=3, validation_grid=2, validation_inference_steps=1)
        assert [line["loss"] for line in lines] == [line["loss"] for line in expected]
        for name in ("geoconv_weights.safetensors", "controlnet/diffusion_pytorch_model.safetensors"):
            first, second = (load_file(run / "final" / name) for run in (whole, folder))
            assert all(torch.equal(first[key], second[key]) for key in first | second)
        grid = Image.open(folder / "validation-000003.png")
        assert np.asarray(grid).std() > 10

    def test_a_geometry_layer_that_learnt_nothing_changes_nothing(self, model, controlnet):
        pipe = fresh(model, controlnet)
        before = predict(pipe)
        apply_geoconv(pipe, GeoConvConfig(components=("controlnet",)))
        assert torch.equal(predict(pipe), before)

    def test_cached_latents_give_the_same_losses(self, train):
        options = {"train": "full", "learning_rate": 1e-3}
        _, first = train("images", **options)
        _, second = train("latents", **options, cache_latents="true")
        assert [line["loss"] for line in second] == pytest.approx([line["loss"] for line in first], rel=1e-5)

    def test_held_out_images_are_measured(self, train, images):
        folder, _ = train("run", learning_rate=3e-3, validation_dataset=images, validation_loss_images=3)
        lines = [json.loads(line) for line in (folder / "validation_losses.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [0, 2]
        assert lines[0]["validation_loss"] != lines[1]["validation_loss"]

    def test_sdxl(self, train, tmp_path):
        tiny_stable_diffusion_xl().save_pretrained(tmp_path / "xl")
        folder, lines = train(
            "run", model=tmp_path / "xl", learning_rate=1e-2, validation_grid=1, validation_inference_steps=1
        )
        assert np.isfinite([line["loss"] for line in lines]).all()
        assert (folder / "validation-000002.png").is_file()
        assert (
            ControlNetModel.from_pretrained(folder / "final" / "controlnet").config.addition_embed_type == "text_time"
        )


def test_a_dry_run_estimates_the_memory_of_a_step(train, capsys, tmp_path):
    _, lines = train("run", dry_run="true", cache_latents="true")
    assert lines == []
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory of a step"))
    assert re.search(r"about \d+\.\d+ GiB", line)
    assert not (tmp_path / "run" / "latents").exists()


class TestDrawing:
    def test_diffusers_own_pipeline_draws_under_the_condition(self, model, controlnet):
        base = tiny_stable_diffusion()
        pipe = StableDiffusionControlNetPipeline(
            **base.components, controlnet=ControlNetModel.from_pretrained(controlnet), requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        pictures = [Image.new("RGB", (32, 32), colour) for colour in ("black", "red")]
        images = draw_conditioned(pipe, ["a disc"] * 2, pictures, 0, 2, 1.0)
        one = pipe(
            "a disc", pictures[1], num_inference_steps=2, guidance_scale=1.0, generator=torch.Generator().manual_seed(1)
        ).images[0]
        assert np.abs(np.asarray(images[1], int) - np.asarray(one, int)).max() <= 1
        other = draw_conditioned(pipe, ["a disc"] * 2, pictures[:1] * 2, 0, 2, 1.0)[1]
        assert not np.array_equal(np.asarray(images[1]), np.asarray(other))


class TestConditions:
    columns = Columns(conditioning="dot", keypoints="keypoints")

    def test_they_are_cut_out_as_the_image_is(self, images):
        data = load_image_text(str(images), 32, columns=self.columns)
        for index in range(IMAGES):
            item = data[index]
            red = data.conditioning(index, item["sizes"])
            assert red.shape == item["pixels"].shape
            assert 0 <= red.min() <= red.max() <= 1
            rows, columns = torch.meshgrid(torch.arange(32.0) + 0.5, torch.arange(32.0) + 0.5, indexing="ij")
            middle = torch.stack([(columns * red[0]).sum(), (rows * red[0]).sum()]) / red[0].sum()
            points = torch.tensor(data.keypoints(index, item["sizes"]))
            # A crop may hide a part of the dot.
            if 3 < points[0, 0] < 29:
                assert (middle - points[0]).abs().max() < 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dot": "../dot.png"}, "outside the folder"),
            ({"dot": None}, "no field 'dot'"),
            ({"keypoints": [[1, 2]]}, "21 finite"),
            ({"keypoints": "none"}, r"must be 21 \[x, y\]"),
        ],
    )
    def test_bad_rows_are_refused(self, tmp_path, change, message):
        Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
        row = {"file_name": "0.png", "text": "a", "dot": "0.png", "keypoints": [[0, 0]] * 21, **change}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
        with pytest.raises(DataError, match=message):
            load_image_text(str(tmp_path), 8, columns=self.columns)

    def test_a_condition_of_another_shape_is_refused(self, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
        Image.new("RGB", (8, 12)).save(tmp_path / "1.png")
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a", "dot": "1.png"}))
        with pytest.raises(DataError, match="another shape: 8 x 12 pixels"):
            load_image_text(str(tmp_path), 8, columns=Columns(conditioning="dot"))

    @pytest.mark.parametrize("size", [(51, 34), (50, 33), (50, 34), (202, 134), (34, 23)])
    def test_sides_may_be_rounded(self, tmp_path, size):
        Image.new("RGB", (101, 67)).save(tmp_path / "0.png")
        Image.new("RGB", size, "red").save(tmp_path / "1.png")
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": "a", "dot": "1.png"}))
        item = load_image_text(str(tmp_path), 8, columns=Columns(conditioning="dot"))[0]
        assert item["conditioning"].mean((1, 2)).tolist() == pytest.approx([1, 0, 0])

    def test_an_image_is_left_out_with_a_condition_that_cannot_be_read(self, tmp_path, images, caplog):
        shutil.copytree(images, tmp_path, dirs_exist_ok=True)
        (tmp_path / "dot-2.png").write_bytes(b"nonsense")
        data = load_image_text(str(tmp_path), 32, columns=self.columns)
        assert (len(data), data.skipped) == (IMAGES - 1, 1)
        assert "left out: " in caplog.text
        assert "image-2.png (its conditioning image: " in caplog.text

    def test_a_condition_that_is_lost_later_costs_its_image_alone(self, tmp_path, images):
        shutil.copytree(images, tmp_path, dirs_exist_ok=True)
        data = load_image_text(str(tmp_path), 32, columns=self.columns)
        (tmp_path / "dot-2.png").unlink()
        assert data[2]["row"] == data[3]["row"] == 3
        assert torch.equal(data[2]["conditioning"], data[3]["conditioning"])
        assert torch.equal(data[2]["conditioning"], data.conditioning(3, data[3]["sizes"]))


class TestJointErrors:
    def test_summary(self):
        scores = summarise(np.array([0.1, 0.3, np.nan, np.nan]))
        assert scores == {"hands_found": 0.5, "joint_error": pytest.approx(0.2), "joint_error_all": pytest.approx(0.6)}
        assert "joint_error" not in summarise(np.array([np.nan]))

    @pytest.mark.slow
    def test_of_rendered_hands_it_is_small(self):
        from geopos_diffusers.data.hands import render_hands
        from geopos_diffusers.finetuning.joint_scores import JointScorer

        hands = [*render_hands(6, 128, 3, views=("palm",), poses="canonical", max_rotation=10.0)]
        scorer = JointScorer()
        try:
            errors = scorer.errors([image for image, _ in hands], [known["keypoints"] for _, known in hands])
        finally:
            scorer.close()
        assert np.isfinite(errors).mean() > 0.6
        assert np.nanmedian(errors) < 0.1

    @pytest.mark.slow
    def test_they_are_measured_while_training(self, train):
        folder, _ = train("run", keypoints_column="keypoints", joint_error_images=2, validation_inference_steps=1)
        assert set(json.loads((folder / "summary.json").read_text())["scores"]) >= {"hands_found", "joint_error_all"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train": "geoconv"}, ConfigError, "a new ControlNet begins with zero convolutions"),
        ({"train": "full+bias"}, ConfigError, "train cannot be full"),
        ({"controlnet": "/missing"}, GeoPosError, "no ControlNet '/missing'"),
        ({"size": 33}, ConfigError, "size must be a multiple of 4"),
        ({"conditioning_column": "depth"}, DataError, "no field 'depth'"),
    ],
)
def test_what_does_not_fit_is_refused(train, options, error, message):
    with pytest.raises(error, match=message):
        train("run", **options)


def test_a_controlnet_of_another_model_is_refused(train, tmp_path, model):
    made = ControlNetModel.from_unet(tiny_stable_diffusion().unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    made.save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="scales conditioning images down by 8"):
        train("run", controlnet=tmp_path / "other")


def test_images_keep_the_sizes_of_their_buckets(train, images, tmp_path):
    """Of two shapes, which trackers get apart; in bfloat16, which the UNet alone is in."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    data = tmp_path / "data"
    shutil.copytree(images, data)
    for name in ("image-1.png", "dot-1.png"):
        Image.open(data / name).resize((40, 80)).save(data / name)
    options = {"validation_grid": 2, "validation_inference_steps": 1, "validation_steps": 1, "train_batch_size": 1}
    options |= {"report_to": "tensorboard", "mixed_precision": "bf16", "max_train_steps": 1}
    folder, lines = train("run", dataset=data, aspect_ratio_buckets="true", **options)
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert Image.open(folder / "validation-000001.png").height > 192
    events = event_accumulator.EventAccumulator(str(folder / "logs" / "finetune"))
    events.Reload()
    sizes = {tag.split("/")[0].split()[1] for tag in events.Tags()["images"]}
    assert len(sizes) == 2
    assert all(len(events.Images(tag)) == 2 for tag in events.Tags()["images"])


@pytest.mark.parametrize("option", ["streaming", "cache_text_embeddings"])
def test_what_is_not_offered_is_refused(train, option):
    with pytest.raises(ConfigError, match=f"{option} is not offered"):
        train("run", **{option: "true"})


@pytest.mark.slow
@pytest.mark.parametrize("parts", ["full+geoconv", "geoconv"])
def test_two_processes_sharded_or_not(model, images, controlnet, tmp_path, parts):
    options = {"model": model, "dataset": images, "conditioning_column": "dot", "train": parts, "validation_grid": 0}
    options |= {"learning_rate": 1e-3, **({"controlnet": controlnet} if parts == "geoconv" else {})}
    found = {name: tmp_path / name for name in ("parallel", "sharded")}
    parallel = check_continued("controlnet", found["parallel"], PARALLEL, **options)
    sharded = check_continued("controlnet", found["sharded"], SHARDED, **options)
    assert [line["loss"] for line in sharded] == pytest.approx([line["loss"] for line in parallel], rel=1e-5)
    first, second = ({file.name for file in (folder / "whole" / "final").rglob("*")} for folder in found.values())
    assert first == second
