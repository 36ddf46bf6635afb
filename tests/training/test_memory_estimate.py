"""The arithmetic of memory against what a training step has alive at its peak, counted storage by storage."""

import weakref

import pytest
import torch
from tiny_models import tiny_stable_diffusion
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geopos_diffusers import apply_geoconv, geoconv_parameters
from geopos_diffusers.training.memory_estimate import MemoryEstimate, activation_bytes, block_bytes, estimate_memory

BATCH, SIZE = 4, 16


class Peak(TorchDispatchMode):
    """Bytes of all tensors that are made within the block and alive at once, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.known: weakref.WeakSet = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and (storage := value.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self.forget, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return result

    def forget(self, size: int) -> None:
        self.alive -= size


def prepared(full: bool, device: str = "cpu"):
    """The tiny UNet, what is trained, and a call of it with a batch of its own."""
    unet = tiny_stable_diffusion().unet.train().requires_grad_(full)
    if not full:
        apply_geoconv(unet)
        for weight in geoconv_parameters(unet).values():
            weight.requires_grad_(True)
    unet.to(device)
    trained = {name: value for name, value in unet.named_parameters() if value.requires_grad}

    def call(batch: int = BATCH, size: int = SIZE):
        latents, text = torch.zeros(batch, 4, size, size, device=device), torch.zeros(batch, 8, 16, device=device)
        return unet(latents, torch.tensor(10, device=device), text).sample

    return unet, trained, call


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("full", [True, False])
def test_a_step_needs_what_was_estimated(full, checkpointing):
    unet, trained, call = prepared(full)
    activations = BATCH * activation_bytes(unet, lambda: call(1), checkpointing)
    estimate = estimate_memory(unet, trained, activations)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    call().square().mean().backward()
    optimizer.step()  # makes the moments
    parameters = sum(value.numel() * value.element_size() for value in unet.parameters())
    moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.dim())
    assert (parameters, moments) == (estimate.frozen + estimate.trained, estimate.moments)
    # The gradients stay, as where batches are accumulated, so that they and the activations are there at once.
    gradients = sum(value.grad.nbytes for value in trained.values())
    assert gradients == estimate.gradients
    with Peak() as peak:
        call().square().mean().backward()
    # Beside what is kept there are the tensors in work: those of one layer, which count for more in a tiny model.
    assert 0.9 <= peak.peak / estimate.activations <= 1.35


def test_activations_grow_with_the_batch_and_the_pixels():
    unet, _, call = prepared(full=True)
    one = activation_bytes(unet, lambda: call(1))
    assert activation_bytes(unet, lambda: call(4)) == pytest.approx(4 * one, rel=0.05)
    assert activation_bytes(unet, lambda: call(1, 2 * SIZE)) == pytest.approx(4 * one, rel=0.1)
    assert activation_bytes(unet, lambda: call(1), checkpointing=True) < 0.75 * one
    assert not unet.is_gradient_checkpointing


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("full", [True, False])
def test_a_model_without_memory_is_counted_as_the_real_one(full, checkpointing):
    counted = []
    for device in ("cpu", "meta"):
        unet, _, call = prepared(full, device=device)
        counted.append(activation_bytes(unet, call, checkpointing))
    assert counted[1] == pytest.approx(counted[0], rel=0.05)


def test_sharded_over_processes():
    unet, trained, _ = prepared(full=True)
    whole, shared = (estimate_memory(unet, trained, 1000, average=True, processes=n) for n in (1, 4))
    for name in ("trained", "gradients", "moments", "average"):
        assert getattr(shared, name) == getattr(whole, name) // 4
    assert (shared.activations, whole.gathered) == (1000, 0)
    root, *others = block_bytes(unet)
    assert sum([root, *others]) == whole.trained
    assert shared.gathered == root + sum(sorted(others)[-2:]) < whole.trained
    resnet = unet.mid_block.resnets[0]
    assert sum(4 * value.numel() for value in resnet.parameters()) in others


def test_an_estimate_reads_as_a_line():
    estimate = MemoryEstimate(frozen=2**31, trained=2**30, gradients=0, moments=0, average=0, activations=2**29)
    assert str(estimate) == "3.50 GiB (frozen 2.00, trained 1.00, activations 0.50)"
