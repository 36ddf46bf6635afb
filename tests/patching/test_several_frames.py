"""Several frames in an image: each pixel is counted in the nearest."""

import itertools

import pytest
import torch
from frame_cases import draw_frames, in_every_encoding, layer
from layer_cases import LAYERS, TRANSPOSED, image

from geopos_diffusers import GeoConv2d, GeoPosConfig, set_geoconv_frames
from geopos_diffusers.patching.frames import box_frames
from geopos_diffusers.patching.taps import Axis, axis_powers

LEFT, RIGHT = ((0.0, 0.2, 0.5, 0.8), (0.5, 0.2, 1.0, 0.8))


@in_every_encoding
@pytest.mark.parametrize("cls", [*LAYERS.values(), *TRANSPOSED.values()], ids=lambda cls: cls.__name__)
def test_a_pixel_has_what_its_nearest_frame_alone_gives_it(cls, options):
    """Against the definition, pixel by pixel, for frames that overlap and differ between two samples."""
    conv = layer(cls, options, stride=2)
    axes = len(conv.kernel_size)
    frames, x = torch.stack([draw_frames(2, axes), draw_frames(2, axes).flip(0) * 0.8], 1), image(axes)
    set_geoconv_frames(conv, frames)
    together, alone = conv(x), []
    for one in range(2):
        set_geoconv_frames(conv, frames[:, one])
        alone.append(conv(x))
    positions = [
        axis_powers(conv, Axis(d, x.shape[2 + d], size, max(x.shape[2:])), conv.geo_config, x).coordinates[:, 1]
        for d, size in enumerate(together.shape[2:])
    ]
    used = set()
    for sample in range(2):
        for pixel in itertools.product(*map(range, together.shape[2:])):
            place = torch.stack([positions[d][index] for d, index in enumerate(pixel)])
            centre, half = frames[sample].unbind(1)
            nearest = int(((place - centre) / half).abs().amax(1).argmin())
            used.add(nearest)
            where = (sample, slice(None), *pixel)
            torch.testing.assert_close(together[where], alone[nearest][where], rtol=0, atol=1e-12)
    assert used == {0, 1}


@in_every_encoding
@pytest.mark.parametrize("training", [False, True])
def test_twice_the_same_frame_is_that_frame(training, options):
    conv, x = layer(GeoConv2d, options), image(2)
    conv.train(training).requires_grad_(training)
    outputs = []
    for frames in (LEFT, [[LEFT]], [[LEFT, LEFT]]):
        set_geoconv_frames(conv, frames)
        torch.manual_seed(3)
        outputs.append(conv(x).detach())
    assert torch.equal(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[2], outputs[0], rtol=0, atol=1e-12)


def test_things_side_by_side_are_each_as_alone():
    """An image twice as wide: either half of the term is that of a narrow image."""
    conv, (frame,) = layer(GeoConv2d, {"basis": "multilinear"}), box_frames([(0.1, 0.3, 0.7, 0.9)])
    set_geoconv_frames(conv, frame[None])
    narrow = conv(torch.zeros(1, 4, 9, 9, dtype=torch.float64))
    halves = []
    for first in (0, 9):  # of 18 pixels: pixel i of the half lies at 2 (i + first) / 17 - 1
        centre, half = frame.clone()
        centre[1] = (centre[1] + 1) * 8 / 17 + 2 * first / 17 - 1
        half[1] = half[1] * 8 / 17
        halves.append(torch.stack([centre, half]))
    set_geoconv_frames(conv, torch.stack(halves)[None])
    wide = conv(torch.zeros(1, 4, 9, 18, dtype=torch.float64))
    # The middle between the frames' middles is where one half begins to belong to the other.
    border = 9 + round(0.4 * 8 - 4)
    torch.testing.assert_close(wide[..., :border], narrow[..., :border], rtol=0, atol=1e-12)
    torch.testing.assert_close(wide[..., 9:], narrow, rtol=0, atol=1e-12)


def test_of_one_image_they_are_of_all_and_guidance_repeats_them():
    conv, x = layer(GeoConv2d, {"basis": "multilinear"}), image(2)
    set_geoconv_frames(conv, [[LEFT, RIGHT]])
    all_images = conv(x)
    set_geoconv_frames(conv, [[LEFT, RIGHT]] * 2)
    torch.testing.assert_close(conv(x), all_images, rtol=0, atol=1e-12)
    torch.testing.assert_close(conv(torch.cat([x] * 3)), torch.cat([all_images] * 3), rtol=0, atol=1e-12)


@in_every_encoding
def test_gradients_reach_the_weights(options):
    conv = layer(GeoConv2d, options).requires_grad_(True)
    conv.geo_config = GeoPosConfig(shift_range=0.0, **options)
    set_geoconv_frames(conv, torch.stack([draw_frames(2, 2), draw_frames(2, 2).flip(0)], 1))
    x = image(2)

    def term(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(conv, {"geo_weight": weight}, (x,))

    assert torch.autograd.gradcheck(term, conv.geo_weight.detach().requires_grad_(True), fast_mode=True)
