"""torch.compile and torch.export: no graph break, and no more graphs over resolutions than the stock model.

The "eager" and "aot_eager" backends trace exactly as inductor's does and need no compiler.
"""

import pytest
import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from tiny_models import tiny_stable_diffusion
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters
from trained_models import denoise, draw_geometry, latents_and_text, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_adapters,
    set_geoconv_scale,
)
from geopos_diffusers.patching.config import BASES

SIZES = ((8, 8), (12, 12), (16, 12))


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Blocks(nn.Module):
    """The convolutional blocks of a UNet alone, which trace in a second: the whole UNet takes half a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResnetBlock2D(in_channels=4, out_channels=4, temb_channels=None, groups=2)
        self.down = Downsample2D(4, use_conv=True)
        self.up = Upsample2D(4, use_conv=True)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(self.resnet(latents, None))) + latents


def blocks() -> Blocks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Blocks().eval()


def patched(config: GeoConvConfig | None = None) -> Blocks:
    model = blocks()
    apply_geoconv(model, config)
    draw_geometry(model)
    return model


def predict(model: nn.Module, height: int = 16, width: int = 16) -> torch.Tensor:
    with torch.no_grad():
        return model(latents_and_text(height, width)[0])


def graphs_over_resolutions(model: nn.Module, run=predict) -> int:
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for size in SIZES:
        torch.testing.assert_close(run(compiled, *size), run(model, *size), rtol=0, atol=1e-5)
    return counter.frame_count


class TestCompile:
    def test_no_more_graphs_over_resolutions_than_the_stock_model(self):
        stock = graphs_over_resolutions(blocks())
        assert graphs_over_resolutions(patched()) <= stock
        assert graphs_over_resolutions(patched(GeoConvConfig(normalization="aspect"))) <= stock
        assert graphs_over_resolutions(patched(GeoConvConfig(basis="taps"))) <= stock

    @pytest.mark.parametrize("shift_scope", ["layer", "model"])
    def test_random_shifts_in_one_graph(self, shift_scope):
        """One draw a model call is marked by hooks, which are traced into the graph."""
        model = patched(GeoConvConfig(shift_scope=shift_scope)).train()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        results = {}
        for name, run in (("eager", model), ("compiled", compiled)):
            torch.manual_seed(0)
            results[name] = [run(latents_and_text()[0]).detach() for _ in range(2)]
        assert not torch.equal(*results["compiled"])
        torch.testing.assert_close(results["compiled"], results["eager"], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("basis", BASES)
    def test_training_step(self, basis):
        model, latents = patched(GeoConvConfig(shift_range=0.0, basis=basis)).train(), latents_and_text()[0]
        gradients = []
        for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
            model.zero_grad()
            run(latents).square().mean().backward()
            gradients.append(torch.cat([weight.grad.flatten() for weight in geoconv_parameters(model).values()]))
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)

    def test_patched_after_compiling(self):
        model = blocks()
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        base = predict(compiled)
        apply_geoconv(compiled)
        assert torch.equal(predict(compiled), base)
        draw_geometry(compiled)
        torch.testing.assert_close(predict(compiled), predict(patched()), rtol=0, atol=1e-5)

    def test_scale_and_adapters_change_under_it(self, tmp_path):
        model = patched()
        save_geoconv_weights(model, tmp_path)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        predict(compiled)
        load_geoconv_weights(compiled, tmp_path, "a")
        graphs = counters["stats"]["unique_graphs"]
        set_geoconv_adapters(compiled, "a", 0.5)
        halved = predict(compiled)
        assert counters["stats"]["unique_graphs"] == graphs
        set_geoconv_adapters(compiled, "a")
        set_geoconv_scale(compiled, 0.5)
        torch.testing.assert_close(predict(compiled), halved, rtol=0, atol=1e-5)

    def test_repeated_blocks(self):
        unet = trained_stable_diffusion().unet
        expected = denoise(unet)
        unet.compile_repeated_blocks(backend="eager", fullgraph=True)
        torch.testing.assert_close(denoise(unet), expected, rtol=0, atol=1e-5)

    @pytest.mark.slow
    def test_inductor(self):
        model = patched()
        torch.testing.assert_close(predict(torch.compile(model, fullgraph=True)), predict(model), rtol=1e-3, atol=1e-4)

    @pytest.mark.slow
    def test_text_to_image_unet(self):
        stock = graphs_over_resolutions(tiny_stable_diffusion().unet, run=denoise)
        assert graphs_over_resolutions(trained_stable_diffusion().unet, run=denoise) <= stock


class TestExport:
    @pytest.mark.parametrize(
        "config",
        [
            GeoConvConfig(),
            GeoConvConfig(encoding="cartesian"),
            GeoConvConfig(encoding="constant"),
            GeoConvConfig(basis="taps"),
            GeoConvConfig(border="extrapolate"),
        ],
        ids=["multilinear", "cartesian", "constant", "taps", "extrapolate"],
    )
    def test_one_program_for_all_sizes(self, config):
        model = patched(config)
        height, width = (2 * torch.export.Dim(name, min=4, max=16) for name in ("height", "width"))
        program = torch.export.export(
            model,
            (torch.randn(2, 4, 16, 16),),
            dynamic_shapes={"latents": {2: height, 3: width}},
        )
        for size in SIZES:
            output = program.module()(latents_and_text(*size)[0])
            torch.testing.assert_close(output.detach(), predict(model, *size), rtol=0, atol=1e-5)
