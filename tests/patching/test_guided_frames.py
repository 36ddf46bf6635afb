"""Guided frames: the unconditional half of a doubled batch is in the default frame: guidance strengthens boxes too."""

import pytest
import torch
from frame_cases import draw_frames, in_every_encoding, layer
from layer_cases import LAYERS, image
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import draw_geometry

from geopos_diffusers import (
    GeoConv2d,
    GeoConvConfig,
    apply_geoconv,
    geoconv_frames,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_frames,
)
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.frames import read_frames

MEAN = (0.2, 0.1, 0.9, 0.6)
BOXES = [(0.0, 0.0, 0.5, 0.5), (0.4, 0.3, 1.0, 1.0)]
PROMPTS = ["a hand", "two hands"]


def network(default=MEAN) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 3, padding=1)).eval()
    apply_geoconv(model, GeoConvConfig(default_frame=default))
    draw_geometry(model)
    return model.requires_grad_(False)


@in_every_encoding
def test_both_halves_of_a_layers_batch(options):
    """Without a default frame, the first half is in the image's own coordinates, bitwise as without frames."""
    conv, frames, x = layer(GeoConv2d, options), draw_frames(2, 2), image(2)
    unframed = conv(x)
    set_geoconv_frames(conv, frames)
    framed = conv(x)
    set_geoconv_frames(conv, frames, guided=True)
    torch.testing.assert_close(conv(torch.cat([x, x])), torch.cat([unframed, framed]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("given", [BOXES, [BOXES, BOXES[::-1]]], ids=["one each", "two each"])
def test_the_unconditional_half_is_in_the_default_frame(given):
    model, x = network(), torch.randn(2, 3, 12, 9)
    by_default = model(x)
    with geoconv_frames(model, given):
        framed = model(x)
    with geoconv_frames(model, given, guided=True):
        torch.testing.assert_close(model(torch.cat([x, x])), torch.cat([by_default, framed]))
    assert not torch.allclose(by_default, framed, atol=1e-3)
    assert torch.equal(model(x), by_default)


@pytest.mark.parametrize(("axes", "default_axes"), [(1, 2), (2, 1), (3, 2)])
def test_default_frames_of_another_number_of_axes(axes, default_axes):
    """Each half is in its own frame of its own axes; those before them keep the image's coordinates."""
    conv, x = layer(LAYERS[3], {"basis": "multilinear"}), image(3)
    frames, default = draw_frames(2, axes), draw_frames(1, default_axes)
    set_geoconv_frames(conv, frames)
    framed = conv(x)
    set_geoconv_frames(conv, default)
    by_default = conv(x)
    conv.geo_frames.default = read_frames(default)
    if default_axes > axes:
        whole = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, 2, default_axes - axes)
        frames = torch.cat([whole, frames], 2)
    set_geoconv_frames(conv, frames, guided=True)
    torch.testing.assert_close(conv(torch.cat([x, x])), torch.cat([by_default, framed]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("samples", [1, 2, 3, 6, 8])
def test_other_calls_are_refused(samples):
    """Two samples are the two images without guidance."""
    model = network()
    set_geoconv_frames(model, BOXES, guided=True)
    message = f"guided frames of 2 images are set and the model was called with {samples} samples, not 4"
    with pytest.raises(ConfigError, match=message):
        model(torch.zeros(samples, 3, 8, 8))
    model(torch.zeros(4, 3, 8, 8))


def test_pipelines_that_put_the_prompts_first_are_refused():
    pipe = type("DiTPipeline", (), {"components": {"transformer": network()}})()
    set_geoconv_frames(pipe, BOXES)
    with pytest.raises(ConfigError, match="DiTPipeline puts the half with prompts first"):
        set_geoconv_frames(pipe, BOXES, guided=True)


def test_the_block_puts_guided_frames_back():
    model, x = network(), torch.randn(4, 3, 8, 8)
    set_geoconv_frames(model, BOXES, guided=True)
    before = model(x)
    with geoconv_frames(model, BOXES[0]):
        assert not torch.equal(model(x), before)
    assert torch.equal(model(x), before)
    set_geoconv_frames(model, None)
    with geoconv_frames(model, BOXES, guided=True):
        assert torch.equal(model(x), before)


class TestPipelines:
    def framed(self, tmp_path, components) -> object:
        """A pipeline with an adapter that was trained with frames."""
        pipe = tiny_stable_diffusion()
        apply_geoconv(pipe, GeoConvConfig(default_frame=MEAN, components=components))
        draw_geometry(pipe)
        save_geoconv_weights(pipe, tmp_path / "adapter")
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, tmp_path / "adapter")
        return pipe

    def images(self, pipe, prompts=PROMPTS, seeds=(0, 1), scale=5.0) -> torch.Tensor:
        noise = [torch.Generator().manual_seed(seed) for seed in seeds]
        call = {"num_inference_steps": 2, "guidance_scale": scale, "output_type": "pt"}
        return pipe(prompts, generator=noise, **call).images

    @pytest.mark.parametrize("components", [("unet",), ("unet", "vae")], ids="-".join)
    def test_as_frames_that_are_given_for_both_halves(self, tmp_path, components):
        """The autoencoder, which has no unconditional half, is in the images' own frames."""
        pipe = self.framed(tmp_path, components)
        with geoconv_frames(pipe, BOXES, guided=True):
            guided = self.images(pipe)
        set_geoconv_frames(pipe, BOXES)
        unguided = self.images(pipe)
        set_geoconv_frames(pipe.unet, [MEAN, MEAN, *BOXES])
        torch.testing.assert_close(guided, self.images(pipe), rtol=0, atol=1e-5)
        assert (guided - unguided).abs().max() > 1e-3

    def test_one_image(self, tmp_path):
        pipe = self.framed(tmp_path, ("unet",))
        with geoconv_frames(pipe, BOXES[0], guided=True):
            alone = self.images(pipe, PROMPTS[0], (0,))
        with geoconv_frames(pipe, BOXES, guided=True):
            torch.testing.assert_close(alone, self.images(pipe)[:1], rtol=0, atol=1e-4)

    def test_without_guidance_they_are_refused(self, tmp_path):
        pipe = self.framed(tmp_path, ("unet",))
        with geoconv_frames(pipe, BOXES, guided=True), pytest.raises(ConfigError, match="called with 2 samples, not 4"):
            self.images(pipe, scale=1.0)
