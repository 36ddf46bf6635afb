"""Text-to-image fine-tuning in two processes: gradients are averaged, and runs end and continue."""

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from script_loading import REPOSITORY

from geopos_diffusers.finetuning.engine import build_run
from geopos_diffusers.finetuning.text_to_image import TextToImage
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training.data_order import DataOrder
from geopos_diffusers.training.tracking import build_accelerator

SCRIPT = REPOSITORY / "scripts" / "finetune_text_to_image.py"
IMAGES = 10  # in the folder of the fixture `images`


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
