"""When a patched model draws shifts: where gradients are recorded, under every kind of checkpointing and compiled."""

from functools import partial

import pytest
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, UNet2DConditionModel
from tiny_models import tiny_stable_diffusion
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint
from trained_models import denoise, draw_geometry, latents_and_text, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    disable_geoconv,
    geoconv_parameters,
    load_geoconv_weights,
    save_geoconv_weights,
)

SCOPES = ("layer", "model")


def predict(unet: nn.Module) -> torch.Tensor:
    """As `denoise`, recording gradients."""
    latents, text = latents_and_text(8, 8)
    return unet(latents, 7, text).sample


class TestInference:
    def test_animatediff_makes_the_same_frames_from_the_same_seed(self, tmp_path):
        """diffusers builds its UNet from the base's and leaves it in training mode."""
        pipe = trained_stable_diffusion()
        save_geoconv_weights(pipe, tmp_path)
        sizes = {"block_out_channels": (8, 16), "motion_layers_per_block": 1, "motion_norm_num_groups": 4}
        motion = MotionAdapter(**sizes, motion_num_attention_heads=2)
        with disable_geoconv(pipe):
            video = AnimateDiffPipeline.from_pipe(pipe, motion_adapter=motion)
        load_geoconv_weights(video, tmp_path)
        assert video.unet.training
        video.set_progress_bar_config(disable=True)
        options = {"num_frames": 2, "num_inference_steps": 2, "height": 32, "width": 32, "output_type": "latent"}
        frames = [video("a hand", generator=torch.manual_seed(0), **options).frames for _ in range(2)]
        assert torch.equal(*frames)

    @pytest.mark.parametrize("scope", SCOPES)
    def test_a_model_built_from_a_config_draws_only_where_gradients_are_recorded(self, scope):
        unet = UNet2DConditionModel.from_config(tiny_stable_diffusion().unet.config)
        apply_geoconv(unet, GeoConvConfig(shift_scope=scope))
        draw_geometry(unet)
        assert unet.training
        assert torch.equal(denoise(unet), denoise(unet))
        with torch.inference_mode():
            assert torch.equal(predict(unet), predict(unet))
        assert not torch.equal(predict(unet), predict(unet))

    def test_validation_inside_a_training_loop_leaves_the_random_state_alone(self):
        unet = trained_stable_diffusion().unet.train()
        predict(unet).sum().backward()
        before, state = denoise(unet), torch.get_rng_state()
        assert torch.equal(denoise(unet), before)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(before, denoise(unet.eval()))


class Network(nn.Module):
    """Three convolutions, the last two of them in a part that is called through a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.rest = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.SiLU(), nn.Conv2d(2, 2, 3, padding=1))
        self.run_rest = lambda x: self.rest(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run_rest(self.first(x))


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("scope", SCOPES)
class TestGradientCheckpointing:
    """`use_reentrant=True` runs the first pass under no_grad; it must draw what the second pass draws."""

    def network(self, scope: str) -> Network:
        torch.manual_seed(0)
        model = Network()
        apply_geoconv(model, GeoConvConfig(shift_scope=scope))
        draw_geometry(model)
        return model

    def step(self, model: nn.Module, run) -> list[torch.Tensor]:
        """Loss and gradients of the geometry weights, under one seed."""
        torch.manual_seed(3)
        model.zero_grad()
        loss = run().square().mean()
        loss.backward()
        return [loss.detach(), *(weight.grad for weight in geoconv_parameters(model).values())]

    def test_a_unet(self, scope, use_reentrant):
        unet = trained_stable_diffusion(GeoConvConfig(shift_scope=scope)).unet.train()
        expected = self.step(unet, lambda: predict(unet))
        unet.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=use_reentrant))
        torch.testing.assert_close(self.step(unet, lambda: predict(unet)), expected, rtol=1e-4, atol=1e-6)

    def test_a_part_of_the_model(self, scope, use_reentrant):
        model, x = self.network(scope), torch.randn(2, 2, 6, 6)
        expected = self.step(model, lambda: model(x))
        model.run_rest = lambda x: checkpoint(model.rest, x, use_reentrant=use_reentrant)
        torch.testing.assert_close(self.step(model, lambda: model(x)), expected, rtol=1e-4, atol=1e-6)

    def test_the_whole_model(self, scope, use_reentrant):
        model, x = self.network(scope), torch.randn(2, 2, 6, 6, requires_grad=True)
        expected = self.step(model, lambda: model(x))
        found = self.step(model, lambda: checkpoint(model, x, use_reentrant=use_reentrant))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    def test_two_calls_of_the_whole_model(self, scope, use_reentrant):
        model, x = self.network(scope), torch.randn(2, 2, 6, 6, requires_grad=True)
        expected = self.step(model, lambda: model(x) * model(x))
        run = partial(checkpoint, model, use_reentrant=use_reentrant)
        torch.testing.assert_close(self.step(model, lambda: run(x) * run(x)), expected, rtol=1e-4, atol=1e-6)

    def test_the_shift_is_not_zero(self, scope, use_reentrant):
        """What the comparisons above rest on."""
        model, x = self.network(scope), torch.randn(2, 2, 6, 6, requires_grad=True)
        run = partial(checkpoint, model, use_reentrant=use_reentrant)
        assert not torch.equal(run(x), run(x))


@pytest.mark.parametrize("scope", SCOPES)
def test_compiled_models_take_one_graph_for_training_and_one_for_validation(scope):
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.SiLU(), nn.Conv2d(2, 2, 3, padding=1))
    apply_geoconv(model, GeoConvConfig(shift_scope=scope))
    draw_geometry(model)
    counter = CompileCounter()
    compiled, x = torch.compile(model, backend=counter, fullgraph=True), torch.randn(2, 2, 6, 6)
    for _ in range(3):
        assert not torch.equal(compiled(x), compiled(x))
        with torch.no_grad():
            assert torch.equal(compiled(x), compiled(x))
            torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 2
