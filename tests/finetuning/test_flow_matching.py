import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from tiny_models import tiny_sana, tiny_stable_diffusion, tiny_stable_diffusion_3

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.denoising import build_denoising
from geopos_diffusers.finetuning.flow_matching import FlowMatching, is_flow_matching
from geopos_diffusers.finetuning.supported_pipelines import size_multiple
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments

CPU = torch.device("cpu")
WEIGHTINGS = ("logit_normal", "mode", "sigma_sqrt", "cosmap", "uniform")


def arguments(**options) -> TextToImageArguments:
    return TextToImageArguments(dataset="d", output_dir="o", max_train_steps=1, **options)


def library_loss(predict, latents, noise, shift: float, weighting: str, precondition: bool) -> torch.Tensor:
    """The loss as diffusers' utilities and its scheduler's own tables make it, one image at a time."""
    schedule = FlowMatchEulerDiscreteScheduler(shift=shift)
    density = compute_density_for_timestep_sampling(weighting, len(latents), 0.5, 0.7, 1.29)
    losses = []
    for index, image, added in zip((density * 1000).long(), latents, noise, strict=True):
        timestep = schedule.timesteps[index]
        noisy = schedule.scale_noise(image[None], timestep[None], added[None])
        prediction, sigma = predict(noisy, timestep[None]), timestep / 1000
        weight = compute_loss_weighting_for_sd3(weighting, sigma)
        error = noisy - prediction * sigma - image if precondition else prediction - (added - image)
        losses.append((weight * error**2).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("precondition", [False, True])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loss_is_that_of_the_library_on_the_same_random_numbers(weighting, precondition):
    numbers = {"logit_mean": 0.5, "logit_std": 0.7} if weighting == "logit_normal" else {}
    args = arguments(timestep_weighting=weighting, precondition_outputs=precondition, **numbers)
    flow = FlowMatching({"num_train_timesteps": 1000, "shift": 3.0}, args)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 8, 4, 6, 6, generator=generator)

    def predict(noisy, timesteps):
        return torch.sin(noisy) + 1e-3 * timesteps.view(-1, 1, 1, 1)

    torch.manual_seed(1)
    levels = flow.draw_levels(8, CPU)
    noisy = flow.add_noise(latents, noise, levels)
    errors = flow.errors(predict(noisy, flow.timesteps(levels)), noisy, latents, noise, levels)
    loss = (flow.weights(levels) * errors.flatten(1).mean(1)).mean()
    torch.manual_seed(1)
    expected = library_loss(predict, latents, noise, 3.0, weighting, precondition)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def test_a_perfect_prediction_has_no_error_and_the_last_level_is_pure_noise():
    flow = FlowMatching({"num_train_timesteps": 1000}, arguments())
    latents, noise, levels = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([0, 500, 999])
    noisy = flow.add_noise(latents, noise, levels)
    assert flow.errors(noise - latents, noisy, latents, noise, levels).abs().max() == 0
    torch.testing.assert_close(noisy[2], noise[2])
    assert flow.timesteps(levels).tolist() == pytest.approx([1, 501, 1000])
    scaled = FlowMatching({}, arguments(), timestep_scale=1e-3)
    assert scaled.timesteps(levels).tolist() == pytest.approx([1e-3, 0.501, 1])


def test_levels_follow_the_density():
    draw = lambda **options: FlowMatching({}, arguments(**options)).draw_levels(4000, CPU).float()  # noqa: E731
    torch.manual_seed(0)
    middle, uniform = draw(), draw(timestep_weighting="uniform")
    assert middle.std() < 0.8 * uniform.std()
    assert uniform.mean() == pytest.approx(500, abs=15)
    assert draw(logit_mean=1.0).mean() < 350  # less noise
    assert 0 <= uniform.min() <= uniform.max() <= 999


@pytest.mark.parametrize(("build", "shift"), [(tiny_stable_diffusion_3, 3.0), (tiny_sana, 3.0)])
def test_the_shift_is_the_pipelines_or_what_is_asked_for(build, shift):
    pipe = build()
    for value, options in ((shift, {}), (1.0, {"flow_shift": 1.0})):
        sigmas = build_denoising(pipe, arguments(**options)).sigmas(torch.tensor([499])).item()
        assert sigmas == pytest.approx(value * 0.5 / (1 + (value - 1) * 0.5))


def test_options_of_the_other_kind_are_refused():
    sana, sd = tiny_sana(), tiny_stable_diffusion()
    assert is_flow_matching(sana.scheduler)
    assert not is_flow_matching(sd.scheduler)
    with pytest.raises(ConfigError, match="snr_gamma is of denoising diffusion; SanaPipeline is trained by flow"):
        build_denoising(sana, arguments(snr_gamma=5))
    with pytest.raises(ConfigError, match="flow_shift is of flow matching; StableDiffusionPipeline is trained by"):
        build_denoising(sd, arguments(flow_shift=2))


def test_sizes_that_the_models_can_draw():
    builders = (tiny_stable_diffusion, tiny_stable_diffusion_3, tiny_sana)
    assert [size_multiple(build()) for build in builders] == [2, 4, 32]
