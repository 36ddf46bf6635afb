"""Latents and noise of a training are those of the pipeline that draws afterwards."""

import pytest
import torch
from diffusers import EDMEulerScheduler, StableDiffusionXLImg2ImgPipeline
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_xl

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.denoising import build_denoising, ddpm_scheduler, default_denoising
from geopos_diffusers.finetuning.latents import encode_moments, sample_latents
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments

STATISTICS = {"latents_mean": [-1.6, 1.1, 2.7, -3.6], "latents_std": [8.4, 5.9, 5.3, 5.2]}


@pytest.mark.parametrize("statistics", [{}, STATISTICS, {"latents_mean": STATISTICS["latents_mean"]}])
def test_latents_are_normalised_as_the_pipeline_does(statistics):
    pipe = StableDiffusionXLImg2ImgPipeline(**tiny_stable_diffusion_xl().components)
    pipe.vae.register_to_config(**statistics)
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.manual_seed(1)
    found = sample_latents(pipe.vae, encode_moments(pipe.vae, pixels))
    torch.manual_seed(1)
    with torch.no_grad():
        expected = pipe.prepare_latents(pixels, None, 2, 1, torch.float32, torch.device("cpu"), add_noise=False)
    torch.testing.assert_close(found, expected)


def test_noise_without_betas_is_refused():
    args = TextToImageArguments(dataset="d", output_dir="o", max_train_steps=1)
    pipe = tiny_stable_diffusion_xl()
    pipe.scheduler = EDMEulerScheduler()
    message = "StableDiffusionXLPipeline has a EDMEulerScheduler, whose noise is not that of DDPM"
    with pytest.raises(ConfigError, match=message):
        build_denoising(pipe, args)
    with pytest.raises(ConfigError, match=message):
        default_denoising(pipe)


def test_noise_with_betas_is_that_of_the_pipeline():
    pipe = tiny_stable_diffusion()
    assert torch.equal(ddpm_scheduler(pipe).alphas_cumprod, pipe.scheduler.alphas_cumprod)
