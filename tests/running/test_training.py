"""Training: gradient checkpointing, data parallel processes, and sharded parameters."""

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from trained_models import denoise, latents_and_text, relative_error, trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_frames,
)
from geopos_diffusers.patching.config import BASES

FRAMES = [(0.0, 0.0, 0.5, 0.75), (0.5, 0.25, 1.0, 1.0)]  # of the two samples


def loss(unet: nn.Module, sample: slice = slice(None)) -> torch.Tensor:
    latents, text = latents_and_text(8, 8)
    return unet(latents[sample], 7, text[sample]).sample.square().mean()


class TestGradientCheckpointing:
    @pytest.mark.parametrize("shift_scope", ["layer", "model"])
    @pytest.mark.parametrize("shift_unit", ["batch", "sample"])
    @pytest.mark.parametrize("basis", BASES)
    def test_gradients_are_bitwise_equal(self, shift_scope, shift_unit, basis):
        config = GeoConvConfig(shift_scope=shift_scope, shift_unit=shift_unit, basis=basis)
        unet = trained_stable_diffusion(config).unet.train()
        gradients = []
        for switch in (unet.disable_gradient_checkpointing, unet.enable_gradient_checkpointing):
            switch()
            unet.zero_grad()
            torch.manual_seed(0)
            loss(unet).backward()
            gradients.append({name: parameter.grad.clone() for name, parameter in unet.named_parameters()})
        assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
        assert gradients[0]["conv_in.geo_weight"].any()


@pytest.fixture(scope="class")
def one_process():
    """A process group of this process alone; on exit it is gone again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def step(model: nn.Module, sample: slice = slice(None)) -> None:
    """One step of plain gradient descent on the geometry weights."""
    optimizer = torch.optim.SGD(geoconv_parameters(model).values(), lr=0.1)
    loss(model, sample).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.usefixtures("one_process")
class TestOneProcess:
    @pytest.mark.parametrize("basis", BASES)
    def test_data_parallel(self, basis):
        unet, plain = (trained_stable_diffusion(GeoConvConfig(basis=basis)).unet for _ in range(2))
        wrapped = DistributedDataParallel(unet)
        assert geoconv_status(wrapped).patched == geoconv_status(plain).patched
        step(wrapped)
        step(plain)
        torch.testing.assert_close(denoise(unet), denoise(plain), rtol=0, atol=1e-6)

    def test_data_parallel_in_frames(self):
        unet, plain = (trained_stable_diffusion().unet for _ in range(2))
        wrapped = DistributedDataParallel(unet)
        for model in (wrapped, plain):
            set_geoconv_frames(model, FRAMES)
            step(model)
        torch.testing.assert_close(denoise(unet), denoise(plain), rtol=0, atol=1e-6)
        set_geoconv_frames(wrapped, None)
        assert relative_error(denoise(unet), denoise(plain)) > 0.001

    def test_fully_shard(self, tmp_path):
        """FSDP2: patch, then shard; saving gathers the shards and loading distributes them."""
        unet, plain = trained_stable_diffusion().unet, trained_stable_diffusion().unet
        mesh = init_device_mesh("cpu", (1,))
        for block in (*unet.down_blocks, *unet.up_blocks):
            fully_shard(block, mesh=mesh)
        fully_shard(unet, mesh=mesh)
        step(unet)
        step(plain)
        torch.testing.assert_close(denoise(unet), denoise(plain), rtol=0, atol=1e-6)
        save_geoconv_weights(unet, tmp_path)
        other = trained_stable_diffusion(seed=1).unet
        load_geoconv_weights(other, tmp_path)
        torch.testing.assert_close(denoise(other), denoise(plain), rtol=0, atol=1e-6)
        save_geoconv_weights(trained_stable_diffusion(seed=1), tmp_path / "other")
        load_geoconv_weights(unet, tmp_path / "other")
        assert relative_error(denoise(unet), denoise(plain)) > 0.01
        load_geoconv_weights(unet, tmp_path)
        torch.testing.assert_close(denoise(unet), denoise(plain), rtol=0, atol=1e-6)


def _train_a_half(rank: int, folder: Path, kind: str) -> None:
    """One of two processes: a step on its half of the batch; the first saves the adapter."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    unet = trained_stable_diffusion().unet
    if "frames" in kind:
        set_geoconv_frames(unet, FRAMES[rank])
    if "data parallel" in kind:
        model = DistributedDataParallel(unet)
    else:
        mesh = init_device_mesh("cpu", (2,))
        for block in (*unet.down_blocks, *unet.up_blocks):
            fully_shard(block, mesh=mesh)
        model = fully_shard(unet, mesh=mesh)
    step(model, slice(rank, rank + 1))
    # Sharded weights are gathered from both processes, so both must save; each to a folder of its own here.
    save_geoconv_weights(model, folder / f"adapter{rank}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data parallel", "data parallel in frames", "fully sharded"])
def test_two_processes_train_as_one(tmp_path, kind):
    torch.multiprocessing.spawn(_train_a_half, (tmp_path, kind), nprocs=2)
    plain = trained_stable_diffusion().unet
    set_geoconv_frames(plain, FRAMES if "frames" in kind else None)
    step(plain)
    set_geoconv_frames(plain, None)
    for rank in range(2):
        unet = trained_stable_diffusion(seed=1).unet
        load_geoconv_weights(unet, tmp_path / f"adapter{rank}")
        torch.testing.assert_close(denoise(unet), denoise(plain), rtol=0, atol=1e-4)
