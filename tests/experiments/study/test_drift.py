"""How far a fine-tuned denoiser's predictions are from the base's."""

import pytest
from experiments.rendered_hands import render
from experiments.study.drift import Drift
from tiny_models import tiny_stable_diffusion

from geopos_diffusers import GeoConvConfig, apply_geoconv, save_geoconv_weights
from geopos_diffusers.patching.patched_model import geometry_layers
from geopos_diffusers.pipelines.loading import load_pipeline


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, and adapters of it whose last convolution adds 0, 0.5 and 1 to its first channel."""
    folder = tmp_path_factory.mktemp("drift")
    tiny_stable_diffusion().save_pretrained(folder / "model")
    for value in (0.0, 0.5, 1.0):
        pipe = load_pipeline(str(folder / "model"))
        apply_geoconv(pipe, GeoConvConfig(shift_range=0, target_modules="conv_out"))
        (layer,) = geometry_layers(pipe.unet).values()
        layer.geo_weight.data[0, 0] = value
        save_geoconv_weights(pipe, folder / f"{value}")
    return folder, str(render(folder / "images", 6, 32, 0, ["--quiet"]))


def test_it_is_the_mean_square_of_what_the_last_layer_adds(folders):
    """A constant c on one of four channels: c^2 / 4 for every image and level."""
    folder, images = folders
    drift, model = Drift(images, 32, 32), str(folder / "model")
    assert drift.losses(model, folder / "0.0") == [0] * 6
    for value in (0.5, 1.0):
        assert drift.losses(model, folder / f"{value}") == pytest.approx([value**2 / 4] * 6, rel=1e-4)
