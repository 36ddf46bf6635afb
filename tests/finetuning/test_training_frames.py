"""Training with frames: which boxes the layers see, what is drawn at random, saved, continued and refused."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DDIMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from two_processes import PARALLEL, SHARDED, ZERO, train_on_two

from geopos_diffusers import geoconv_parameters, load_geoconv_weights, save_geoconv_weights
from geopos_diffusers.adapters.files import geometry_config, read_adapter
from geopos_diffusers.errors import ConfigError, DataError
from geopos_diffusers.finetuning.controlnet import main as train_controlnet
from geopos_diffusers.finetuning.engine import build_loader, build_run
from geopos_diffusers.finetuning.framing import box_in_crop, frame_box, frame_centre
from geopos_diffusers.finetuning.held_out_loss import image_losses, load_framed_images
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.finetuning.text_to_image import TextToImage
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.finetuning.training_frames import vary
from geopos_diffusers.finetuning.unconditional import main as train_unconditional
from geopos_diffusers.patching.patched_model import frames_holder
from geopos_diffusers.training.loss_log import read_losses
from geopos_diffusers.training.tracking import build_accelerator

# Of images of 48 x 32 pixels, of which 32 x 32 in the middle are seen: of the fourth box nothing.
BOXES = [[0.25, 0.1, 0.75, 0.6], [0.0, 0.2, 0.5, 1.0], None, [0.0, 0.0, 0.05, 0.5]]
SEEN = [(0.125, 0.1, 0.875, 0.6), (-0.25, 0.2, 0.5, 1.0)]  # 1.5 x - 0.25
DEFAULT = (0.0625, 0.15, 0.6875, 0.8)  # the mean of both, cut off at the image's edges
OPTIONS = {"train": "geoconv", "learning_rate": 0.05, "shift_range": 0, "frame_column": "box"}


def framed_images(folder: Path, boxes=BOXES) -> Path:
    """Noise with captions and boxes, and "mask.png" in each row."""
    folder.mkdir()
    rng, lines = np.random.default_rng(0), []
    for index, box in enumerate(boxes):
        Image.fromarray(rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        row = {"file_name": f"{index}.png", "text": "a hand", "dot": f"{index}.png"}
        lines.append(json.dumps(row if box is None else row | {"box": box}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return framed_images(tmp_path_factory.mktemp("framed") / "images")


def default_frame(folder: Path):
    """What an adapter says of it."""
    return geometry_config(read_adapter(folder / "geoconv_weights.safetensors")[1]).default_frame


def ready(images, model, **options) -> tuple:
    """A run that could begin, and its first batch of all four images."""
    AcceleratorState._reset_state(reset_partial_state=True)
    values = {"dataset": [str(images)], "model": str(model), "output_dir": "unused", "train_batch_size": 4}
    args = TextToImageArguments(**{**values, "max_train_steps": 9, **OPTIONS, **options})
    run = build_run(TextToImage(args, build_accelerator("unused", None, 1, ["none"])))
    return run, next(iter(build_loader(run, 0)))


def seen_boxes(run, batch) -> np.ndarray:
    """The boxes [B, 4] that the layers count from while the loss of a batch is computed."""
    unet, seen = run.task.pipe.unet, []
    handle = unet.register_forward_pre_hook(lambda *_: seen.append(frames_holder(unet).now()))
    run.task.losses(batch)
    handle.remove()
    half = 1 / (1 + seen[0].stretch.squeeze(1))
    centre = -seen[0].offset.squeeze(1) * half
    return torch.cat([centre - half, centre + half], 1)[:, [1, 0, 3, 2]].add(1).div(2).numpy()


class TestCrops:
    @pytest.mark.parametrize(
        ("frame", "box", "expected"),
        [
            (frame_centre((48, 32), (32, 32)), BOXES[0], SEEN[0]),
            (frame_centre((48, 32), (32, 32)), BOXES[1], SEEN[1]),
            (frame_centre((40, 80), (20, 20)), (0.0, 0.25, 1.0, 0.75), (0.0, 0.0, 1.0, 1.0)),
            (frame_centre((40, 80), (40, 20)), (0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)),
            (frame_box((200, 100), (40, 40), (40, 20, 60, 40), 0.5), (0.2, 0.2, 0.3, 0.4), (0.25, 0.25, 0.75, 0.75)),
        ],
    )
    def test_a_box_moves_with_its_image(self, frame, box, expected):
        assert box_in_crop(frame, box).tolist() == pytest.approx(expected)

    @pytest.mark.parametrize("box", [None, (0.0, 0.0, 1 / 6, 1.0), (0.84, 0.2, 1.0, 0.4)])
    def test_nothing_left(self, box):
        assert box_in_crop(frame_centre((48, 32), (32, 32)), box).isnan().all()

    @pytest.mark.parametrize("options", [{}, {"bucket_step": 4}, {"hand": True}])
    def test_the_box_is_where_its_pixels_are(self, tmp_path, options):
        """A white rectangle, found again in what was cut out."""
        pixels = np.zeros((60, 120, 3), np.uint8)
        pixels[12:36, 30:72] = 255
        Image.fromarray(pixels).save(tmp_path / "0.png")
        row = {"file_name": "0.png", "text": "a", "box": [0.25, 0.2, 0.6, 0.6], "hand": [20, 5, 60, 40]}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
        columns = Columns(frame="box", box="hand" if options.pop("hand", False) else None)
        data = load_image_text(str(tmp_path), 64, columns=columns, margin=0.1, **options)
        item = data[0]
        white = (item["pixels"][0] > 0).numpy()
        (rows, across), (height, width) = np.nonzero(white), white.shape
        found = [across.min() / width, rows.min() / height, (across.max() + 1) / width, (rows.max() + 1) / height]
        assert item["box"].clamp(0, 1).tolist() == pytest.approx(found, abs=0.025)
        assert torch.equal(data.box(0, item["sizes"]), item["box"])

    def test_the_fingerprint_follows_the_boxes_alone(self, tmp_path):
        folders = [framed_images(tmp_path / name, boxes) for name, boxes in (("a", BOXES), ("b", [*BOXES[:3], None]))]
        one, two = (load_image_text(str(folder), 32, columns=Columns(frame="box")) for folder in folders)
        plain = [load_image_text(str(folder), 32).fingerprint() for folder in folders]
        assert plain[0] == plain[1] != one.fingerprint() != two.fingerprint()
        assert [one.content_digest(index) for index in range(4)] == [two.content_digest(index) for index in range(4)]
        assert one.count_fields()["frame"] == 1


class TestWhatTheLayersSee:
    def test_boxes_of_the_images_and_the_mean_box(self, images, model):
        run, batch = ready(images, model)
        expected = np.array([(SEEN + [DEFAULT] * 2)[row] for row in batch["row"].tolist()])
        np.testing.assert_allclose(seen_boxes(run, batch), expected, atol=1e-6)
        assert run.facts()["default_frame"] == pytest.approx(DEFAULT)
        assert run.facts()["images_without_frame"] == 1

    def test_a_mirrored_image_has_its_box_on_the_other_side(self, images, model):
        run, batch = ready(images, model, random_flip=True)
        mirrored = set()
        for seed in range(4):
            torch.manual_seed(seed)
            chosen = torch.rand(4) < 0.5
            torch.manual_seed(seed)
            seen = seen_boxes(run, batch)
            for row, flip, box in zip(batch["row"].tolist(), chosen.tolist(), seen, strict=True):
                left, top, right, bottom = (SEEN + [DEFAULT] * 2)[row]
                flips = flip and row < 2  # the mean box is that of no image
                assert box == pytest.approx([1 - right, top, 1 - left, bottom] if flips else [left, top, right, bottom])
                mirrored.add((row, flip))
        assert len(mirrored) == 8

    def test_dropout_takes_its_share(self, images, model):
        run, batch = ready(images, model, frame_dropout=0.3)
        own = np.array([row < 2 for row in batch["row"].tolist()])
        dropped = [np.isclose(seen_boxes(run, batch), DEFAULT, atol=1e-6).all(1) for _ in range(40)]
        assert np.stack(dropped)[:, ~own].all()
        assert np.stack(dropped)[:, own].mean() == pytest.approx(0.3, abs=0.13)

    def test_jitter_keeps_within_its_share(self):
        torch.manual_seed(0)
        boxes = torch.tensor([(0.2, 0.1, 0.6, 0.9)], dtype=torch.float64).repeat(2000, 1)
        left, top, right, bottom = vary(boxes, 0.25).unbind(1)
        for low, high, middle, size in ((left, right, 0.4, 0.4), (top, bottom, 0.5, 0.8)):
            moved, scaled = ((low + high) / 2 - middle) / size, (high - low) / size - 1
            for values in (moved, scaled):
                assert values.abs().max() <= 0.25
                assert values.std() == pytest.approx(0.25 / math.sqrt(3), rel=0.1)
        assert abs(np.corrcoef(left + right, right - left)[0, 1]) < 0.1

    def test_the_mean_box_is_not_varied(self, images, model):
        run, batch = ready(images, model, frame_jitter=0.5)
        seen = seen_boxes(run, batch)
        for row, box in zip(batch["row"].tolist(), seen, strict=True):
            assert np.allclose(box, (SEEN + [DEFAULT] * 2)[row], atol=1e-6) == (row >= 2)

    def test_held_out_images_are_seen_in_their_own_boxes(self, images, model):
        run, _ = ready(images, model, frame_dropout=1.0, validation_dataset=str(images), validation_loss_images=4)
        unet, seen = run.task.pipe.unet, []
        unet.register_forward_pre_hook(lambda *_: seen.append(frames_holder(unet).now()))
        items = [run.task.held_out[index] for index in range(2)]
        batch = run.task.prepare_held_out(torch.utils.data.default_collate(items))
        run.task.held_out_losses(batch, torch.Generator().manual_seed(0))
        assert len(seen) == 4  # bands
        assert all(torch.allclose(1 / (1 + one.stretch[:, 0, 1]), torch.tensor([0.75, 0.75]).double()) for one in seen)
        assert frames_holder(unet).frames is None


RUN = {
    **OPTIONS,
    "frame_dropout": 0.3,
    "frame_jitter": 0.2,
    "use_ema": True,
    "max_train_steps": 4,
    "checkpointing_steps": 2,
    "gradient_accumulation_steps": 2,
    "gradient_checkpointing": True,
    "random_flip": True,
    "validation_dataset": None,  # the images
    "validation_loss_steps": 2,
    "validation_prompts": ["a hand", "a fist", "two", "three", "four"],
    "validation_steps": 2,
    "validation_inference_steps": 2,
}


@pytest.fixture(scope="module")
def whole(finetune_into, images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finetune_into(folder, **{**RUN, "dataset": images, "validation_dataset": images})
    return folder


class TestRuns:
    def test_the_adapter_knows_the_mean_box(self, whole):
        for folder in (whole / "final", whole / "checkpoint-2"):
            assert default_frame(folder) == pytest.approx(DEFAULT)
        summary = json.loads((whole / "summary.json").read_text())
        assert summary["default_frame"] == pytest.approx(DEFAULT)
        assert (whole / "validation-000004.png").is_file()

    def test_a_killed_run_continues_as_if_it_had_never_stopped(self, whole, finetune, images, tmp_path):
        copied = shutil.copytree(whole, tmp_path / "copied")
        shutil.rmtree(copied / "checkpoint-4")
        finetune("copied", **{**RUN, "dataset": images, "validation_dataset": images})
        for file in ("losses.jsonl", "validation_losses.jsonl", "validation-000004.png"):
            assert (copied / file).read_bytes() == (whole / file).read_bytes(), file
        for file in sorted((whole / "checkpoint-4" / "training_state").glob("*.safetensors")):
            one, two = load_file(file), load_file(copied / "checkpoint-4" / "training_state" / file.name)
            assert all(torch.equal(one[name], two[name]) for name in one), file.name

    def test_measuring_leaves_no_trace(self, whole, finetune, images):
        quiet = {name: value for name, value in RUN.items() if not name.startswith("validation")}
        _, lines = finetune("quiet", **{**quiet, "dataset": images})
        assert lines == read_losses(whole / "losses.jsonl")

    def test_other_boxes_are_other_data(self, whole, finetune_into, tmp_path):
        other = framed_images(tmp_path / "other", [BOXES[1], *BOXES[1:]])
        with pytest.raises(ConfigError, match="data"):
            finetune_into(whole, **{**RUN, "dataset": other, "validation_dataset": other, "max_train_steps": 6})

    def test_latents_are_cached_without_the_boxes(self, finetune, images):
        options = {**OPTIONS, "dataset": images, "max_train_steps": 3}
        _, lines = finetune("images", **options)
        _, cached = finetune("latents", **options, cache_latents=True)
        assert [line["loss"] for line in cached] == pytest.approx([line["loss"] for line in lines], rel=1e-5)
        _, plain = finetune("plain", **{name: value for name, value in options.items() if name != "frame_column"})
        assert plain[0]["loss"] == lines[0]["loss"]  # of geometry weights of zero
        assert abs(plain[2]["loss"] / lines[2]["loss"] - 1) > 1e-5

    @pytest.mark.parametrize(("name", "value"), [("frame_limit", 1.0), ("frame_window", True)])
    def test_coordinates_end_at_the_limit_or_with_the_box(self, finetune, images, name, value):
        options = {**OPTIONS, "dataset": images, "max_train_steps": 3}
        (folder, ended), (_, free) = (
            finetune(label, **options, **how) for label, how in (("ended", {name: value}), ("free", {}))
        )
        config = geometry_config(read_adapter(folder / "final" / "geoconv_weights.safetensors")[1])
        assert getattr(config, name) == value
        assert ended[0]["loss"] == free[0]["loss"]  # of geometry weights of zero
        assert ended[2]["loss"] != free[2]["loss"]


class TestTheSweepsLoss:
    @pytest.fixture
    def adapter(self, whole, tmp_path) -> Path:
        """The run's adapter with weights that show in the loss."""
        pipe, generator = tiny_stable_diffusion(), torch.Generator().manual_seed(0)
        load_geoconv_weights(pipe, whole / "final")
        for weight in geoconv_parameters(pipe).values():
            weight.data.copy_(0.3 * torch.randn(weight.shape, generator=generator))
        save_geoconv_weights(pipe, tmp_path / "strong")
        return tmp_path / "strong"

    def test_is_that_of_the_images_boxes(self, adapter, images, model):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, adapter)
        pixels, captions, boxes = load_framed_images(images, 32, 32, "box")
        assert boxes[:2].tolist() == [pytest.approx(SEEN[0]), pytest.approx(SEEN[1])]
        framed = HeldOut(str(images), 32, 32, frame_column="box").losses(str(model), adapter)
        assert framed == image_losses(pipe, pixels, captions, 0, boxes=boxes).tolist()
        default = HeldOut(str(images), 32, 32).losses(str(model), adapter)
        assert [abs(one - two) > 1e-4 for one, two in zip(framed, default, strict=True)] == [True, True, False, False]

    def test_of_a_model_without_geometry_they_change_nothing(self, images, model):
        framed, plain = (HeldOut(str(images), 32, 32, frame_column=column) for column in ("box", None))
        assert framed.losses(str(model), None) == plain.losses(str(model), None)


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train": "lora"}, "frame_column needs geometry weights, and train=lora has none"),
            ({"train": "full"}, "train=full has none; add [+]geoconv"),
            ({"train": "bias"}, "train=bias has none"),
            ({"normalization": "pixel"}, "normalization pixel"),
            ({"frame_column": None, "frame_dropout": 0.1}, "frame_dropout is an option of frame_column"),
            ({"frame_column": None, "frame_jitter": 0.1}, "frame_jitter is an option of frame_column"),
            ({"frame_column": None, "frame_limit": 1.0}, "frame_limit is an option of frame_column"),
            ({"frame_column": None, "frame_window": True}, "frame_window is an option of frame_column"),
            ({"frame_limit": 0.5}, "frame_limit"),
            ({"frame_limit": 1.0, "frame_window": True}, "frame_limit or frame_window"),
            ({"frame_dropout": 1.5}, "frame_dropout"),
            ({"frame_jitter": 1.0}, "frame_jitter"),
        ],
    )
    def test_options(self, options, message):
        values = {"dataset": ["d"], "output_dir": "o", "max_train_steps": 1, **OPTIONS, **options}
        with pytest.raises(ConfigError, match=message):
            TextToImageArguments(**values)

    @pytest.mark.parametrize(
        ("box", "message"),
        [
            ([4, 4, 20, 30], "in shares of the image, from 0 to 1; .* seems to be in pixels"),
            ([0.2, 0.2, 0.2, 0.6], "empty or reversed"),
            ([0.5, 0.2, 0.2, 0.6], "empty or reversed"),
            ([-0.1, 0.2, 0.2, 0.6], "reaches outside the image"),
            ([0.1, 0.2, 0.6], "must be four numbers"),
            ([[0.1, 0.2, 0.6, 0.8]], "must be four numbers"),
            ("left", "must be four numbers"),
            ([0.1, 0.2, float("nan"), 0.8], "takes four numbers"),
        ],
    )
    def test_boxes_are_named(self, tmp_path, box, message):
        folder = framed_images(tmp_path / "bad", [BOXES[0], box])
        with pytest.raises(DataError, match=f"metadata.jsonl, line 2: .*{message}"):
            load_image_text(str(folder), 32, columns=Columns(frame="box"))

    @pytest.mark.parametrize(("boxes", "message"), [([None] * 2, "has a frame: none"), (BOXES[2:], "within what is")])
    def test_data_without_boxes_leave_nothing_behind(self, tmp_path, finetune, boxes, message):
        with pytest.raises(DataError, match=message):
            finetune("none", **OPTIONS, dataset=framed_images(tmp_path / "data", boxes))
        assert not list((tmp_path / "none").glob("*"))


def test_unconditional(images, tmp_path):
    """Of pixels; the grid is drawn in the boxes."""
    AcceleratorState._reset_state(reset_partial_state=True)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    DDIMPipeline(unet, DDPMScheduler(num_train_timesteps=100)).save_pretrained(tmp_path / "model")
    words = "--train geoconv --frame_column box --max_train_steps 2 --report_to none --validation_grid 3"
    words += f" --validation_inference_steps 2 --model {tmp_path / 'model'} --dataset {images} --validation_dataset"
    train_unconditional([*words.split(), str(images), "--output_dir", str(tmp_path / "run")])
    assert default_frame(tmp_path / "run" / "final") == pytest.approx(DEFAULT)
    assert len(read_losses(tmp_path / "run" / "validation_losses.jsonl")) == 2


def test_controlnet(images, model, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    words = "--train full+geoconv --frame_column box --max_train_steps 2 --report_to none --validation_grid 3"
    words += " --frame_dropout 0.5 --validation_inference_steps 2 --conditioning_column dot --cache_latents"
    words += f" --model {model} --dataset {images} --validation_dataset {images} --output_dir {tmp_path / 'run'}"
    train_controlnet(words.split())
    assert default_frame(tmp_path / "run" / "final") == pytest.approx(DEFAULT)
    assert len(read_losses(tmp_path / "run" / "validation_losses.jsonl")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [SHARDED, ZERO], ids=["fsdp2", "zero2"])
def test_two_processes(launcher, images, model, tmp_path):
    """Each sets the frames of its own images, and both know one mean box, also where weights are spread."""
    if launcher is ZERO:
        pytest.importorskip("deepspeed")
    options = OPTIONS | {"model": model, "dataset": images, "validation_dataset": images, "frame_jitter": 0.1}
    parallel = train_on_two("text-to-image", tmp_path / "parallel", PARALLEL, **options)
    assert len(parallel) == 4
    assert all(math.isfinite(line["loss"]) for line in parallel)
    spread = train_on_two("text-to-image", tmp_path / "spread", launcher, **options)
    for one, other in zip(spread, parallel, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    held_out = [read_losses(tmp_path / name / "validation_losses.jsonl")[-1] for name in ("parallel", "spread")]
    assert held_out[0]["validation_loss"] == pytest.approx(held_out[1]["validation_loss"], rel=1e-5)
    for name in ("parallel", "spread"):
        assert default_frame(tmp_path / name / "final") == pytest.approx(DEFAULT)
    other = load_file(tmp_path / "parallel" / "final" / "geoconv_weights.safetensors")
    for name, values in load_file(tmp_path / "spread" / "final" / "geoconv_weights.safetensors").items():
        assert torch.allclose(values, other[name], atol=1e-3)  # AdamW's first steps are of the rate's size
