"""Every optimizer on a real UNet: two steps, a checkpoint, and two more are four steps, to the last bit."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from trained_models import latents_and_text

from geopos_diffusers import apply_geoconv, geoconv_parameters
from geopos_diffusers.errors import ConfigError, MissingDependencyError
from geopos_diffusers.optional_packages import is_installed
from geopos_diffusers.training.checkpoints import TrainingState, load_checkpoint, save_checkpoint
from geopos_diffusers.training.optimizers import NAMES, SOURCES, build_optimizer, check_installed, parse_options

RATES = {"prodigy": 1.0, "sgd": 1.0, "schedule-free-sgd": 1.0}
OPTIONS = {"adamw-8bit": {"min_8bit_size": 64}}  # by default it takes 8 bits for 4,096 weights or more


class Run:
    """The tiny UNet with geometry weights and one attention layer in training, in two groups of parameters."""

    def __init__(self, name: str, **options) -> None:
        pipe = tiny_stable_diffusion()
        apply_geoconv(pipe)
        self.unet = pipe.unet.requires_grad_(False).train()
        parameters = {f"geo.{name}": value for name, value in geoconv_parameters(pipe).items()}
        split = len(parameters)
        parameters |= dict(self.unet.down_blocks[1].attentions[0].named_parameters())
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        values, rate = list(parameters.values()), RATES.get(name, 1e-2)
        groups = [
            {"params": values[:split], "lr": rate, "weight_decay": 0.0, "part": "geoconv", "peak": rate},
            {"params": values[split:], "lr": rate, "weight_decay": 0.01, "part": "lora", "peak": rate},
        ]
        accelerator = Accelerator(cpu=True)
        optimizer = accelerator.prepare(build_optimizer(name, groups, OPTIONS.get(name, {}) | options))
        self.state = TrainingState(accelerator, parameters, optimizer, None, {})

    def step(self, count: int) -> "Run":
        latents, text = latents_and_text()
        for _ in range(count):
            prediction = self.unet(latents + torch.randn_like(latents), torch.tensor([10, 700]), text).sample
            (prediction - latents).square().mean().backward()
            self.state.optimizer.step()
            self.state.optimizer.zero_grad()
        return self

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten().clone() for parameter in self.state.parameters.values()])

    def save(self, folder: Path) -> Path:
        return save_checkpoint(self.state, 2, folder, lambda target: None)


@pytest.mark.parametrize("name", NAMES)
def test_a_continued_run_is_the_same_to_the_last_bit(name, tmp_path):
    if not is_installed(SOURCES[name].package.partition(".")[0]):
        pytest.skip(f"needs {SOURCES[name].package}")
    torch.manual_seed(1)
    run = Run(name)
    before = run.weights()
    checkpoint = run.step(2).save(tmp_path)
    expected = run.step(2).weights()
    assert not torch.equal(expected, before)

    other = Run(name)
    with torch.no_grad():
        for parameter in other.state.parameters.values():
            parameter.add_(1.0)
    assert load_checkpoint(other.state, checkpoint) == 2
    assert torch.equal(other.step(2).weights(), expected)
    files = [file for file in checkpoint.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json"}


def test_what_a_group_keeps_is_in_the_checkpoint(tmp_path):
    run = Run("prodigy")
    state = run.step(8).save(tmp_path) / "training_state"
    (values,) = json.loads((state / "state.json").read_text())["optimizers"]
    assert values["groups"][0]["step"] == 9
    assert values["groups"][0]["d"] == run.state.optimizer.param_groups[0]["d"] > 1e-6
    assert load_file(state / "optimizer.safetensors")["group 0.0:d_numerator"].shape == (1,)
    assert values["parameters"] == {}


def test_tensors_in_lists_and_types_other_than_the_parameters_are_kept(tmp_path):
    run = Run("soap").step(2)
    parameter = next(iter(run.state.parameters.values()))
    kept = run.state.optimizer.state[parameter]
    kept["exp_avg"] = kept["exp_avg"].bfloat16()  # as optimizers with moments of low precision have it
    checkpoint, other = run.save(tmp_path), Run("soap")
    load_checkpoint(other.state, checkpoint)
    restored = other.state.optimizer.state[next(iter(other.state.parameters.values()))]
    assert restored["exp_avg"].dtype == torch.bfloat16
    assert len(restored["GG"]) == len(kept["GG"]) == 2
    assert all(torch.equal(one, two) for one, two in zip(restored["GG"], kept["GG"], strict=True))


class TestScheduleFree:
    def test_its_average_is_what_is_saved_and_the_trained_weights_come_back_exactly(self, tmp_path):
        run = Run("schedule-free-adamw").step(3)
        trained, saved = run.weights(), {}
        save_checkpoint(run.state, 3, tmp_path, lambda target: saved.update(average=run.weights()))
        assert torch.equal(run.weights(), trained)
        (optimizer,) = [optimizer for optimizer, _ in run.state.optimizers()]
        z = torch.cat([optimizer.state[value]["z"].flatten() for value in run.state.parameters.values()])
        # y = (1 - beta) z + beta x, with beta 0.9 (arXiv 2405.15682).
        torch.testing.assert_close(0.1 * z + 0.9 * saved["average"], trained, rtol=1e-4, atol=1e-6)
        assert not torch.equal(saved["average"], trained)
        assert all(group["train_mode"] for group in optimizer.param_groups)

    def test_looking_at_the_average_leaves_no_trace(self):
        torch.manual_seed(3)
        expected = Run("schedule-free-adamw").step(4).weights()
        torch.manual_seed(3)
        run = Run("schedule-free-adamw").step(2)
        with run.state.averaged():
            pass
        assert torch.equal(run.step(2).weights(), expected)


class TestOptions:
    def test_texts_become_values(self):
        words = ["betas=0.9,0.99", "nesterov=true", "eps=1e-6", "foreach=none", "ns_coeffs=original"]
        assert parse_options(words) == {
            "betas": (0.9, 0.99),
            "nesterov": True,
            "eps": 1e-6,
            "foreach": None,
            "ns_coeffs": "original",
        }

    @pytest.mark.parametrize("word", ["betas", "=1", "betas=", "a b=1"])
    def test_other_texts_are_refused(self, word):
        with pytest.raises(ConfigError, match="must be key=value"):
            parse_options([word])

    def test_twice(self):
        with pytest.raises(ConfigError, match="eps twice"):
            parse_options(["eps=1", "eps=2"])

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            (
                "lion",
                {"beta": (0.9, 0.99)},
                "optimizer lion has no argument 'beta'; it has betas, .*did you mean betas?",
            ),
            ("sgd", {"lr": 1.0}, "optimizer_arguments: lr is learning_rate"),
            ("adamw", {"betas": (2.0, 0.9)}, r"optimizer adamw cannot be made with .*Invalid beta parameter"),
            ("prodigy", {"betas": (2.0, 0.9)}, "optimizer prodigy cannot be made with"),
        ],
    )
    def test_bad_ones_are_one_line(self, name, options, message):
        with pytest.raises(ConfigError, match=message):
            Run(name, **options)

    def test_a_missing_package(self):
        if is_installed("bitsandbytes"):
            pytest.skip("bitsandbytes is installed")
        with pytest.raises(MissingDependencyError, match=r"adamw-8bit needs the package bitsandbytes: pip install"):
            check_installed("adamw-8bit")


def test_a_state_that_needs_pickles_is_refused(tmp_path):
    run = Run("sgd", momentum=0.9).step(1)
    optimizer = run.state.optimizer.optimizer
    optimizer.state[next(iter(run.state.parameters.values()))]["hook"] = lambda: None
    with pytest.raises(ConfigError, match=r"keeps a function in geo\..*:hook, which a checkpoint cannot hold"):
        run.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
