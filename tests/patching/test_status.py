"""The page that `print(geoconv_status(pipe))` gives."""

import pytest
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import trained_stable_diffusion

from geopos_diffusers import (
    GeoConv2d,
    GeoConvConfig,
    apply_geoconv,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_adapters,
    set_geoconv_scale,
)


def lines(pipe_or_model) -> list[str]:
    return [line.strip() for line in str(geoconv_status(pipe_or_model)).splitlines()]


def test_layers_reasons_adapters_and_scales(tmp_path):
    pipe = trained_stable_diffusion(GeoConvConfig(components=("unet", "vae"), exclude_modules=["conv_out"]))
    save_geoconv_weights(pipe, tmp_path)
    for name in ("hands", "faces"):
        load_geoconv_weights(pipe, tmp_path, name)
    set_geoconv_adapters(pipe, ["hands", "faces"], [0.7, 0.3])
    set_geoconv_scale(pipe, 0.5, layers=["unet.conv_in"])
    page = lines(pipe)
    assert 8 <= len(page) <= 14
    counts = {line.partition(", ")[0] for line in page}
    assert "skipped: 3" in counts  # conv_out of the UNet, of the encoder and of the decoder
    assert any(line.startswith("patched in unet: conv_in, down_blocks (") for line in page)
    assert any(line.startswith("patched in vae: encoder (") for line in page)
    assert "adapters of unet: default (inactive), faces 0.3, hands 0.7" in page
    assert "scale: 0.5 in unet.conv_in" in page
    assert "scale: 1 in all others" in page


def test_the_numbers_of_the_page_are_those_of_the_model():
    pipe = tiny_stable_diffusion()
    before = geoconv_status(pipe)
    assert before.base_parameters == sum(parameter.numel() for parameter in pipe.unet.parameters())
    total = sum(isinstance(module, nn.Conv2d) for module in pipe.unet.modules())
    assert str(before).startswith(f"not patched; {total} convolutions")
    status = apply_geoconv(pipe)
    assert len(status.patched) + len(status.skipped) == total == len(before.skipped)
    assert status.base_parameters == before.base_parameters
    assert status.geometry_parameters == 4 * sum(
        pipe.unet.get_submodule(name.removeprefix("unet.")).out_channels for name in status.patched
    )
    assert status.summary.startswith(f"{len(status.patched)} of {total} convolutions patched")


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")])
def test_a_network_of_geoconvs(names):
    model = nn.ModuleDict({name: GeoConv2d(1, 2, 3) for name in names})
    page = lines(model)
    assert page[0].startswith(f"{len(names)} layers built as GeoConvs")
    assert f"built: {', '.join(names)}" in page
    assert "scale: 1" in page
