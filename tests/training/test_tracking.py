"""The accelerator that scripts set up."""

import logging

import pytest
from accelerate.state import AcceleratorState

from geopos_diffusers.training.tracking import build_accelerator, computes_bfloat16


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_processor_without_bfloat16_is_named(precision, tmp_path, caplog):
    AcceleratorState._reset_state(reset_partial_state=True)
    with caplog.at_level(logging.WARNING):
        accelerator = build_accelerator(str(tmp_path), precision, 1, "none")
    on_cpu = accelerator.device.type == "cpu"
    AcceleratorState._reset_state(reset_partial_state=True)
    assert ("bfloat16" in caplog.text) == (precision == "bf16" and on_cpu and not computes_bfloat16())
