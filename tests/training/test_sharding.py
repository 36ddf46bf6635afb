"""Sharded parameters in one process: the same code as in several, without waiting for them to start."""

import socket

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from trained_models import denoise, trained_stable_diffusion

from geopos_diffusers import load_geoconv_weights, save_geoconv_weights
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.training.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from geopos_diffusers.training.optimizers import SHARDED, build_optimizer
from geopos_diffusers.training.sharding import gathered, own_part, shard, sharding_plugin, spread, unsharded


@pytest.fixture(scope="module", autouse=True)
def one_process():
    """A process group of this process alone."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def make_state(sharded: bool, seed: int = 0, optimizer: str = "adamw") -> TrainingState:
    """The tiny UNet with all geometry weights and one block's own trained."""
    accelerator, unet = Accelerator(cpu=True), trained_stable_diffusion(seed=seed).unet
    names = [name for name, _ in unet.named_parameters() if name.endswith("geo_weight") or name.startswith("mid_block")]
    parameters = dict(unet.named_parameters())
    for name in parameters:
        parameters[name].requires_grad_(name in names)
    trained = {name: parameters[name] for name in names}
    if sharded:
        trained = shard(unet, trained, accelerator)
        assert all(type(value.data).__name__ == "DTensor" for value in unet.parameters())
    groups = [{"params": list(trained.values()), "lr": 0.1, "weight_decay": 0.01}]
    optimizer = build_optimizer(optimizer, groups, {})
    ema = EMAModel(trained.values(), decay=0.5)
    state = TrainingState(accelerator, trained, optimizer, ema, {"seed": 0}, model=unet if sharded else None)
    state.unet = unet
    return state


def advance(state: TrainingState, seed: int) -> None:
    """A step with random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in state.parameters.values():
        parameter.grad = spread(torch.randn(parameter.shape, generator=generator), parameter)
    state.optimizer.step()
    state.ema.step(state.parameters.values())


def values(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: gathered(value.detach()).clone() for name, value in state.parameters.items()}


def save(state: TrainingState, step: int, folder):
    def save_parts(target):
        save_geoconv_weights(state.unet, target)
        save_file(state.unet.state_dict(), target / "whole.safetensors")

    return save_checkpoint(state, step, folder, save_parts)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_sharded_state_is_saved_as_a_whole_one_and_both_continue_alike(tmp_path):
    sharded, whole = make_state(True), make_state(False)
    for state, name in ((sharded, "sharded"), (whole, "whole")):
        advance(state, 1)
        advance(state, 2)
        before = values(state)
        save(state, 2, tmp_path / name)
        assert same(values(state), before)  # the average is gone again
    folders = [tmp_path / name / "checkpoint-2" / "training_state" for name in ("sharded", "whole")]
    for file in ("weights", "optimizer", "ema", "random_states"):
        assert same(*(load_file(folder / f"{file}.safetensors") for folder in folders)), file
    for source in ("sharded", "whole"):
        for other in (make_state(True, seed=1), make_state(False, seed=1)):
            assert load_checkpoint(other, tmp_path / source / "checkpoint-2") == 2
            advance(other, 3)
            others = values(other)
            assert len(others) > 20
    advance(whole, 3)
    assert same(others, values(whole))


@pytest.mark.parametrize("name", [name for name in SHARDED if name != "adamw"])
def test_optimizers_of_shards(tmp_path, name):
    sharded, whole = make_state(True, optimizer=name), make_state(False, optimizer=name)
    for state in (sharded, whole):
        advance(state, 1)
    save(sharded, 1, tmp_path)
    other = make_state(True, seed=1, optimizer=name)
    load_checkpoint(other, tmp_path / "checkpoint-1")
    for state in (whole, other):
        advance(state, 2)
    assert same(values(other), values(whole))


def test_adapters_and_whole_models_are_saved_in_their_final_format(tmp_path):
    sharded, whole = make_state(True), make_state(False)
    folders = []
    for state, name in ((sharded, "sharded"), (whole, "whole")):
        advance(state, 1)
        folders.append(save(state, 1, tmp_path / name))
    for file in ("whole.safetensors", "geoconv_weights.safetensors"):
        assert same(*(load_file(folder / file) for folder in folders))
    first, second = ((folder / "geoconv_config.json").read_text() for folder in folders)
    assert first == second
    unet = trained_stable_diffusion(seed=1).unet
    load_geoconv_weights(unet, folders[0])
    assert "geo_weight" in "".join(load_file(folders[0] / "whole.safetensors"))


def test_within_the_block_the_model_is_a_plain_one_and_then_trains_on():
    state, plain = make_state(True), make_state(False)
    expected = denoise(plain.unet)
    for _ in range(2):
        with unsharded(state.model):
            assert type(state.unet) is type(plain.unet)
            assert same(state.unet.state_dict(), plain.unet.state_dict())
            torch.testing.assert_close(denoise(state.unet), expected, rtol=0, atol=1e-6)
            assert not any(hasattr(value, "full_tensor") for value in state.unet.state_dict().values())
        assert type(state.unet).__name__ == f"FSDP{type(plain.unet).__name__}"
        assert all(hasattr(value, "full_tensor") for value in state.unet.parameters())
        torch.testing.assert_close(denoise(state.unet), expected, rtol=0, atol=1e-6)


def test_shards_and_wholes():
    state = make_state(True)
    parameter = next(iter(state.parameters.values()))
    value = torch.randn(parameter.shape)
    assert torch.equal(gathered(spread(value, parameter)), value)
    assert torch.equal(own_part(spread(value, parameter)), value)  # of the only process
    assert gathered(value) is own_part(value) is spread(value, value) is value


def test_classes_that_the_model_does_not_have(monkeypatch):
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaDecoderLayer")
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    with pytest.raises(ConfigError, match="UNet2DConditionModel has no module of class LlamaDecoderLayer to shard"):
        make_state(True)


def test_what_another_model_trains():
    with pytest.raises(ConfigError, match="x belongs to another; use plain data parallelism"):
        shard(trained_stable_diffusion().unet, {"x": torch.nn.Parameter(torch.zeros(1))}, Accelerator(cpu=True))


def test_one_process_alone_is_never_sharded(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert sharding_plugin(Accelerator(cpu=True)) is None
