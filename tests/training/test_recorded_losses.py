"""All trainings have the losses that they had when three loops became one.

They are equal to the last bit on the machine that recorded them. Other instruction sets change the order of sums: with
ATEN_CPU_CAPABILITY=default, ONEDNN_MAX_CPU_ISA=SSE41 and two threads the same runs differed by up to 6e-5.
"""

import json

import pytest
from recorded_losses import FILE, RUNS, record


@pytest.mark.parametrize("name", RUNS)
def test_losses_are_those_of_before(name, tmp_path):
    expected, found = json.loads(FILE.read_text(encoding="utf-8"))[name], record(name, tmp_path)
    assert len(found) == len(expected)
    for before, now in zip(expected, found, strict=True):
        assert now == pytest.approx(before, rel=5e-4)
