import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_xl

from geopos_diffusers import geoconv_status, load_geoconv_weights, remove_geoconv
from geopos_diffusers.errors import GeoPosError
from geopos_diffusers.finetuning.part_options import LEARNING_RATES
from geopos_diffusers.finetuning.text_to_image import main
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.finetuning.trained_parts import add_trained_parts, parameter_groups


def losses(lines: list[dict]) -> list[float]:
    return [line["loss"] for line in lines]


@torch.no_grad()
def predict(pipe) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents, text = (torch.randn(1, *shape, generator=generator) for shape in ((4, 16, 16), (7, 16)))
    return pipe.unet.eval()(latents, 500, text).sample


def load_trained(pipe, folder: Path):
    """Load whatever a checkpoint or final/ holds, through the public interfaces."""
    if (folder / "unet").is_dir():
        pipe.unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    if (folder / "geoconv_weights.safetensors").is_file():
        load_geoconv_weights(pipe, folder)
    if (folder / "pytorch_lora_weights.safetensors").is_file():
        pipe.load_lora_weights(folder)
    return pipe


class TestWhatIsTrained:
    @pytest.mark.parametrize("train", ["geoconv", "bias", "lora", "geoconv+lora", "lora+bias", "full", "geoconv+full"])
    def test_saved_files_load_into_the_base(self, finetune, images, train):
        options = {"train": train, "learning_rate": 1e-2} | (
            {"lora_alpha": 3, "lora_rank": 2} if "lora" in train else {}
        )
        folder, lines = finetune(train, **options)
        arguments = TextToImageArguments(dataset=str(images), output_dir="o", max_train_steps=1, **options)
        trained = tiny_stable_diffusion()
        parameters = add_trained_parts(trained, "unet", arguments)
        weights = load_file(folder / "checkpoint-2" / "training_state" / "weights.safetensors")
        assert list(weights) == sorted(parameters)
        for name, parameter in parameters.items():
            parameter.data.copy_(weights[name])

        expected, base = predict(trained), predict(tiny_stable_diffusion())
        for saved in ("checkpoint-2", "final"):
            torch.testing.assert_close(
                predict(load_trained(tiny_stable_diffusion(), folder / saved)), expected, rtol=1e-5, atol=1e-6
            )
        assert (expected - base).abs().max() > 1e-3
        assert all(math.isfinite(loss) for loss in losses(lines))

    def test_each_part_learns_at_its_own_rate(self, finetune):
        options = {"train": "geoconv+lora", "geoconv_learning_rate": 0.1, "lora_learning_rate": 1e-3}
        _, lines = finetune("rates", lr_scheduler="cosine", max_train_steps=4, **options)
        cosine = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
        for part, peak in (("geoconv", 0.1), ("lora", 1e-3)):
            assert [line[f"learning_rate_{part}"] for line in lines] == pytest.approx([peak * c for c in cosine])

    def test_only_lora_and_the_unet_are_decayed(self, images):
        arguments = TextToImageArguments(
            dataset=str(images), output_dir="o", max_train_steps=1, train="lora+geoconv", adam_weight_decay=0.1
        )
        parameters = add_trained_parts(tiny_stable_diffusion(), "unet", arguments)
        lora, geometry = parameter_groups(parameters, arguments)
        assert (lora["part"], lora["weight_decay"], lora["lr"]) == ("lora", 0.1, LEARNING_RATES["lora"])
        assert (geometry["part"], geometry["weight_decay"]) == ("geoconv", 0.0)
        grouped = [id(parameter) for group in (lora, geometry) for parameter in group["params"]]
        assert grouped == [id(parameter) for parameter in parameters.values()]

    def test_a_bias_adapter_is_one_number_a_filter_and_comes_off_without_a_trace(self, finetune):
        folder, _ = finetune("biases", train="bias", learning_rate=0.1)
        pipe, base = tiny_stable_diffusion(), predict(tiny_stable_diffusion())
        status = load_geoconv_weights(pipe, folder / "final")
        convolutions = [layer for layer in pipe.unet.modules() if getattr(layer, "geo_weight", None) is not None]
        assert status.geometry_parameters == sum(layer.out_channels for layer in convolutions)
        assert not torch.equal(predict(pipe), base)
        remove_geoconv(pipe)
        assert torch.equal(predict(pipe), base)

    def test_options_of_the_geometry_reach_the_adapter(self, finetune):
        folder, _ = finetune(
            "options", encoding="squares", shift_range=0.5, normalization="aspect", target_modules=["conv1"]
        )
        pipe = load_trained(tiny_stable_diffusion(), folder / "final")
        status = geoconv_status(pipe)
        assert (status.config.encoding, status.config.shift_range, status.config.normalization) == (
            "squares",
            0.5,
            "aspect",
        )
        assert status.patched
        assert all(name.endswith("conv1") for name in status.patched)

    def test_training_lowers_the_loss(self, finetune):
        _, lines = finetune(
            "learns", train="full", learning_rate=3e-3, max_train_steps=40, train_batch_size=4, cache_latents=True
        )
        values = losses(lines)
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:5])

    def test_the_average_is_saved_and_the_raw_weights_kept(self, finetune):
        folder, _ = finetune("ema", train="geoconv", use_ema=True, learning_rate=1e-2, max_train_steps=4)
        state = folder / "checkpoint-4" / "training_state"
        average, raw = load_file(state / "ema.safetensors"), load_file(state / "weights.safetensors")
        pipe = load_trained(tiny_stable_diffusion(), folder / "checkpoint-4")
        saved = {name: value for name, value in pipe.unet.named_parameters() if name.endswith("geo_weight")}
        assert saved.keys() == average.keys()
        assert all(torch.equal(saved[name], average[name]) for name in saved)
        assert not any(torch.equal(raw[name], average[name]) for name in saved)

    def test_sdxl(self, finetune, tmp_path):
        tiny_stable_diffusion_xl().save_pretrained(tmp_path / "sdxl")
        folder, lines = finetune("xl", model=tmp_path / "sdxl", train="geoconv+lora", caption_dropout=0.5)
        assert len(lines) == 2
        pipe = load_trained(DiffusionPipeline.from_pretrained(tmp_path / "sdxl"), folder / "final")
        assert len(geoconv_status(pipe).patched) > 10
        assert pipe.get_active_adapters()


class TestLatentsFolder:
    OPTIONS = {"train": "geoconv", "cache_latents": True, "max_train_steps": 3}  # noqa: RUF012

    def test_a_later_run_reads_the_latents_and_has_the_same_losses(self, finetune, tmp_path):
        _, expected = finetune("encoded", **self.OPTIONS)
        for name in ("first", "second"):
            _, lines = finetune(name, latents_folder=tmp_path / "latents", **self.OPTIONS)
            assert losses(lines) == losses(expected)
            (file,) = (tmp_path / "latents").iterdir()
        finetune("others", latents_folder=tmp_path / "latents", max_train_samples=6, **self.OPTIONS)
        assert len([*(tmp_path / "latents").iterdir()]) == 2
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(GeoPosError, match=r"is damaged .*; remove it"):
            finetune("damaged", latents_folder=tmp_path / "latents", **self.OPTIONS)


class TestSameLosses:
    """Options that must not change what is computed."""

    @pytest.mark.parametrize(
        ("option", "tolerance"),
        [
            ({"gradient_checkpointing": True}, 0.0),
            ({"validation_prompts": ["a hand"], "validation_steps": 1, "validation_inference_steps": 1}, 0.0),
            ({"num_workers": 1}, 0.0),
            ({"cache_latents": True}, 1e-5),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_option(self, finetune, option, tolerance):
        options = {"train": "geoconv+lora", "learning_rate": 1e-2, "max_train_steps": 3}
        _, expected = finetune("plain", **options)
        _, lines = finetune("changed", **options, **option)
        assert losses(lines) == pytest.approx(losses(expected), rel=tolerance, abs=0)


class TestOptions:
    def test_bf16_keeps_what_is_trained_in_float32(self, finetune):
        folder, lines = finetune("bf16", mixed_precision="bf16", train="geoconv+lora", validation_prompts=["a hand"])
        files = (folder / "final").rglob("*.safetensors")
        dtypes = {name: value.dtype for file in files for name, value in load_file(file).items()}
        assert set(dtypes.values()) == {torch.float32}
        _, exact = finetune("float32", train="geoconv+lora")
        assert losses(lines) == pytest.approx(losses(exact), rel=0.05)
        assert losses(lines) != losses(exact)

    def test_prediction_type(self, finetune):
        _, epsilon = finetune("epsilon")
        _, velocity = finetune("velocity", prediction_type="v_prediction")
        assert losses(velocity) != losses(epsilon)

    def test_old_checkpoints_go(self, finetune):
        folder, _ = finetune("limit", max_train_steps=4, checkpointing_steps=1, checkpoints_total_limit=2)
        assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]

    def test_epochs_become_steps(self, finetune, model, images, tmp_path, capsys):
        folder = tmp_path / "epochs"
        AcceleratorState._reset_state(reset_partial_state=True)
        main(f"--model {model} --dataset {images} --output_dir {folder} --num_train_epochs 1.5 --dry_run".split())
        shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
        assert (shown["steps"], shown["samples_per_step"], shown["epochs"]) == ("4", "4", "1.6")
        assert (shown["images"], shown["resolution"]) == ("10", "32")
        assert (shown["train"], shown["trained_parameters"]) == ("geoconv", "976")
        base = sum(parameter.numel() for parameter in tiny_stable_diffusion().unet.parameters())
        assert shown["unet_parameters"] == str(base)
        memory = r"of a step\s+about 0\.\d\d GiB \(.*activations 0\.\d\d\) and 0\.\d\d of .*"
        assert re.fullmatch(memory, shown["memory"])
        assert not folder.exists()

    def test_files_of_a_run(self, finetune):
        folder, lines = finetune(
            "files",
            report_to="tensorboard",
            validation_prompts=["a hand", "a fist"],
            validation_steps=1,
            validation_inference_steps=1,
        )
        assert [line["step"] for line in lines] == [1, 2]
        grids = sorted(folder.glob("validation-*.png"))
        assert [grid.name for grid in grids] == [f"validation-{step:06d}.png" for step in (0, 1, 2)]
        assert Image.open(grids[0]).width > 2 * 32
        assert Image.open(folder / "losses.png").format == "PNG"
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["steps"] == 2
        assert summary["final_loss_mean"] == pytest.approx(np.mean(losses(lines)))
        assert summary["settings"]["dataset"]

        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder / "logs" / "finetune")).Reload()
        assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(lines))
        assert [event.step for event in events.Images("validation")] == [0, 1, 2]

    def test_a_continued_run_writes_into_the_same_folder_of_the_tracker(self, finetune):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        options = {"report_to": "tensorboard", "checkpointing_steps": 2}
        folder, _ = finetune("logs", max_train_steps=3, **options)
        shutil.rmtree(folder / "checkpoint-3")
        _, lines = finetune("logs", max_train_steps=5, resume_from_checkpoint="latest", **options)
        assert [path.relative_to(folder / "logs") for path in (folder / "logs").rglob("*") if path.is_dir()] == [
            Path("finetune")
        ]
        assert all(path.name.startswith("events") for path in (folder / "logs" / "finetune").iterdir())
        events = EventAccumulator(str(folder / "logs" / "finetune")).Reload()
        assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
        assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(lines))

    def test_validation_uses_the_guidance_that_the_model_recommends(self, finetune, model, tmp_path):
        options = {"validation_prompts": ["a hand"], "validation_inference_steps": 1, "max_train_steps": 1}
        shutil.copytree(model, tmp_path / "guided")
        (tmp_path / "guided" / "generation_config.json").write_text('{"guidance_scale": 1.5}')
        images = {}
        for name, more in {
            "default": {},
            "five": {"validation_guidance_scale": 5},
            "recommended": {"model": tmp_path / "guided"},
            "one and a half": {"validation_guidance_scale": 1.5},
        }.items():
            images[name] = (finetune(name, **options, **more)[0] / "validation-000001.png").read_bytes()
        assert images["default"] == images["five"] != images["recommended"] == images["one and a half"]

    def test_what_model_and_autoencoder_cannot_hold_is_said_once(self, finetune, caplog):
        folder, _ = finetune("warnings", validation_prompts=["a fist"], validation_inference_steps=1)
        warnings = [record.getMessage() for record in caplog.records]
        assert len([text for text in warnings if text.startswith("the autoencoder loses detail")]) == 1
        (words,) = [text for text in warnings if "vocabulary" in text]
        assert words.startswith("the model's vocabulary has no hand, with, fingers, fist;")
        assert 0 < json.loads((folder / "summary.json").read_text())["reconstruction_psnr"] < 30
