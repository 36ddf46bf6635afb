"""Where coordinates in frames end."""

import pytest
import torch
from frame_cases import in_every_encoding, layer
from layer_cases import LAYERS
from torch import nn

from geopos_diffusers import (
    GeoConvConfig,
    geoconv_frames,
)
from geopos_diffusers.errors import ConfigError

PIXELS, LIMIT = 17, 2.0
FRAME = (0.0, 0.25)  # pixels 6 to 10 of 17: coordinates of 2 lie at the pixels 4 and 12


def response(axes: int, options: dict, limit: float | None) -> torch.Tensor:
    """A layer's term on an image of zeros, in the frame."""
    if options.get("basis") is None:
        options = options | {"border": "extrapolate"}
    model = nn.Sequential(layer(LAYERS[axes], options | {"frame_limit": limit}))
    with geoconv_frames(model, torch.tensor([[[value] * axes for value in FRAME]], dtype=torch.float64)):
        return model(torch.zeros(1, 4, *[PIXELS] * axes, dtype=torch.float64))


@in_every_encoding
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_within_it_nothing_changes_and_beyond_it_the_term_stays_what_it_is_there(axes, options):
    limited, free = response(axes, options, LIMIT), response(axes, options, None)
    within = (slice(None), slice(None), *[slice(5, 12)] * axes)  # with one tap to each side
    torch.testing.assert_close(limited[within], free[within], rtol=0, atol=1e-12)
    beyond = limited[..., :4], limited[..., 13:]  # their last taps lie at the limit
    for part, edge in zip(beyond, (3, 13), strict=True):
        torch.testing.assert_close(part, limited[..., edge : edge + 1].expand_as(part), rtol=0, atol=1e-12)
    assert (free[..., :4] - limited[..., :4]).abs().max() > 0.1


def test_of_several_frames_each_ends_by_itself():
    """The nearest counts, as without a limit; far from both, the nearest one's limit."""
    model = nn.Sequential(layer(LAYERS[1], {"encoding": "product", "basis": "multilinear", "frame_limit": LIMIT}))
    frames = torch.tensor([[[[-0.75], [0.125]], [[0.75], [0.125]]]], dtype=torch.float64)
    image = torch.zeros(1, 4, 17, dtype=torch.float64)
    with geoconv_frames(model, frames):
        both = model(image)
    for number, half in ((0, slice(0, 8)), (1, slice(9, 17))):
        with geoconv_frames(model, frames[:, number]):
            torch.testing.assert_close(model(image)[..., half], both[..., half], rtol=0, atol=1e-12)
    assert (both[..., 6] - both[..., 10]).abs().max() > 0.1  # right of the left one, left of the right one


def test_without_frames_it_changes_no_bit():
    conv, limited = (
        layer(LAYERS[2], {"encoding": "product", "basis": "multilinear", "frame_limit": limit}) for limit in (None, 1)
    )
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    assert torch.equal(conv(x), limited(x))


@pytest.mark.parametrize("limit", [0.5, 0, -2, float("nan"), float("inf"), True, "2"])
def test_bad_limits(limit):
    with pytest.raises(ConfigError, match="frame_limit must be a finite number >= 1 or None"):
        GeoConvConfig(frame_limit=limit)


def test_biases_have_none():
    with pytest.raises(ConfigError, match="frame_limit needs coordinates"):
        GeoConvConfig(frame_limit=1, encoding="constant")
