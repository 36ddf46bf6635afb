"""What of DeepSpeed is refused at once; what it computes is in finetuning/test_several_processes.py."""

import os
from importlib.util import find_spec

import pytest

from geopos_diffusers.errors import ConfigError, MissingDependencyError
from geopos_diffusers.training.tracking import build_accelerator
from geopos_diffusers.training.zero import FLAG, asks_for_zero


@pytest.fixture
def launched(monkeypatch):
    """launched(STAGE="2", ...): the environment that `accelerate launch --use_deepspeed` leaves."""

    def launch(**values: str) -> None:
        monkeypatch.setenv(FLAG, "true")
        for name, value in values.items():
            monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)

    return launch


def test_nothing_is_asked_for_by_other_launchers(monkeypatch):
    monkeypatch.delenv(FLAG, raising=False)
    assert not asks_for_zero()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ZERO_STAGE": "3"}, "zero_stage 3 is not supported"),
        ({"ZERO_STAGE": "2", "OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device is not supported"),
        ({"ZERO_STAGE": "2", "OFFLOAD_PARAM_DEVICE": "nvme"}, "offload_param_device is not supported"),
        ({"CONFIG_FILE": "zero.json"}, "a file for DeepSpeed is not supported"),
    ],
)
def test_other_forms_are_refused(launched, tmp_path, values, message):
    launched(**values)
    with pytest.raises(ConfigError, match=message):
        build_accelerator(tmp_path, "no", 1, "none")
    assert os.environ[FLAG] == "true"


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_the_missing_package_is_named(launched):
    launched(ZERO_STAGE="2", OFFLOAD_OPTIMIZER_DEVICE="none", OFFLOAD_PARAM_DEVICE="none")
    with pytest.raises(MissingDependencyError, match="deepspeed"):
        asks_for_zero()
