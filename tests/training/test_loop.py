import math
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn

from geopos_diffusers.errors import ConfigError, DivergedError
from geopos_diffusers.training import interruption
from geopos_diffusers.training.checkpoints import TrainingState, list_checkpoints
from geopos_diffusers.training.gradient_step import GradientStep
from geopos_diffusers.training.loop import Training, Validation, train, training_folder
from geopos_diffusers.training.loss_log import read_losses
from geopos_diffusers.training.progress import readable_time


def make_training(
    folder: Path, ema: bool = True, accumulation: int = 1, batch: int = 2, noise: float = 0.1, **changes
) -> Training:
    """A linear layer that learns a sum, with noise of torch's global generator in its inputs."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    model, optimizer = accelerator.prepare(*(model := nn.Linear(3, 1), torch.optim.AdamW(model.parameters(), lr=0.1)))
    parameters = dict(model.named_parameters())
    average = EMAModel(parameters.values(), decay=0.9) if ema else None
    state = TrainingState(accelerator, parameters, optimizer, average, {"rate": 0.1})
    data = torch.randn(100, 3, generator=torch.Generator().manual_seed(1))

    def batches(first):
        for number in range(first * accumulation, 100):
            yield data[batch * number : batch * (number + 1)]

    def losses(inputs):
        noisy = inputs + noise * torch.randn_like(inputs)
        return {"loss": (model(noisy) - inputs.sum(1, keepdim=True)).square().mean()}

    step = GradientStep(state, model, losses, batches, lambda group, number: 0.1 / (number + 1), max_grad_norm=1.0)
    values = {"name": "sum", "folder": folder, "state": state, "steps": 6, "step": step, "checkpoint_every": 2}
    return Training(**values | {"save_parts": lambda target: save_parts(parameters, target)} | changes)


def save_parts(parameters, folder: Path) -> None:
    save_file({name: value.detach().clone() for name, value in parameters.items()}, folder / "parts.safetensors")


def newest(folder: Path) -> Path:
    return list_checkpoints(folder)[-1]


class TestRun:
    def test_logs_saves_and_keeps_the_newest(self, tmp_path, capsys):
        outcome = train(make_training(tmp_path, checkpoints_limit=2))
        lines = read_losses(tmp_path / "losses.jsonl")
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
        assert [line["learning_rate"] for line in lines] == pytest.approx([0.1 / number for number in range(1, 7)])
        assert all(line.keys() == {"step", "loss", "learning_rate", "grad_norm"} for line in lines)
        assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-4", "checkpoint-6"]
        assert (outcome.first_step, outcome.step) == (0, 6)
        assert (tmp_path / "losses.png").is_file()

    def test_validates_by_the_average_and_leaves_the_weights(self, tmp_path):
        seen = {}

        def validate(step):
            seen[step] = {name: value.detach().clone() for name, value in training.state.parameters.items()}
            return {"weight": seen[step]["weight"].sum().item()}

        training = make_training(tmp_path, steps=3, validations=[Validation(validate, every=2, first=True)])
        outcome = train(training)
        assert list(seen) == [0, 2, 3]
        average = load_file(newest(tmp_path) / "training_state" / "ema.safetensors")
        assert all(torch.equal(seen[3][name], value) for name, value in average.items())
        assert not any(torch.equal(training.state.parameters[name], value) for name, value in average.items())
        assert outcome.scores == {"weight": average["weight"].sum().item()}

    def test_a_stopped_run_continues_exactly(self, tmp_path, capsys):
        train(make_training(tmp_path / "whole"))
        assert train(make_training(tmp_path / "parts", stop_at=3)).step == 3
        assert "resuming" not in capsys.readouterr().out
        train(make_training(tmp_path / "parts"), newest(tmp_path / "parts"))
        assert "sum: resuming from checkpoint-3, step 3 of 6" in capsys.readouterr().out
        assert_same_run(tmp_path / "whole", tmp_path / "parts")

    def test_times_are_added_up(self, tmp_path):
        ticks = iter(range(100))
        for stop in (2, 4):
            checkpoint = newest(tmp_path) if stop > 2 else None
            outcome = train(make_training(tmp_path, stop_at=stop, clocks={"ticks": lambda: next(ticks)}), checkpoint)
        assert [line["ticks"] for line in read_losses(tmp_path / "losses.jsonl")] == [1, 2, 3, 4]
        assert outcome.times == {"ticks": 4}

    def test_quiet(self, tmp_path, capfd):
        train(make_training(tmp_path, quiet=True, validations=[Validation(lambda step: {"score": 1.0})]))
        assert capfd.readouterr() == ("", "")
        assert not (tmp_path / "losses.png").exists()

    def test_two_runs_never_share_a_folder(self, tmp_path):
        accelerator = Accelerator(cpu=True)
        with training_folder(tmp_path, accelerator):
            other = training_folder(tmp_path, accelerator)
            with pytest.raises(ConfigError, match="in use by another run"):
                other.__enter__()


def assert_same_run(first: Path, second: Path) -> None:
    assert read_losses(first / "losses.jsonl") == read_losses(second / "losses.jsonl")
    for file in newest(first).rglob("*.safetensors"):
        other = load_file(newest(second) / file.relative_to(newest(first)))
        assert all(torch.equal(value, other[name]) for name, value in load_file(file).items())


def test_accumulated_batches_are_one_batch(tmp_path):
    runs = []
    for name, accumulation in (("one", 1), ("four", 4)):
        training = make_training(tmp_path / name, accumulation=accumulation, batch=8 // accumulation, steps=3, noise=0)
        train(training)
        runs.append((read_losses(tmp_path / name / "losses.jsonl"), training.state.parameters["weight"].detach()))
    (whole, weight), (parts, other) = runs
    assert [line["loss"] for line in parts] == pytest.approx([line["loss"] for line in whole], rel=1e-5)
    assert [line["grad_norm"] for line in parts] == pytest.approx([line["grad_norm"] for line in whole], rel=1e-5)
    torch.testing.assert_close(other, weight)


@pytest.mark.parametrize("name", ["loss", "generator_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(tmp_path, name, value):
    training = make_training(tmp_path, ema=False)
    training.step = lambda number: {name: value if number == 3 else 0.5, "grad_norm": math.inf}
    message = f"sum: the {name.replace('_', ' ')} is {value} at step 4; try a lower learning rate"
    with pytest.raises(DivergedError, match=message):
        train(training)
    assert [line["step"] for line in read_losses(tmp_path / "losses.jsonl")] == [1, 2, 3]
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2"]


class TestInterruption:
    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_finishes_the_step_saves_and_continues_exactly(self, tmp_path, capsys, number, code):
        train(make_training(tmp_path / "whole"))
        training = make_training(tmp_path / "cut")
        step = training.step

        def interrupted(index):
            if index == 2:
                os.kill(os.getpid(), number)
            return step(index)

        training.step = interrupted
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        with pytest.raises(SystemExit) as stop:
            train(training)
        assert stop.value.code == code
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert capsys.readouterr().out.splitlines()[-2:] == [
            f"sum: stopped at step 3 of 6; saved {tmp_path / 'cut' / 'checkpoint-3'}",
            "run the same command again, without --overwrite, to continue",
        ]
        train(make_training(tmp_path / "cut"), newest(tmp_path / "cut"))
        assert_same_run(tmp_path / "whole", tmp_path / "cut")

    def test_a_second_ctrl_c_ends_the_run_at_once(self, tmp_path, monkeypatch):
        monkeypatch.setattr(interruption, "AGAIN", 0.0)
        training = make_training(tmp_path)

        def step(index):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not reached")

        training.step = step
        with pytest.raises(KeyboardInterrupt):
            train(training)
        assert list_checkpoints(tmp_path) == []


class TestFetching:
    """Values stay on the device until they are logged: what a GPU would have to wait for does not happen in between."""

    def test_a_step_reads_no_value(self, tmp_path):
        """Reads of tensors as numbers, counted by torch's profiler, outside the optimizer's own of its CPU counters."""
        counts = {}
        for steps in (20, 40):
            training = make_training(tmp_path / str(steps), steps=steps, checkpoint_every=1000, log_every=10)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
                train(training)
            counts[steps] = sum(
                event.name == "aten::_local_scalar_dense" and not within_optimizer(event) for event in profiler.events()
            )
        assert counts[20] == counts[40]

    def test_the_log_has_every_step(self, tmp_path):
        for name, every in (("each", 1), ("rarely", 4)):
            train(make_training(tmp_path / name, log_every=every, checkpoint_every=100))
        assert_same_run(tmp_path / "each", tmp_path / "rarely")

    @pytest.mark.parametrize("stage", ["checkpoint", "validation", "log", "end"])
    def test_nothing_is_saved_or_validated_after_a_loss_that_is_not_finite(self, tmp_path, stage):
        seen = []
        training = make_training(
            tmp_path,
            steps=5 if stage == "end" else 20,
            checkpoint_every=5 if stage == "checkpoint" else 100,
            validations=[Validation(lambda step: seen.append(step) or {}, every=5 if stage == "validation" else 100)],
            log_every=5 if stage == "log" else 100,
        )
        step = training.step
        training.step = lambda number: {"loss": torch.tensor(math.nan)} if number >= 2 else step(number)
        with pytest.raises(DivergedError, match="the loss is nan at step 3"):
            train(training)
        assert [line["step"] for line in read_losses(tmp_path / "losses.jsonl")] == [1, 2]
        assert list_checkpoints(tmp_path) == []
        assert seen == []

    def test_lines_that_were_not_written_are_made_again(self, tmp_path):
        """As after a kill: what was not fetched is lost, and comes back with the steps."""
        train(make_training(tmp_path / "whole", checkpoint_every=2))
        training = make_training(tmp_path / "killed", checkpoint_every=2, log_every=100)
        step = training.step

        def killed(number):
            if number == 5:
                raise RuntimeError("killed")
            return step(number)

        training.step = killed
        with pytest.raises(RuntimeError, match="killed"):
            train(training)
        assert len(read_losses(tmp_path / "killed" / "losses.jsonl")) == 4
        train(make_training(tmp_path / "killed", checkpoint_every=2), newest(tmp_path / "killed"))
        assert_same_run(tmp_path / "whole", tmp_path / "killed")


def within_optimizer(event) -> bool:
    while event is not None:
        if event.name.startswith("Optimizer."):
            return True
        event = event.cpu_parent
    return False


class TestProgress:
    def test_lines_of_means_where_no_terminal_is(self, tmp_path, capsys):
        train(make_training(tmp_path, steps=6, log_every=4, checkpoint_every=3))
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
        losses = [line["loss"] for line in read_losses(tmp_path / "losses.jsonl")]
        assert [line.split("  ")[0] for line in lines] == ["step 4/6", "step 6/6"]
        assert lines[0].split("  ")[1] == f"loss {sum(losses[:4]) / 4:.4f} (mean of 4)"
        assert lines[1].split("  ")[1] == f"loss {sum(losses[4:]) / 2:.4f} (mean of 2)"
        pattern = r"step 4/6  loss \S+ \(mean of 4\)  lr 0\.025  grad \S+  \S+ it/s  ETA 0:00"
        assert re.fullmatch(pattern, lines[0])

    @pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (63, "1:03"), (7209, "2:00:09")])
    def test_times(self, seconds, text):
        assert readable_time(seconds) == text


def test_validations_may_end_a_training(tmp_path, capsys):
    done = []
    validations = [Validation(lambda step: done.append(step) or {}, every=2), Validation(lambda step: {"last": step})]
    training = make_training(tmp_path, validations=validations, stopping=lambda: len(done) == 2, checkpoint_every=100)
    outcome = train(training)
    assert (outcome.step, outcome.scores) == (4, {"last": 4})
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-4"]
    assert "sum: ended early at step 4 of 6" in capsys.readouterr().out
