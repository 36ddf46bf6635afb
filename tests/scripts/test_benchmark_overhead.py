import json
import sys
from pathlib import Path

import pytest
import torch
from script_loading import load_script
from tiny_models import tiny_stable_diffusion

REPOSITORY = Path(__file__).parents[2]
GEOMETRY = {"geoconv", "geoconv-frames", "geoconv-taps", "geoconv-concat", "coordconv-concat"}


@pytest.fixture(scope="module")
def script():
    return load_script("benchmark_overhead")


def run(script, folder, monkeypatch, *options):
    monkeypatch.setattr(script, "MODELS", {"sd15-unet": build})
    argv = ["benchmark_overhead.py", "--model", "sd15-unet", "--rounds", "2", "--results", str(folder / "x"), *options]
    monkeypatch.setattr(sys, "argv", argv)
    script.main()
    return json.loads(next(folder.glob("x-*.json")).read_text())


def build(batch):
    unet = tiny_stable_diffusion().unet
    latents, text = torch.randn(batch, 4, 16, 16), torch.randn(batch, 7, unet.config.cross_attention_dim)
    return unet, lambda model: model(latents, 10, text).sample


@pytest.mark.parametrize(
    ("mode", "base", "others"),
    [
        ("inference", "unpatched", {*GEOMETRY, "lora"}),
        ("adapter-step", "lora", GEOMETRY),
        ("full-step", "unpatched", {*GEOMETRY, "lora"}),
    ],
)
def test_ratios_of_all_variants(script, tmp_path, monkeypatch, mode, base, others):
    result = run(script, tmp_path, monkeypatch, "--mode", mode, "--batch", "2", "--clock", "cpu")
    assert (result["mode"], result["batch"], result["ratio_to"]) == (mode, 2, base)
    assert result["clock"] == "cpu"
    assert result["variants"].keys() == {base, *others}
    assert result["variants"][base]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    for row in result["variants"].values():
        assert 0 < row["seconds"]["median"] < 60
        assert row["peak_mib"]["median"] > 50
    assert 0 < result["adapter_bytes"]["float16"] < result["adapter_bytes"]["float32"]
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_measuring_leaves_the_model_as_it_was(script):
    model, call = build(1)
    keys, expected = list(model.state_dict()), call(model)
    for variant in script.VARIANTS:
        with script.patched(model, variant):
            torch.testing.assert_close(call(model), expected)  # all of them begin with weights of zero
        assert list(model.state_dict()) == keys
    assert torch.equal(call(model), expected)


@pytest.mark.slow
def test_compiled(script, tmp_path, monkeypatch, capsys):
    options = ("--compile", "--variants", "unpatched", "geoconv")
    result = run(script, tmp_path, monkeypatch, *options)
    assert result["mode"] == "inference (torch.compile)"
    assert result["variants"].keys() == {"unpatched", "geoconv"}
    assert "peak_ratio" not in result["variants"]["geoconv"]
    assert "geoconv " in capsys.readouterr().out
