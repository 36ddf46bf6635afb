"""One step of denoising: what is random, what is compared, and what a mask weighs."""

import pytest
import torch
from diffusers import DDPMScheduler

from geopos_diffusers.finetuning.denoising_loss import banded_losses, denoising_losses
from geopos_diffusers.finetuning.unconditional_arguments import UnconditionalArguments

CLEAN = torch.linspace(-1, 1, 6 * 3 * 8 * 8).view(6, 3, 8, 8)


def arguments(**options):
    return UnconditionalArguments(model="m", dataset=["d"], output_dir="o", max_train_steps=1, **options)


def loss(mask=None, predict=None, kind="epsilon", **options):
    torch.manual_seed(0)
    scheduler = DDPMScheduler(prediction_type=kind)
    predict = predict or (lambda noisy, timesteps: 0.3 * noisy)
    return denoising_losses(arguments(**options), scheduler, CLEAN, predict, mask)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_it_is_the_squared_error_of_what_the_model_predicts(kind):
    scheduler, seen = DDPMScheduler(prediction_type=kind), []

    def predict(noisy, timesteps):
        seen.append((noisy, timesteps))
        return 0.3 * noisy

    found = loss(predict=predict, kind=kind)["loss"]
    noisy, timesteps = seen[0]
    alphas = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noise = (noisy - alphas.sqrt() * CLEAN) / (1 - alphas).sqrt()
    target = {"epsilon": noise, "sample": CLEAN, "v_prediction": alphas.sqrt() * noise - (1 - alphas).sqrt() * CLEAN}
    torch.testing.assert_close(found, (0.3 * noisy - target[kind]).square().mean(), rtol=1e-3, atol=1e-4)


def test_a_mask_of_ones_weighs_nothing():
    plain, masked = loss(), loss(torch.ones(6, 1, 16, 16))
    torch.testing.assert_close(masked["loss"], plain["loss"])
    assert masked["mask_loss_share"] == pytest.approx(1)
    assert "mask_loss_share" not in plain


def test_a_mask_weighs_its_inside():
    mask = torch.zeros(6, 1, 16, 16)
    mask[..., :8] = 1

    def right_in_the_mask(noisy, timesteps):
        torch.manual_seed(0)
        wrong = torch.randn_like(noisy)  # the very noise, which is drawn first
        wrong[..., 4:] = 0
        return wrong

    inside = loss(mask, right_in_the_mask, mask_column="mask", mask_floor=0.0)
    assert inside["loss"] == 0
    floor = loss(mask, right_in_the_mask, mask_column="mask", mask_floor=0.25)
    everywhere = loss(predict=right_in_the_mask)
    # Half of the weights' sum is 1, half 0.25; all error lies in the latter.
    torch.testing.assert_close(floor["loss"], 0.25 * everywhere["loss"] * 2 / 1.25)
    assert floor["mask_loss_share"] == 0


def test_options_of_the_noise_change_the_input_or_the_target():
    plain = loss()["loss"]
    assert loss(noise_offset=0.5)["loss"] != plain
    assert loss(input_perturbation=0.5)["loss"] > plain
    assert loss(snr_gamma=1e-3)["loss"] < 0.5 * plain


def test_bands_share_out_the_timesteps():
    seen = []

    def predict(noisy, timesteps):
        seen.append(timesteps)
        return torch.zeros_like(noisy)

    before = torch.get_rng_state()
    losses = banded_losses(DDPMScheduler(), CLEAN, predict, 4, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    assert [int(t.min()) // 250 for t in seen] == [int(t.max()) // 250 for t in seen] == [0, 1, 2, 3]
    bands = [losses[f"validation_loss_band_{band}"] for band in range(4)]
    torch.testing.assert_close(losses["validation_loss"], torch.stack(bands).mean(0))
    assert losses["validation_loss"].mean() == pytest.approx(1, abs=0.2)
