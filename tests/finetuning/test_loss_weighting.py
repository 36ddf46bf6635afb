import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.diffusion_loss import diffusion_loss, prediction_target
from geopos_diffusers.finetuning.loss_weighting import WEIGHTINGS, LossWeighting, choose_weighting

PREDICTIONS = ("epsilon", "v_prediction", "sample")
TIMESTEPS = torch.tensor([0, 10, 250, 500, 750, 999])


def scheduler(prediction: str, zero_snr: bool = False) -> DDPMScheduler:
    return DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=prediction,
        rescale_betas_zero_snr=zero_snr,
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_of_diffusers(prediction):
    noise = scheduler(prediction)
    snr = compute_snr(noise, TIMESTEPS)
    capped = snr.clamp(max=5)
    expected = {"epsilon": capped / snr, "v_prediction": capped / (snr + 1), "sample": capped}[prediction]
    torch.testing.assert_close(LossWeighting("min_snr")(noise, TIMESTEPS), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["min_snr", "debiased", "p2"])
def test_all_predictions_have_the_same_weighted_error(kind):
    """One network, read as a predictor of noise, of v or of the sample: its weighted loss must not depend on that."""
    generator = torch.Generator().manual_seed(0)
    latents, noise, error = (torch.randn(6, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    losses = {}
    for prediction in PREDICTIONS:
        model = scheduler(prediction)
        model.alphas_cumprod = model.alphas_cumprod.double()
        alpha = model.alphas_cumprod[TIMESTEPS].view(-1, 1, 1, 1)
        # An error of the noise, at the same noisy latents, moves the sample by -sqrt((1 - a) / a) and v by 1 / sqrt(a).
        scale = {"epsilon": 1.0, "v_prediction": alpha.rsqrt(), "sample": -((1 - alpha) / alpha).sqrt()}[prediction]
        target = prediction_target(model, latents, noise, TIMESTEPS)
        weights = LossWeighting(kind, p2_gamma=0.5)(model, TIMESTEPS)
        losses[prediction] = weights * (scale * error).square().flatten(1).mean(1)
        assert diffusion_loss(
            target + scale * error, target, model, TIMESTEPS, LossWeighting(kind, p2_gamma=0.5)
        ).item() == pytest.approx(losses[prediction].mean().item(), rel=1e-5)
    for prediction in PREDICTIONS:
        torch.testing.assert_close(losses[prediction], losses["epsilon"])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("kind", [kind for kind in WEIGHTINGS if kind != "none"])
def test_weights_are_finite_at_a_zero_terminal_ratio(kind, prediction):
    model = scheduler(prediction, zero_snr=True)
    assert compute_snr(model, TIMESTEPS)[-1] < 1e-4
    model.alphas_cumprod[-1] = 0.0
    weights = LossWeighting(kind)(model, TIMESTEPS)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    if (kind, prediction) == ("min_snr", "epsilon"):
        assert weights[-1] == 1


def test_numbers_of_the_papers():
    model = scheduler("epsilon")
    model.alphas_cumprod = torch.tensor([0.8, 0.2])  # ratios of 4 and 1/4
    steps = torch.tensor([0, 1])
    torch.testing.assert_close(LossWeighting("debiased")(model, steps), torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(LossWeighting("p2")(model, steps), torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(
        LossWeighting("p2", p2_gamma=2.0, p2_k=2.0)(model, steps), torch.tensor([1 / 36, 1 / 2.25**2])
    )
    torch.testing.assert_close(LossWeighting("min_snr", snr_gamma=1.0)(model, steps), torch.tensor([0.25, 1.0]))
    assert LossWeighting()(model, steps) is None


class TestOptions:
    def test_a_number_alone_says_which_weighting(self):
        assert choose_weighting() == LossWeighting("none")
        assert choose_weighting(snr_gamma=3) == LossWeighting("min_snr", snr_gamma=3)
        assert choose_weighting(p2_k=2) == LossWeighting("p2", p2_k=2)
        assert choose_weighting("p2") == LossWeighting("p2", p2_gamma=1.0, p2_k=1.0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"kind": "debiased", "snr_gamma": 5},
                "snr_gamma is a number of loss_weighting min_snr; this run has debi",
            ),
            ({"snr_gamma": 5, "p2_gamma": 1}, "p2_gamma is a number of loss_weighting p2; this run has min_snr"),
        ],
    )
    def test_a_number_of_another_weighting_is_refused(self, options, message):
        with pytest.raises(ConfigError, match=message):
            choose_weighting(**options)
