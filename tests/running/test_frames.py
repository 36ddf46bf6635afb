"""Frames in real use: pipelines under guidance, compiled and checkpointed models, copies, files, offloading."""

import copy
import pickle
from functools import partial

import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from tiny_models import tiny_stable_diffusion
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint
from trained_models import draw_geometry, latents_and_text, relative_error, trained_stable_diffusion

from geopos_diffusers import (
    GeoConv2d,
    GeoConvConfig,
    apply_geoconv,
    disable_geoconv,
    geoconv_frames,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_frames,
)
from geopos_diffusers.adapters.conversion import convert_adapter
from geopos_diffusers.errors import AdapterError, ConfigError, SurgeryError

BOXES = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0), (0.2, 0.4, 0.6, 1.0), (0.0, 0.0, 1.0, 1.0)]
PROMPTS = ["a hand", "two hands"]
PICTURE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
WHOLE = {"image": PICTURE}
STARTS = {
    "text to image": (lambda pipe: pipe, {}),
    "image to image": (lambda pipe: as_pipeline(StableDiffusionImg2ImgPipeline, pipe), WHOLE),
    "inpainting": (
        lambda pipe: as_pipeline(StableDiffusionInpaintPipeline, pipe),
        WHOLE | {"mask_image": (PICTURE[:, :1] > 0.3).float(), "height": 32, "width": 32},
    ),
    "control": (lambda pipe: with_control(pipe), WHOLE | {"height": 32, "width": 32}),
}


def as_pipeline(cls, pipe, **more):
    other = cls(**pipe.components, requires_safety_checker=False, **more)
    other.set_progress_bar_config(disable=True)
    return other


def with_control(pipe):
    """With a patched ControlNet, whose zero convolutions are drawn."""
    with torch.random.fork_rng(devices=[]), disable_geoconv(pipe):
        torch.manual_seed(0)
        control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8)).eval()
        for parameter in control.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    apply_geoconv(control)
    draw_geometry(control)
    return as_pipeline(StableDiffusionControlNetPipeline, pipe, controlnet=control)


def noise_of(start: str, images: slice) -> dict:
    """Arguments that fix the noise of some of four images, whether they are made together or alone."""
    if start == "inpainting":  # encodes its one picture with the first generator alone
        latents = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))[images]
        return {"latents": latents, "generator": [torch.Generator().manual_seed(0) for _ in latents]}
    return {"generator": [torch.Generator().manual_seed(seed) for seed in range(4)[images]]}


class TestPipelines:
    @pytest.mark.parametrize(("start", "window"), [*((start, False) for start in STARTS), ("text to image", True)])
    @pytest.mark.parametrize("guidance", [1.0, 4.0])
    def test_every_image_is_in_its_own_frame(self, start, window, guidance):
        """Two prompts, two images each: as each image alone in its frame."""
        build, inputs = STARTS[start]
        config = GeoConvConfig(components=("unet",), frame_window=window)
        pipe = build(trained_stable_diffusion(config, size=0.3))
        options = {"num_inference_steps": 2, "guidance_scale": guidance, "output_type": "pt"}
        call = partial(pipe, **inputs, **options)
        with geoconv_frames(pipe, BOXES):
            together = call(PROMPTS, num_images_per_prompt=2, **noise_of(start, slice(4))).images
        elsewhere = call(PROMPTS, num_images_per_prompt=2, **noise_of(start, slice(4))).images
        for index, image in enumerate(together):
            with geoconv_frames(pipe, BOXES[index]):
                alone = call(PROMPTS[index // 2], **noise_of(start, slice(index, index + 1))).images[0]
            torch.testing.assert_close(image, alone, rtol=0, atol=1e-4)
            moved = (image - elsewhere[index]).abs().max().item()
            assert moved > 1e-3 if BOXES[index] != (0, 0, 1, 1) else moved < 1e-4

    def test_every_image_is_in_its_own_pair_of_frames(self):
        """Two prompts, two images each, under guidance. Twice the same frame is that frame."""
        pipe = trained_stable_diffusion(GeoConvConfig(components=("unet",)), size=0.3)
        call = partial(pipe, num_inference_steps=2, guidance_scale=4.0, output_type="pt")
        pairs = [BOXES[:2], BOXES[1:3], BOXES[2:], BOXES[:1] * 2]
        with geoconv_frames(pipe, pairs):
            together = call(PROMPTS, num_images_per_prompt=2, **noise_of("text to image", slice(4))).images
        for index, image in enumerate(together):
            noise = partial(noise_of, "text to image", slice(index, index + 1))
            with geoconv_frames(pipe, pairs[index : index + 1]):
                alone = call(PROMPTS[index // 2], **noise()).images[0]
            torch.testing.assert_close(image, alone, rtol=0, atol=1e-4)
            with geoconv_frames(pipe, pairs[index][0]):
                first = call(PROMPTS[index // 2], **noise()).images[0]
            changed = (image - first).abs().max().item()
            assert changed < 1e-4 if index == 3 else changed > 1e-3

    def test_frames_of_prompts_are_refused_where_each_has_several_images(self):
        pipe = trained_stable_diffusion()
        set_geoconv_frames(pipe, BOXES[:2])
        with pytest.raises(ConfigError, match=r"^2 frames are set and the model was called with 8 samples; set one"):
            pipe(PROMPTS, num_images_per_prompt=2, num_inference_steps=1)

    @pytest.mark.parametrize("window", [False, True])
    def test_tiles_lie_in_the_frames_of_their_images(self, window):
        """In the frame of a quarter, the latents' term over that quarter."""
        vae = tiny_stable_diffusion().vae.requires_grad_(False)
        vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 16
        apply_geoconv(vae, GeoConvConfig(frame_window=window))
        draw_geometry(vae, size=0.03)
        latents = torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(0))
        whole = vae.decode(latents).sample
        set_geoconv_frames(vae, BOXES[:2])
        framed, tiled = vae.decode(latents).sample, vae.tiled_decode(latents).sample
        set_geoconv_frames(vae, BOXES[1::-1])
        exchanged = vae.tiled_decode(latents).sample
        assert relative_error(tiled, framed) < 0.9 * relative_error(exchanged, framed)
        assert relative_error(tiled, framed) < 0.9 * relative_error(tiled, whole)


class Blocks(nn.Module):
    """Three convolutions, of which the last two can be run through a checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.rest = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.run_rest = self.rest.__call__

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run_rest(self.first(x))


def blocks(**options) -> Blocks:
    torch.manual_seed(0)
    model = Blocks()
    apply_geoconv(model, GeoConvConfig(**options))
    draw_geometry(model)
    return model


X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


class TestCompile:
    @pytest.mark.parametrize(("per_image", "guided"), [(1, False), (2, False), (1, True), (2, True)])
    @pytest.mark.parametrize("window", [False, True])
    @pytest.mark.parametrize("basis", ["multilinear", pytest.param("taps", marks=pytest.mark.slow)])
    def test_new_frames_need_no_new_graph(self, basis, window, per_image, guided):
        torch._dynamo.reset()
        model, counter = blocks(basis=basis, frame_window=window).eval().requires_grad_(False), CompileCounter()
        compiled = torch.compile(model, backend=counter, fullgraph=True)
        results = []
        for seed in range(4):
            low, size = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(seed)) * 0.5
            boxes = torch.cat([low, low + size], 1)
            x = torch.cat([X, X]) if guided else X
            with geoconv_frames(model, torch.stack([boxes, boxes.flip(0)][:per_image], 1), guided=guided):
                torch.testing.assert_close(compiled(x), model(x), rtol=0, atol=1e-5)
                results.append(compiled(x))
            if seed == 0:
                graphs = counter.frame_count
        assert graphs == 1
        assert counter.frame_count == graphs
        assert not torch.equal(results[0], results[1])

    def test_another_number_is_refused(self):
        torch._dynamo.reset()
        model = blocks().eval().requires_grad_(False)
        compiled = torch.compile(model, backend="eager")
        set_geoconv_frames(model, BOXES[:3])
        with pytest.raises(ConfigError, match="3 frames are set and the model was called with 2 samples"):
            compiled(X)

    @pytest.mark.slow
    def test_training_step(self):
        torch._dynamo.reset()
        model, gradients = blocks(shift_range=0.0), []
        for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
            model.zero_grad()
            with geoconv_frames(model, BOXES[:2]):
                run(X).square().mean().backward()
            gradients.append(torch.cat([weight.grad.flatten() for weight in geoconv_parameters(model).values()]))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


class TestGradientCheckpointing:
    """The backward pass runs parts again when other frames, or none, are set."""

    def gradients(self, model: nn.Module, run, frames) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model.zero_grad()
        with geoconv_frames(model, frames):
            loss = run().square().mean()
        with geoconv_frames(model, BOXES[2]):
            loss.backward()
        return [weight.grad.clone() for weight in geoconv_parameters(model).values()]

    @pytest.mark.parametrize("use_reentrant", [False, True])
    @pytest.mark.parametrize("frames", [BOXES[:2], None], ids=["frames", "none"])
    def test_a_part(self, use_reentrant, frames):
        model = blocks()
        expected = self.gradients(model, lambda: model(X), frames)
        model.run_rest = lambda x: checkpoint(model.rest, x, use_reentrant=use_reentrant)
        found = self.gradients(model, lambda: model(X), frames)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("use_reentrant", [False, True])
    def test_a_unet(self, use_reentrant):
        unet = trained_stable_diffusion(GeoConvConfig(shift_unit="sample")).unet.train()
        latents, text = latents_and_text(8, 8)
        call = partial(unet, latents, 7, text)
        expected = self.gradients(unet, lambda: call().sample, BOXES[:2])
        unet.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=use_reentrant))
        found = self.gradients(unet, lambda: call().sample, BOXES[:2])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class TestLearning:
    """A network that is given nothing but its frame learns to fill the box, and does so for boxes that it never saw."""

    def boxes(self, count: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = 0.3 + 0.4 * torch.rand(count, 2, generator=generator)
        low = torch.rand(count, 2, generator=generator) * (1 - size)
        return torch.cat([low, low + size], 1)

    def filled(self, boxes: torch.Tensor, side: int = 16) -> torch.Tensor:
        """[B, 1, side, side]: the pixels within each box."""
        share = torch.arange(side) / (side - 1)
        across, down = ((share >= boxes[:, i, None]) & (share <= boxes[:, i + 2, None]) for i in (0, 1))
        return (down[:, :, None] & across[:, None])[:, None]

    def overlap(self, model: nn.Module, boxes: torch.Tensor, asked: torch.Tensor, side: int = 16) -> float:
        """Mean intersection over union of what the model fills and what it is asked for."""
        with torch.no_grad(), geoconv_frames(model, boxes):
            found = model(torch.zeros(len(boxes), 1, side, side)) > 0
        asked = self.filled(asked, side)
        return ((found & asked).sum((1, 2, 3)) / (found | asked).sum((1, 2, 3))).mean().item()

    def test_unseen_boxes_are_filled(self):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 1, 3, padding=1)]
        model = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
        apply_geoconv(model, GeoConvConfig(shift_range=0.0))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for seed in range(100):
            boxes = self.boxes(16, seed)
            with geoconv_frames(model, boxes):
                logits = model(torch.zeros(16, 1, 16, 16))
            nn.functional.binary_cross_entropy_with_logits(logits, self.filled(boxes).float()).backward()
            optimizer.step()
            optimizer.zero_grad()
        unseen = self.boxes(64, 1000)
        assert self.overlap(model, unseen, unseen) > 0.85
        assert self.overlap(model, unseen, unseen, side=32) > 0.8
        assert self.overlap(model, unseen, unseen.roll(1, 0)) < 0.4


class TestCopies:
    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_have_frames_of_their_own(self, duplicate):
        unet = trained_stable_diffusion().unet.requires_grad_(False)
        latents, text = latents_and_text()
        set_geoconv_frames(unet, BOXES[:2])
        framed = unet(latents, 7, text).sample
        twin = duplicate(unet)
        assert torch.equal(twin(latents, 7, text).sample, framed)
        set_geoconv_frames(twin, None)
        assert not torch.equal(twin(latents, 7, text).sample, framed)
        assert torch.equal(unet(latents, 7, text).sample, framed)

    def test_models_in_other_precisions(self):
        """Tables are kept for each."""
        unet = trained_stable_diffusion().unet.requires_grad_(False)
        set_geoconv_frames(unet, BOXES[:2])
        latents, text = latents_and_text()
        expected = unet(latents, 7, text).sample
        found = unet.double()(latents.double(), 7, text.double()).sample
        assert relative_error(expected, found) < 1e-5
        assert relative_error(unet.bfloat16()(latents.bfloat16(), 7, text.bfloat16()).sample, found) < 0.05

    def test_tables_of_inference_serve_training(self):
        model = blocks().eval()
        set_geoconv_frames(model, BOXES[:2])
        with torch.inference_mode():
            model(X)
        model(X).sum().backward()
        assert all(weight.grad.any() for weight in geoconv_parameters(model).values())

    def test_offloaded_models(self):
        pipe = trained_stable_diffusion()
        latents, text = latents_and_text()
        set_geoconv_frames(pipe, BOXES[:2])
        with torch.no_grad():
            expected = pipe.unet(latents, 7, text).sample
            pipe.unet.enable_group_offload(
                onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), offload_type="leaf_level"
            )
            assert torch.equal(pipe.unet(latents, 7, text).sample, expected)


class TestFiles:
    DEFAULT = (0.1, 0.2, 0.6, 0.9)

    def run(self, pipe) -> torch.Tensor:
        latents, text = latents_and_text()
        with torch.no_grad():
            return pipe.unet(latents, 7, text).sample

    def test_the_default_frame_is_saved_and_loaded(self, tmp_path):
        pipe, plain = trained_stable_diffusion(GeoConvConfig(default_frame=self.DEFAULT)), trained_stable_diffusion()
        save_geoconv_weights(pipe, tmp_path)
        fresh = tiny_stable_diffusion()
        assert load_geoconv_weights(fresh, tmp_path).config.default_frame == self.DEFAULT
        assert torch.equal(self.run(fresh), self.run(pipe))
        with geoconv_frames(plain, self.DEFAULT):
            assert torch.equal(self.run(fresh), self.run(plain))
        set_geoconv_frames(fresh, (0, 0, 1, 1))
        assert torch.equal(self.run(fresh), self.run(plain))

    def test_saving_a_model_keeps_it_too(self, tmp_path):
        pipe = trained_stable_diffusion(GeoConvConfig(default_frame=self.DEFAULT))
        pipe.save_pretrained(tmp_path)
        fresh = tiny_stable_diffusion()
        assert load_geoconv_weights(fresh, tmp_path).config.default_frame == self.DEFAULT
        assert torch.equal(self.run(fresh), self.run(pipe))

    def test_files_without_frames_are_as_before(self, tmp_path):
        save_geoconv_weights(trained_stable_diffusion(), tmp_path)
        assert "default_frame" not in (tmp_path / "geoconv_config.json").read_text()

    def test_an_adapter_without_frames_goes_into_the_frames_that_are_set(self, tmp_path):
        pipe = trained_stable_diffusion()
        save_geoconv_weights(trained_stable_diffusion(seed=1), tmp_path)
        set_geoconv_frames(pipe, BOXES[:2])
        load_geoconv_weights(pipe, tmp_path)
        assert geoconv_status(pipe).frames == {"unet": 2}
        expected = trained_stable_diffusion(seed=1)
        set_geoconv_frames(expected, BOXES[:2])
        assert torch.equal(self.run(pipe), self.run(expected))

    @pytest.mark.parametrize("first", [None, DEFAULT])
    def test_adapters_of_other_default_frames_do_not_share_a_model(self, tmp_path, first):
        pipe = trained_stable_diffusion(GeoConvConfig(default_frame=first))
        other = (0.0, 0.0, 0.5, 0.5)
        save_geoconv_weights(trained_stable_diffusion(GeoConvConfig(default_frame=other)), tmp_path)
        before = self.run(pipe)
        with pytest.raises(SurgeryError, match=r"default_frame=.*, not default_frame=\(0.0, 0.0, 0.5, 0.5\)"):
            load_geoconv_weights(pipe, tmp_path, "other")
        assert torch.equal(self.run(pipe), before)

    def test_networks_that_were_built_of_geoconvs_have_no_default(self, tmp_path):
        model = nn.Sequential(nn.Conv2d(3, 4, 3))
        apply_geoconv(model, GeoConvConfig(default_frame=self.DEFAULT))
        save_geoconv_weights(model, tmp_path)
        with pytest.raises(AdapterError, match="was trained with frames"):
            load_geoconv_weights(nn.Sequential(GeoConv2d(3, 4, 3, basis="multilinear")), tmp_path)

    def test_taps_trained_with_frames_are_not_converted(self):
        pipe = trained_stable_diffusion(GeoConvConfig(basis="taps", default_frame=self.DEFAULT))
        with pytest.raises(AdapterError, match="trained with frames"):
            convert_adapter(pipe, lambda: self.run(pipe))
