"""`geopos train` on two real CPU processes: sharded by FSDP2, continued by other numbers of processes, interrupted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from two_processes import PARALLEL, SHARDED, ZERO

from geopos_diffusers.finetuning.engine import build_run
from geopos_diffusers.finetuning.text_to_image import TextToImage
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training.checkpoints import list_checkpoints, load_checkpoint
from geopos_diffusers.training.data_order import DataOrder
from geopos_diffusers.training.loss_log import read_losses
from geopos_diffusers.training.tracking import build_accelerator

pytestmark = pytest.mark.slow

TRAIN = (sys.executable, "-m", "geopos_diffusers.cli.main", "train")


@pytest.fixture
def start(model, images, tmp_path):
    """start("name", launcher options, option=value, ...) -> a process that trains in tmp_path / "name"."""

    def start(name: str, launcher: tuple[str, ...] = (), **options) -> subprocess.Popen:
        options = {
            "model": model,
            "dataset": images,
            "output_dir": tmp_path / name,
            "report_to": "none",
            "train_batch_size": 2,
            "max_train_steps": 4,
            "checkpointing_steps": 2,
            "learning_rate": 1e-2,
            **options,
        }
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return subprocess.Popen(
            [*TRAIN, *launcher, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture
def run(start, tmp_path):
    """The same to its end: returns the lines of losses.jsonl and what was printed."""

    def run(name: str, launcher: tuple[str, ...] = (), **options) -> tuple[list[dict], str]:
        process = start(name, launcher, **options)
        output, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]
        return read_losses(tmp_path / name / "losses.jsonl"), output

    return run


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(folder)}:{name}": value
        for file in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def from_the_middle(folder: Path, name: str) -> None:
    """Copy a run as if it had been killed after step 2."""
    shutil.copytree(folder, folder.with_name(name))
    shutil.rmtree(folder.with_name(name) / "checkpoint-4")


@pytest.mark.parametrize(
    ("train", "more"),
    [
        ("geoconv+lora", {"use_ema": "true", "gradient_accumulation_steps": 2, "validation_prompts": "a hand"}),
        ("geoconv+full", {"use_ema": "true", "gradient_checkpointing": "true"}),
        ("lora+bias", {"mixed_precision": "bf16"}),
        ("full", {"mixed_precision": "bf16"}),
    ],
)
def test_sharded_is_data_parallel_and_continues_bit_for_bit(run, tmp_path, train, more):
    more = {"train": train, "validation_inference_steps": 1, **more}
    parallel, _ = run("parallel", PARALLEL, **more)
    sharded, _ = run("sharded", SHARDED, **more)
    # Rounding in bf16 is that of other products: weights are cast block by block.
    tolerance = 1e-5 if "mixed_precision" not in more else 2e-2
    for one, other in zip(sharded, parallel, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=tolerance)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=tolerance * 10)
    first, second = (tensors(tmp_path / name / "final") for name in ("sharded", "parallel"))
    assert first.keys() == second.keys()
    if "mixed_precision" not in more:
        worst = max((first[name] - second[name]).abs().max().item() for name in first)
        assert worst < 1e-3  # AdamW's first steps are of the rate's size whatever the gradient's
    assert {file.suffix for file in (tmp_path / "sharded").rglob("*") if file.is_file()} <= {
        ".safetensors", ".json", ".jsonl", ".md", ".png"
    }  # fmt: skip

    from_the_middle(tmp_path / "sharded", "cut")
    again, _ = run("cut", SHARDED, **more)
    assert again == sharded
    before, after = tensors(tmp_path / "sharded" / "checkpoint-4"), tensors(tmp_path / "cut" / "checkpoint-4")
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize(
    ("train", "more"),
    [
        ("geoconv+lora", {"use_ema": "true", "gradient_accumulation_steps": 2}),
        ("geoconv+full", {"optimizer": "sgd", "optimizer_arguments": "momentum=0.9", "max_grad_norm": 0.01}),
        ("bias", {"mixed_precision": "bf16", "gradient_checkpointing": "true"}),
    ],
)
def test_zero_is_data_parallel_and_continues_bit_for_bit(run, tmp_path, train, more):
    pytest.importorskip("deepspeed")
    more = {"train": train, **more}
    parallel, _ = run("parallel", PARALLEL, **more)
    spread, _ = run("spread", ZERO, **more)
    for one, other in zip(spread, parallel, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    first, second = (tensors(tmp_path / name / "checkpoint-4") for name in ("spread", "parallel"))
    assert first.keys() == second.keys()
    assert {file.suffix for file in (tmp_path / "spread").rglob("*") if file.is_file()} <= {
        ".safetensors", ".json", ".jsonl", ".md", ".png"
    }  # fmt: skip
    moments = [name for name in first if "optimizer.safetensors" in name and "step" not in name]
    assert moments
    for name in moments:
        assert torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-6), name

    from_the_middle(tmp_path / "spread", "cut")
    again, _ = run("cut", ZERO, **more)
    assert again == spread
    after = tensors(tmp_path / "cut" / "checkpoint-4")
    assert [name for name in first if not torch.equal(first[name], after[name])] == []


@pytest.mark.parametrize(
    ("before", "after"),
    [((PARALLEL, 2), ((), 4)), (((), 4), (PARALLEL, 2)), ((SHARDED, 2), ((), 4)), ((ZERO, 2), ((), 4))],
    ids=["2 to 1", "1 to 2", "sharded to 1", "zero to 1"],
)
def test_another_number_of_processes_sees_the_same_images(run, model, images, tmp_path, before, after):
    if ZERO in (before[0], after[0]):
        pytest.importorskip("deepspeed")
    options = {"max_train_steps": 3, "checkpointing_steps": 2, "train": "geoconv+lora"}
    whole, _ = run("run", before[0], train_batch_size=before[1], **options)
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    lines, output = run("run", after[0], train_batch_size=after[1], **options)
    was, now = (2 if launcher else 1 for launcher, _ in (before, after))
    assert f"saved with {was} processes, 1 batches a step; continued with {now} processes, 1 batches a step" in output
    assert "noise differs from an undisturbed run, the order of the data does not" in output
    assert lines[:2] == whole[:2]
    saved = json.loads((tmp_path / "run" / "checkpoint-3" / "training_state" / "state.json").read_text())
    assert (saved["settings"]["samples_per_step"], saved["processes"]) == (4, now)
    expected = third_step_by_hand(tmp_path / "run" / "checkpoint-2", model, images, now)
    assert lines[2]["loss"] == pytest.approx(expected, rel=1e-5)


def third_step_by_hand(checkpoint: Path, model: Path, images: Path, processes: int) -> float:
    """The mean loss of the third step's four images, drawn as that many processes draw them from the checkpoint."""
    AcceleratorState._reset_state(reset_partial_state=True)
    arguments = TextToImageArguments(
        model=str(model), dataset=str(images), output_dir="unused", train="geoconv+lora", train_batch_size=4,
        max_train_steps=3, learning_rate=1e-2, report_to="none",
    )  # fmt: skip
    task = TextToImage(arguments, build_accelerator("unused", "no", 1, "none"))
    state = build_run(task).state
    load_checkpoint(state, checkpoint)
    known = load_file(checkpoint / "training_state" / "random_states.safetensors")["cpu"]
    order, size, total = list(DataOrder(len(task.data), 8, 12, seed=0)), 4 // processes, 0.0
    for process in range(processes):
        if process < len(known):
            torch.set_rng_state(known[process])
        else:  # of a process that there was not
            torch.manual_seed(2 * 1_000_003 + process)  # step 2 of seed 0
        samples = [task.data[index] for index in order[process * size : (process + 1) * size]]
        total += task.losses(torch.utils.data.default_collate(samples))["loss"].item() / processes
    return total


def test_other_samples_a_step_and_other_sharding_are_refused(start, run):
    run("run", PARALLEL)
    process = start("run")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 2
    assert "was made with samples_per_step=4; this run has samples_per_step=2" in errors
    process = start("other", ("--num_processes", "2", "--use_fsdp", "--fsdp_version", "1"))
    _, errors = process.communicate(timeout=900)
    assert process.returncode
    assert len(re.findall("error: the first version of FSDP is not supported here; add --fsdp_version 2", errors)) == 1


@pytest.mark.parametrize(
    ("launcher", "number"), [(SHARDED, signal.SIGINT), (PARALLEL, signal.SIGTERM)], ids=["sharded", "data parallel"]
)
def test_a_signal_to_all_processes_saves_a_checkpoint(start, run, tmp_path, launcher, number):
    folder, more = tmp_path / "run", {"checkpointing_steps": 2000, "train": "geoconv+lora"}
    process = start("run", launcher, max_train_steps=2000, **more)
    for _ in range(1500):
        if len(read_losses(folder / "losses.jsonl")) >= 3:
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=300)
    (checkpoint,) = list_checkpoints(folder)
    steps = int(checkpoint.name.removeprefix("checkpoint-"))
    assert f"fine-tuning: stopped at step {steps} of 2000; saved {checkpoint}" in output, errors[-3000:]
    assert process.returncode not in (0, 2)
    lines, _ = run("run", launcher, max_train_steps=steps + 2, **more)
    assert [line["step"] for line in lines] == [*range(1, steps + 3)]
