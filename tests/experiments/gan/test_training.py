import numpy as np
import pytest
import torch
from accelerate import Accelerator
from experiments.gan.arguments import GanArguments
from experiments.gan.training import build_run, draw_samples, epoch_end, train_step, write_sheet
from PIL import Image


def make_run(variant: str, folder, **changes):
    settings = {"width": 4, "latent_size": 8, "batch_size": 8, "samples": 24, **changes}
    return build_run(GanArguments("data", str(folder), **settings), Accelerator(cpu=True), variant, 0)


def weights(network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_epochs_are_passes_over_all_images():
    ends = [epoch_end(epoch, 1236, 64) for epoch in range(451)]
    assert ends[:3] == [0, 19, 38]
    # Whole batches: never more than one short of the images that the epochs hold.
    assert all(0 <= epoch * 1236 - end * 64 < 64 for epoch, end in enumerate(ends))


def test_a_step_moves_both_networks_and_each_by_its_own_loss(tmp_path):
    run = make_run("geo", tmp_path)
    real, latents = torch.rand(8, 3, 32, 32) * 2 - 1, torch.randn(8, 8)
    before = [weights(network) for network in (run.generator, run.discriminator)]
    losses = train_step(run, real, latents)
    after = [weights(network) for network in (run.generator, run.discriminator)]
    assert losses.keys() == {"discriminator", "generator"}
    for old, new in zip(before, after, strict=True):
        # Adam's first step is the learning rate, whatever the gradient's size.
        assert (new - old).abs().max().item() == pytest.approx(run.args.learning_rate, rel=1e-2)
    assert all(parameter.requires_grad for parameter in run.discriminator.parameters())
    assert all(parameter.grad is None for parameter in run.discriminator.parameters())


def test_discriminator_learns_what_is_real(tmp_path):
    run = make_run("conv", tmp_path, learning_rate=0.002)
    real = torch.full((8, 3, 32, 32), 0.9) + 0.05 * torch.randn(8, 3, 32, 32)
    losses = [train_step(run, real, torch.randn(8, 8))["discriminator"].item() for _ in range(15)]
    assert losses[0] == pytest.approx(2 * np.log(2), rel=0.2)
    assert losses[-1] < losses[0] / 3


def test_samples_shift_only_when_asked_and_leave_the_random_state_alone(tmp_path):
    run = make_run("geo", tmp_path)
    state = torch.get_rng_state()
    plain, again, shifted, shifted_again = (draw_samples(run, shifted) for shifted in (False, False, True, True))
    assert torch.equal(torch.get_rng_state(), state)
    assert plain.shape == (24, 3, 32, 32)
    assert torch.equal(plain, again)
    assert torch.equal(shifted, shifted_again)
    assert not torch.equal(plain, shifted)
    # Batch normalisation stays as it is: nothing of the drawing is learnt.
    assert all(value == 0 for name, value in run.generator.named_buffers() if name.endswith("num_batches_tracked"))
    still = make_run("geo-no-shift", tmp_path)
    torch.testing.assert_close(draw_samples(still), draw_samples(still, shifted=True), rtol=0, atol=1e-5)


def test_fixed_latents_are_those_of_every_variant(tmp_path):
    runs = [make_run(variant, tmp_path) for variant in ("conv", "coord")]
    for run in runs:
        for layer in run.generator:
            if getattr(layer, "geo_weight", None) is not None:
                torch.nn.init.zeros_(layer.geo_weight)
    torch.testing.assert_close(*(draw_samples(run) for run in runs))


def test_sheet(tmp_path):
    samples = torch.linspace(-1, 1, 16).view(16, 1, 1, 1).expand(16, 3, 8, 8)
    write_sheet(samples, tmp_path / "sheet.png")
    pixels = np.array(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape == (32, 32, 3)
    assert pixels[0, 0, 0] == 0
    assert pixels[-1, -1, 0] == 255
    assert pixels[0, 8, 0] == 17  # the second sample stands to the right of the first
