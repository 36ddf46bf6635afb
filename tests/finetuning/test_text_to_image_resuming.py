"""Text-to-image runs that are continued: bit for bit, with the same settings, whatever was left behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geopos_diffusers.errors import ConfigError, GeoPosError
from geopos_diffusers.finetuning.part_options import LEARNING_RATES


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors below a folder, by file and name."""
    return {
        f"{file.relative_to(folder)}:{name}": value
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


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
