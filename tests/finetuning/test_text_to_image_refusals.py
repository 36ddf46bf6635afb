"""Options and data that fine-tuning refuses, in one line, or skips and counts."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from script_loading import REPOSITORY

from geopos_diffusers.errors import ConfigError, DataError, GeoPosError

SCRIPT = REPOSITORY / "scripts" / "finetune_text_to_image.py"
IMAGES = 10  # in the folder of the fixture `images`


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
