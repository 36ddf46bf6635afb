"""Tables of coordinates that are kept for later calls: only plain ones, whatever runs the model."""

import copy

import pytest
import torch
from functorch.compile import aot_module, nop
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from trained_models import draw_geometry

from geopos_diffusers import GeoConvConfig, apply_geoconv, set_geoconv_frames, set_geoconv_scale
from geopos_diffusers.patching.frames import MOST_KEPT

BOX = (0.1, 0.2, 0.6, 0.9)


def patched(seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval()
    apply_geoconv(model, GeoConvConfig(**options))
    draw_geometry(model, seed)
    return model


def run_faked(model, sample):
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model(torch.empty_like(sample))


def run_functionalized(model, sample):
    aot_module(model, nop)(sample)


CASES = [(run_faked, False), (run_faked, True), (run_functionalized, False)]


@pytest.mark.parametrize(("run", "framed"), CASES)
def test_what_tools_run_leaves_nothing_behind(run, framed):
    """Models share tables: each case has a size of its own. In double precision there are others."""
    sample = torch.randn(1, 3, 40, 41 + CASES.index((run, framed)))
    models = [patched(seed) for seed in range(2)]
    for model in models if framed else ():
        set_geoconv_frames(model, BOX)
    run(models[0], sample)
    for model in models:
        expected = copy.deepcopy(model).double()(sample.double())
        assert torch.allclose(model(sample).double(), expected, atol=1e-5)
        set_geoconv_scale(model, 0.0)
        assert (model(sample).double() - expected).abs().max() > 0.05


@pytest.mark.parametrize("unit", ["batch", "sample"])
@pytest.mark.parametrize("encoding", ["product", "cartesian", "constant"])
def test_an_empty_batch_in_training(encoding, unit):
    model = patched(encoding=encoding, shift_unit=unit).train()
    out = model(torch.zeros(0, 3, 9, 70))
    assert out.shape == (0, 8, 9, 70)
    out.sum().backward()
    assert torch.equal(model[0].geo_weight.grad, torch.zeros_like(model[0].geo_weight))


@pytest.mark.parametrize("options", [{}, {"frame_limit": 1.0}, {"frame_window": True}])
def test_layers_of_one_layout_share_what_is_made_of_their_frames(options):
    """First in inference mode, then in training; those of another model, whose configuration differs, do not."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.Conv2d(3, 3, 3, stride=2, padding=1))
    other = copy.deepcopy(model)
    for one, own in ((model, options), (other, {"encoding": "cartesian"})):
        apply_geoconv(one, GeoConvConfig(shift_range=0, **own))
        draw_geometry(one)
    sample = torch.randn(2, 3, 12, 13)
    frames = [BOX, (0.4, 0.0, 1.0, 0.5)]
    set_geoconv_frames(model, frames)
    other[0].geo_frames = model[0].geo_frames
    with torch.inference_mode():
        first = model(sample)
        other[0](sample)
    (maps,) = model[0].geo_frames.now()._maps.values()
    assert len(maps[0]._made) == 3  # of the two layouts, and of the other model
    trained = model(sample)
    trained.sum().backward()
    assert torch.equal(trained, first)
    assert len(maps[0]._made) == 3
    assert all(layer.geo_weight.grad.any() for layer in model)
    set_geoconv_frames(model, frames[::-1])
    torch.testing.assert_close(model(sample.flip(0))[0], model.double()(sample.flip(0).double())[0].float())


def test_a_copy_takes_nothing_that_was_made_of_other_taps():
    """The copy knows the taps of its original by their ids, which others can get once those are gone."""
    model = patched(shift_range=0)
    set_geoconv_frames(model, BOX)
    small, large = torch.zeros(1, 3, 9, 10), torch.zeros(1, 3, 12, 13)
    with torch.no_grad():
        expected = model(small), model(large)
        copied = copy.deepcopy(model)
        (maps,) = copied[0].geo_frames.now()._maps.values()
        keys = list(maps[0]._made)
        assert len(keys) == 2
        maps[0]._made.update(zip(keys, [maps[0]._made[key] for key in reversed(keys)], strict=True))
        for image, own in zip((small, large), expected, strict=True):
            assert torch.equal(copied(image), own)


def test_what_is_kept_of_frames_is_bounded():
    model = patched(shift_range=0)
    set_geoconv_frames(model, BOX)
    for width in range(8, 16 + MOST_KEPT):
        with torch.no_grad():
            model(torch.zeros(1, 3, 8, width))
    (maps,) = model[0].geo_frames.now()._maps.values()
    assert len(maps[0]._made) <= MOST_KEPT
