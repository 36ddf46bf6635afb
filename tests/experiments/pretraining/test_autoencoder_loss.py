import pytest
import torch
from diffusers import AutoencoderKL
from experiments.pretraining.autoencoder_loss import (
    AutoencoderLoss,
    center_latents,
    encode_means,
    peak_signal_to_noise,
    reconstruct,
)


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=3,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def test_centering_moves_the_latents_and_keeps_the_reconstructions(vae):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before, decoded = encode_means(vae, images), reconstruct(vae, images)
    mean = before.mean((0, 2, 3))
    assert mean.abs().max() > 1e-3
    center_latents(vae, mean)
    after = encode_means(vae, images)
    torch.testing.assert_close(after, before - mean.view(-1, 1, 1))
    torch.testing.assert_close(after.mean((0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(reconstruct(vae, images), decoded, atol=1e-5, rtol=0)


def test_signal_to_noise_of_a_known_error():
    image = torch.zeros(2, 3, 8, 8)
    # An error of 0.2 in [-1, 1] is 0.1 of the peak: 20 dB.
    torch.testing.assert_close(peak_signal_to_noise(image, image + 0.2), torch.full((2,), 20.0))


def test_parts_of_the_loss_add_up_with_their_weights(vae):
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    losses = AutoencoderLoss(vae, gradient_weight=0.5, kl_weight=0.25)(images, torch.zeros(2, 3, 8, 8))
    expected = losses["l1"] + 0.5 * losses["gradient"] + 0.25 * losses["kl"]
    torch.testing.assert_close(losses["loss"].detach(), expected)
    # Without noise the decoder sees the means, as in `reconstruct` (which clamps).
    decoded = vae.decode(encode_means(vae, images)).sample
    torch.testing.assert_close(losses["l1"], (decoded - images).abs().mean().detach())


def test_kl_is_that_of_the_library(vae):
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    losses = AutoencoderLoss(vae, 1.0, 1.0)(images, torch.zeros(2, 3, 8, 8))
    library = vae.encode(images).latent_dist.kl() / (3 * 8 * 8)
    torch.testing.assert_close(losses["kl"], library.mean().detach())
