"""The geometry term inside frames alone."""

import pytest
import torch
from frame_cases import draw_frames, in_every_encoding, layer
from layer_cases import LAYERS, TRANSPOSED
from torch import nn

from geopos_diffusers import (
    GeoConvConfig,
    geoconv_frames,
)
from geopos_diffusers.errors import ConfigError

PIXELS = 17
FRAME = (0.0, 0.25)  # pixels 6 to 10 of 17
PRODUCT = {"encoding": "product", "basis": "multilinear"}


def response(axes: int, options: dict, window: bool, frame: tuple[float, float] = FRAME) -> torch.Tensor:
    """A layer's term on an image of zeros, in the frame."""
    model = nn.Sequential(layer(LAYERS[axes], options | {"frame_window": window, "shift_range": 0}))
    with geoconv_frames(model, torch.tensor([[[value] * axes for value in frame]], dtype=torch.float64)):
        return model(torch.zeros(1, 4, *[PIXELS] * axes, dtype=torch.float64))


@in_every_encoding
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_term_is_that_of_the_frame_times_a_window(axes, training, options):
    """1 inside, 0 outside; the frame's edges lie between pixels, which get the share of them that is left."""
    with torch.set_grad_enabled(training):
        windowed, free = (response(axes, options, window, (0.03, 0.27)) for window in (True, False))
    bias = layer(LAYERS[axes], options).bias.view(1, -1, *[1] * axes)
    coordinates = (torch.linspace(-1, 1, PIXELS, dtype=torch.float64) - 0.03) / 0.27
    along = ((1 - coordinates.abs()) * 0.27 * (PIXELS - 1) / 2 + 1).clamp(0, 1)
    assert {0.0, 1.0} < set(along.tolist())  # and shares between
    expected = free - bias
    for axis in range(axes):
        expected = expected * along.view(*[-1 if axis == d else 1 for d in range(axes)])
    torch.testing.assert_close(windowed - bias, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_several_frames_add_up(training):
    model = nn.Sequential(layer(LAYERS[2], PRODUCT | {"frame_window": True})).requires_grad_(training)
    torch.manual_seed(2)
    frames, image = draw_frames(6, 2).unflatten(0, (2, 3)), torch.randn(2, 4, 9, 8, dtype=torch.float64)

    def run(frames):
        with geoconv_frames(model, frames):
            return model(image)

    with torch.no_grad():
        plain = nn.functional.conv2d(image, model[0].weight, model[0].bias, padding=model[0].padding)
    together = run(frames) - plain
    torch.testing.assert_close(together, sum(run(frames[:, k]) - plain for k in range(3)), rtol=0, atol=1e-12)


@in_every_encoding
@pytest.mark.parametrize("cls", [LAYERS[2], TRANSPOSED[2]])
def test_in_the_frame_of_the_image_it_changes_no_bit(cls, options):
    """Transposed layers put out pixels beyond the first and the last one of their input."""
    options = options | {"frame_window": True, "shift_range": 0}
    model = nn.Sequential(layer(cls, options, kernel_size=4, stride=2))
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    free = model(x)
    with geoconv_frames(model, (0, 0, 1, 1)):
        assert torch.equal(model(x), free)


def test_the_least_frame_reaches_a_pixel():
    """Of a coarse layer, too, so that no layer is left out."""
    for centre in (0.0, 0.1, 1 / 3, 0.9):
        seen = response(1, PRODUCT, True, (centre, 1e-3)) - layer(LAYERS[1], PRODUCT).bias.view(1, -1, 1)
        assert seen.abs().max() > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frame_window": 1}, "frame_window must be true or false; got 1"),
        ({"frame_window": True, "frame_limit": 1}, "give frame_limit or frame_window, not both"),
        ({"frame_window": True, "encoding": "constant"}, "frame_window needs coordinates"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        GeoConvConfig(**options)
