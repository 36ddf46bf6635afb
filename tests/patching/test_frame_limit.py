"""Where coordinates in frames end."""

import pytest
import torch
from frame_cases import draw_frames, in_every_encoding, layer
from layer_cases import LAYERS
from torch import nn

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_frames,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_frames,
)
from geopos_diffusers.errors import ConfigError, SurgeryError

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


@in_every_encoding
@pytest.mark.parametrize("training", [False, True])
def test_samples_in_their_own_frames(training, options):
    model = nn.Sequential(layer(LAYERS[2], options | {"frame_limit": 1.5, "shift_range": 0}))
    model.train(training).requires_grad_(True)
    torch.manual_seed(1)
    frames, image = draw_frames(3, 2), torch.randn(3, 4, 9, 8, dtype=torch.float64)

    def run(samples):
        with geoconv_frames(model, frames[samples]):
            return model(image[samples])

    together = run([0, 1, 2])
    for sample in range(3):
        torch.testing.assert_close(run([sample]), together[sample : sample + 1], rtol=0, atol=1e-12)


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


def test_files_and_status(tmp_path):
    def patched(limit):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).eval()
        return apply_geoconv(model, GeoConvConfig(frame_limit=limit)) and model

    assert "frame_limit" not in GeoConvConfig().to_dict()
    config = GeoConvConfig(frame_limit=1.5, default_frame=(0, 0, 0.5, 0.5))
    assert GeoConvConfig.from_json(config.to_json()) == config
    model = patched(1.5)
    assert "coordinates in frames are cut off at 1.5 half sizes from the middle" in str(geoconv_status(model))
    for weight in geoconv_parameters(model).values():
        nn.init.normal_(weight)
    save_geoconv_weights(model, tmp_path / "adapter")
    torch.manual_seed(0)
    loaded = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).eval()
    load_geoconv_weights(loaded, tmp_path / "adapter")
    outputs = []
    for one in (model, loaded):
        set_geoconv_frames(one, (0.1, 0.2, 0.3, 0.5))
        outputs.append(one(torch.zeros(1, 1, 8, 8)))
    assert torch.equal(*outputs)
    with pytest.raises(SurgeryError, match="frame_limit=None"):
        load_geoconv_weights(patched(None), tmp_path / "adapter")


@pytest.mark.parametrize("limit", [0.5, 0, -2, float("nan"), float("inf"), True, "2"])
def test_bad_limits(limit):
    with pytest.raises(ConfigError, match="frame_limit must be a finite number >= 1 or None"):
        GeoConvConfig(frame_limit=limit)


def test_biases_have_none():
    with pytest.raises(ConfigError, match="frame_limit needs coordinates"):
        GeoConvConfig(frame_limit=1, encoding="constant")
