import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from script_loading import REPOSITORY
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_xl

from geopos_diffusers import geoconv_status, load_geoconv_weights, remove_geoconv
from geopos_diffusers.errors import ConfigError, DataError, GeoPosError
from geopos_diffusers.finetuning.engine import build_run
from geopos_diffusers.finetuning.part_options import LEARNING_RATES
from geopos_diffusers.finetuning.text_to_image import TextToImage, main
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.finetuning.trained_parts import add_trained_parts, parameter_groups
from geopos_diffusers.training.data_order import DataOrder
from geopos_diffusers.training.tracking import build_accelerator

SCRIPT = REPOSITORY / "scripts" / "finetune_text_to_image.py"
IMAGES = 10  # in the folder of the fixture `images`


def losses(lines: list[dict]) -> list[float]:
    return [line["loss"] for line in lines]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors below a folder, by file and name."""
    return {
        f"{file.relative_to(folder)}:{name}": value
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


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
        options = {"train": train, "learning_rate": 1e-2, "lora_alpha": 3, "lora_rank": 2}
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


class TestResume:
    OPTIONS = {  # noqa: RUF012
        "gradient_accumulation_steps": 2,
        "max_train_steps": 5,
        "checkpointing_steps": 3,
        "use_ema": True,
        "learning_rate": 1e-2,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 2,
        "snr_gamma": 5,
        "noise_offset": 0.1,
    }

    @pytest.mark.parametrize("train", ["geoconv+lora", "full"])
    def test_continues_bit_for_bit_in_the_middle_of_an_epoch(self, finetune, tmp_path, train):
        options = {**self.OPTIONS, "train": train}
        whole, expected = finetune("whole", **options)
        shutil.copytree(whole, tmp_path / "cut")
        shutil.rmtree(tmp_path / "cut" / "checkpoint-5")
        torch.rand(3)  # a continued run must not depend on the state it starts in
        cut, lines = finetune("cut", resume_from_checkpoint="latest", **options)
        assert lines == expected
        assert len(lines) == 5
        before, after = tensors(whole / "checkpoint-5"), tensors(cut / "checkpoint-5")
        assert before.keys() == after.keys()
        assert [name for name in before if not torch.equal(before[name], after[name])] == []

    def test_a_finished_run_stays_as_it_is(self, finetune):
        _, expected = finetune("done")
        again, lines = finetune("done", resume_from_checkpoint="checkpoint-2")
        assert lines == expected
        assert json.loads((again / "summary.json").read_text())["first_step"] == 2

    @pytest.mark.parametrize("options", [{"resume_from_checkpoint": "latest"}, {"overwrite": True}])
    def test_what_a_killed_run_left_is_removed(self, finetune, options):
        folder, expected = finetune("killed")
        program = (
            "import os, signal, sys\n"
            "from geopos_diffusers.files import atomic_directory\n"
            "with atomic_directory(sys.argv[1]) as folder:\n"
            "    (folder / 'weights.bin').write_bytes(bytes(1000))\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        for name in ("checkpoint-7", "final"):
            subprocess.run([sys.executable, "-c", program, str(folder / name)], check=False)
        assert len(list(folder.glob(".*/weights.bin"))) == 2
        assert finetune("killed", **options)[1] == expected
        assert list(folder.glob(".*")) == []

    def test_other_settings_are_refused(self, finetune):
        finetune("settings", train="geoconv")
        with pytest.raises(ConfigError, match='made with train="geoconv"; this run has train="lora"'):
            finetune("settings", train="lora", resume_from_checkpoint="latest")
        with pytest.raises(ConfigError, match=r'this run has training_rates=\{"geoconv": 1\.0\}'):
            finetune("settings", train="geoconv", learning_rate=1, resume_from_checkpoint="latest")

    def test_other_settings_are_noticed_before_anything_is_loaded(self, finetune, images, tmp_path):
        options = {"train": "geoconv", "lr_scheduler": "cosine"}
        finetune("early", **options)
        changes = {
            "seed=0": {"seed": 1},
            'train="geoconv"': {"train": "full"},
            "resolution=32": {"resolution": 16},
            "training_rates": {"learning_rate": 1},
            "lr_schedule_steps=2": {"max_train_steps": 4},
        }
        for before, change in changes.items():
            with pytest.raises(ConfigError, match=f"was made with {before}"):
                finetune("early", dataset=tmp_path / "gone", resume_from_checkpoint="latest", **options | change)

    def test_other_data_are_noticed_before_they_are_encoded(self, finetune, tmp_path):
        finetune("data")
        latents = {"cache_latents": True, "latents_folder": tmp_path / "latents"}
        with pytest.raises(ConfigError, match="was made with data="):
            finetune("data", max_train_samples=5, resume_from_checkpoint="latest", **latents)
        assert not (tmp_path / "latents").exists()

    def test_a_schedule_never_changes_by_making_a_run_longer(self, finetune):
        options = {"train": "geoconv", "lr_scheduler": "cosine"}
        finetune("longer", **options)
        with pytest.raises(ConfigError, match="made with lr_schedule_steps=2; this run has lr_schedule_steps=4"):
            finetune("longer", max_train_steps=4, resume_from_checkpoint="latest", **options)
        planned = options | {"lr_schedule_steps": 4}
        _, expected = finetune("whole", max_train_steps=4, **planned)
        finetune("planned", **planned)
        _, lines = finetune("planned", max_train_steps=4, resume_from_checkpoint="latest", **planned)
        assert lines == expected
        finetune("constant", train="geoconv")
        _, lines = finetune("constant", train="geoconv", max_train_steps=4, resume_from_checkpoint="latest")
        assert [line["learning_rate_geoconv"] for line in lines] == [LEARNING_RATES["geoconv"]] * 4

    def test_damaged_state_is_refused(self, finetune):
        folder, _ = finetune("damaged")
        file = folder / "checkpoint-2" / "training_state" / "optimizer.safetensors"
        file.write_bytes(file.read_bytes()[:50])
        with pytest.raises(GeoPosError, match=r"optimizer\.safetensors is missing or damaged"):
            finetune("damaged", resume_from_checkpoint="latest", max_train_steps=3)

    def test_nothing_to_resume(self, finetune):
        with pytest.raises(ConfigError, match="holds no checkpoint"):
            finetune("nothing", resume_from_checkpoint="latest")

    def test_a_run_that_is_there_is_continued_unless_it_is_to_be_overwritten(self, finetune, tmp_path):
        whole, expected = finetune("kept", max_train_steps=3, checkpointing_steps=2)
        shutil.rmtree(whole / "checkpoint-3")
        state = whole / "checkpoint-2" / "training_state" / "state.json"
        before = state.stat().st_mtime_ns
        assert finetune("kept", max_train_steps=3, checkpointing_steps=2)[1] == expected
        assert state.stat().st_mtime_ns == before
        with pytest.raises(ConfigError, match=r"made with seed=0; .* or here with --overwrite"):
            finetune("kept", seed=1)
        assert finetune("kept", max_train_steps=3, checkpointing_steps=2, overwrite=True)[1] == expected
        assert state.stat().st_mtime_ns > before


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
        dtypes = {name: value.dtype for name, value in tensors(folder / "final").items()}
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


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"train": "everything"}, "train must be one or more of geoconv, bias, lora, full"),
            ({"learning_rate": -1}, "learning_rate must be a number > 0; got -1.0"),
            ({"train_batch_size": 0}, "train_batch_size must be a whole number >= 1; got 0"),
            ({"encoding": "spiral"}, "encoding must be one of product"),
            ({"target_modules": ["no_such_layer"]}, "no_such_layer"),
            ({"train": "lora", "lora_target_modules": ["no_such_layer"]}, "no_such_layer"),
            ({"report_to": "paper"}, "report_to must be none or one of"),
            ({"random_flip": True, "cache_latents": True}, "cannot go with cache_latents"),
            ({"resolution": 31}, "size must be a multiple of 2"),
            ({"dataset": "./no/such/folder"}, "no image folder or Parquet file"),
            ({"caption_column": "caption"}, "no field 'caption'; found file_name, text"),
            ({"model": "./no_such_model"}, "no_such_model"),
            ({"mixed_precision": "fp16"}, "fp16 needs a GPU"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_one_clear_message(self, finetune, options, message):
        if options.get("mixed_precision") == "fp16" and torch.cuda.is_available():
            pytest.skip("fp16 works here")
        with pytest.raises(GeoPosError, match=message):
            finetune("bad", **options)

    def test_an_unsupported_pipeline(self, finetune, tmp_path):
        from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

        unet = UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        )
        DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
        with pytest.raises(ConfigError, match="DDPMPipeline cannot be fine-tuned here; supported are"):
            finetune("ddpm", model=tmp_path / "ddpm")

    def test_corrupt_images_are_skipped_and_counted(self, finetune, images, tmp_path, caplog):
        folder = tmp_path / "corrupt"
        shutil.copytree(images, folder)
        (folder / "3.png").write_bytes(b"not an image")
        run, lines = finetune("corrupt_run", dataset=folder, cache_latents=True)
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["images"], summary["skipped_images"]) == (IMAGES - 1, 1)
        assert "3.png" in caplog.text
        assert "1 of 10 images cannot be read" in caplog.text
        assert len(lines) == 2

    def test_no_readable_image(self, finetune, tmp_path):
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "a hand"}\n')
        with pytest.raises(DataError, match=r"none of 1 images can be read; the first: .*gone\.png"):
            finetune("unreadable", dataset=tmp_path)

    @pytest.mark.slow
    def test_exit_code_2_and_one_line_when_run_directly(self, tmp_path):
        command = [sys.executable, str(SCRIPT), "--dataset", str(tmp_path), "--output_dir", str(tmp_path / "o")]
        done = subprocess.run([*command, "--train", "x", "--max_train_steps", "1"], capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("finetune_text_to_image.py: error: train must be one or more of")
        assert "Traceback" not in done.stderr


@pytest.mark.slow
class TestTwoProcesses:
    """Real processes on the CPU, started by `accelerate launch` and by torchrun."""

    STEPS = 4

    def launch(self, launcher: list[str], folder: Path, model: Path, images: Path, *options: str) -> list[dict]:
        command = [*launcher, str(SCRIPT), "--model", model, "--dataset", images, "--output_dir", folder]
        command += ["--max_train_steps", self.STEPS, "--train_batch_size", 2, "--gradient_accumulation_steps", 2]
        command += ["--report_to", "none", "--checkpointing_steps", 2, "--train", "geoconv+lora"]
        done = subprocess.run([*map(str, command), *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads((folder / "summary.json").read_text())["processes"] == 2
        assert done.stdout.count("the trained weights are in") == 1
        return [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]

    def test_gradients_are_averaged_and_runs_continue(self, model, images, tmp_path):
        python = [sys.executable, "-m"]
        accelerate = [*python, "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
        torchrun = [*python, "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        whole = tmp_path / "whole"
        expected = self.launch(accelerate, whole, model, images)
        assert [line["step"] for line in expected] == [1, 2, 3, 4]
        assert all(math.isfinite(line["loss"]) for line in expected)
        states = load_file(whole / "checkpoint-2" / "training_state" / "random_states.safetensors")["cpu"]
        assert len(states) == 2
        assert not torch.equal(states[0], states[1])

        cut = tmp_path / "cut"
        shutil.copytree(whole, cut)
        shutil.rmtree(cut / "checkpoint-4")
        assert self.launch(torchrun, cut, model, images, "--resume_from_checkpoint", "latest") == expected

        loss, norm = self.first_step_by_hand(model, images)
        assert expected[0]["loss"] == pytest.approx(loss, rel=1e-5)
        assert expected[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)

    def test_nothing_holds_the_group_that_a_process_leaves(self, model, images, tmp_path):
        """While torch's wrapper for several processes held it, a run hung at its end now and then (see `end_run`)."""
        program = tmp_path / "watched.py"
        program.write_text(
            "import gc, runpy, sys\n"
            "import torch.distributed as distributed\n"
            "from torch.nn.parallel import DistributedDataParallel\n"
            "leave = distributed.destroy_process_group\n"
            "def watched(*group):\n"
            "    held = sum(type(item) is DistributedDataParallel for item in gc.get_objects())\n"
            "    print('wrappers', held, flush=True)\n"
            "    leave(*group)\n"
            "distributed.destroy_process_group = watched\n"
            "sys.argv = sys.argv[1:]\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        )
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        options = ["--model", model, "--dataset", images, "--output_dir", tmp_path / "run", "--max_train_steps", 1]
        command = map(str, [*torchrun, program, SCRIPT, *options])
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        assert re.findall(r"wrappers (\d+)", done.stdout) == ["0", "0"]

    def first_step_by_hand(self, model: Path, images: Path) -> tuple[float, float]:
        """Mean loss and norm of the mean gradient over what the two processes see in the first step."""
        AcceleratorState._reset_state(reset_partial_state=True)
        arguments = TextToImageArguments(
            model=str(model),
            dataset=str(images),
            output_dir="unused",
            train="geoconv+lora",
            train_batch_size=2,
            gradient_accumulation_steps=2,
            max_train_steps=self.STEPS,
            report_to="none",
        )
        task = TextToImage(arguments, build_accelerator("unused", "no", 1, "none"))
        build_run(task)
        order = list(DataOrder(IMAGES, 0, 8, arguments.seed))
        total = 0.0
        for process in range(2):
            torch.manual_seed(arguments.seed + process)
            for turn in range(2):
                # Batches are dealt in turn: 0 and 2 to the first process, 1 and 3 to the second.
                start = 2 * (2 * turn + process)
                samples = [task.data[index] for index in order[start : start + 2]]
                loss = task.losses(torch.utils.data.default_collate(samples))["loss"] / 4
                loss.backward()
                total += loss.item()
        return total, torch.nn.utils.clip_grad_norm_(task.parameters.values(), 1e9).item()
