import pytest
from PIL import Image

from geopos_diffusers.training.loss_log import LossLog, draw_loss_curve, read_losses, running_mean


def test_a_resumed_log_drops_the_steps_that_come_again(tmp_path):
    log = LossLog(tmp_path)
    for step in range(1, 6):
        log.append(step=step, loss=1 / step)
    LossLog(tmp_path, step=3).append(step=4, loss=9.0)
    assert [(line["step"], line["loss"]) for line in read_losses(log.path)] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
        (4, 9.0),
    ]


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path):
    log = LossLog(tmp_path)
    log.append(step=1, loss=0.5)
    with log.path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_losses(log.path) == [{"step": 1, "loss": 0.5}]
    LossLog(tmp_path, step=1)
    assert log.path.read_text().count("\n") == 1


def test_a_new_run_starts_empty(tmp_path):
    LossLog(tmp_path).append(step=1, loss=0.5)
    assert read_losses(LossLog(tmp_path).path) == []


def test_running_mean():
    assert running_mean([1.0, 2.0, 3.0, 4.0], 2) == pytest.approx([1.0, 1.5, 2.5, 3.5])


def test_curve(tmp_path):
    draw_loss_curve([{"step": step, "loss": 1 / step} for step in range(1, 50)], tmp_path / "losses.png")
    assert Image.open(tmp_path / "losses.png").size == (840, 420)
