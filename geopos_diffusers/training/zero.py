"""DeepSpeed's ZeRO-2: gradients and the optimizer's state spread over the processes of a run, parameters whole in each.

`accelerate launch --use_deepspeed --zero_stage 2` asks for it. DeepSpeed is started here rather than by
`Accelerator.prepare`, whose checkpoints are pickles: here the state is put together, and written as that of any other
run.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.nn import Parameter

from ..errors import ConfigError
from ..optional_packages import require_package
from .gradient_step import GradientStep
from .sharding import lower_precision

FLAG = "ACCELERATE_USE_DEEPSPEED"
# Of torch, and of each number by itself, with numbers of the whole parameter alone beside the moments.
OPTIMIZERS = ("adamw", "adam", "nadam", "radam", "sgd", "rmsprop")


def asks_for_zero() -> bool:
    """Whether the launcher asks for DeepSpeed.

    Raises:
        ConfigError: in a way that is not supported here. MissingDependencyError: DeepSpeed is not installed.
    """
    if not parse_flag_from_env(FLAG):
        return False
    if os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none") != "none":
        raise ConfigError("a file for DeepSpeed is not supported here; give --zero_stage 2 alone")
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("1", "2"):
        raise ConfigError(f"zero_stage {stage} is not supported here; give 2, or spread parameters too by FSDP2")
    for part in ("OPTIMIZER", "PARAM"):
        if os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{part}_DEVICE", "none") != "none":
            raise ConfigError(f"offload_{part.lower()}_device is not supported here; leave it out")
    require_package("deepspeed", "deepspeed", "use_deepspeed")
    return True


@contextmanager
def hidden_from_accelerate() -> Iterator[None]:
    """accelerate joins the processes without DeepSpeed within the block."""
    wanted = os.environ.pop(FLAG, None)
    try:
        yield
    finally:
        if wanted is not None:
            os.environ[FLAG] = wanted


def spread_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator, batch_size: int, max_grad_norm: float
) -> tuple[Any, "ZeroOptimizer"]:
    """Start DeepSpeed.

    Args:
        batch_size: of a process. max_grad_norm: gradients of a step are clipped to it.

    Returns:
        What the forward passes of training go through, and what takes the place of the optimizer.
    """
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    lower_precision(model, accelerator, cached=True)
    groups = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]
    config = {
        "train_micro_batch_size_per_gpu": batch_size,
        "gradient_accumulation_steps": accelerator.gradient_accumulation_steps,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": {"stage": int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    return engine, ZeroOptimizer(engine, groups, optimizer.defaults)


@dataclass(frozen=True)
class SpreadMoment:
    """A part of the optimizer's state, such as "exp_avg" of a parameter, which lies in all processes.

    It has what `checkpoints` uses of tensors.
    """

    parameter: Parameter
    key: str

    def detach(self) -> "SpreadMoment":
        return self

    def contiguous(self) -> "SpreadMoment":
        return self

    def full_tensor(self) -> Tensor:
        """Put together from all processes, all of which must call."""
        from deepspeed.utils import safe_get_full_optimizer_state

        return safe_get_full_optimizer_state(self.parameter, self.key)


class ZeroOptimizer:
    """What training and checkpoints use of an optimizer, in front of DeepSpeed's.

    param_groups: with the parameters themselves; DeepSpeed's hold one flat tensor each.
    """

    def __init__(self, engine: Any, param_groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
        self.engine, self.param_groups, self.defaults = engine, param_groups, defaults
        self.state: dict[Any, dict[str, Any]] = defaultdict(dict)  # what is kept lies in DeepSpeed's

    def step(self) -> None:
        """Once a batch: DeepSpeed counts the batches of a step itself."""
        for own, flat in zip(self.param_groups, self.engine.optimizer.param_groups, strict=True):
            flat["lr"] = own["lr"]
        self.engine.step()

    def state_dict(self) -> dict[str, Any]:
        """As torch's; moments are a `SpreadMoment`."""
        self._link()
        state: dict[int, dict[str, Any]] = {}
        groups = []
        for group, flat in self._groups():
            first, parameters = len(state), group["params"]
            kept = self.engine.optimizer.optimizer.state.get(flat, {})
            for index, parameter in enumerate(parameters, first):
                state[index] = {
                    key: SpreadMoment(parameter, key) if value.shape == flat.shape else value.clone()
                    for key, value in kept.items()
                }
            groups.append({**group, "params": [*range(first, first + len(parameters))]})
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Args:
        saved: as `state_dict` returns it, with whole tensors. The parameters must have their values already.
        """
        from deepspeed.utils import safe_set_full_optimizer_state

        zero, index = self.engine.optimizer, 0
        zero.refresh_fp32_params()
        moments = []
        for group, flat in self._groups():
            for parameter in group["params"]:
                values = saved["state"].get(index, {})
                mine = {key: value for key, value in values.items() if value.shape == parameter.shape}
                moments += [(parameter, key, value) for key, value in mine.items()]
                zero.optimizer.state[flat] = {
                    key: torch.zeros_like(flat) if key in mine else value.clone() for key, value in values.items()
                }
                index += 1
        self._link()
        for parameter, key, value in moments:
            safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)

    def _link(self) -> None:
        """Let `deepspeed.utils` find all moments: by itself (0.19) it links those of the first group alone."""
        zero = self.engine.optimizer
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()

    def _groups(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        """Each group, and the flat tensor of which this process has a part."""
        flats = (group["params"][0] for group in self.engine.optimizer.param_groups)
        return zip(self.param_groups, flats, strict=True)


class ZeroStep(GradientStep):
    """A step with `spread_optimizer`'s model and optimizer."""

    def learn(self, batch: Any, count: int) -> tuple[dict[str, Tensor], float | Tensor]:
        losses = self.losses(batch)
        engine: Any = self.model
        engine.backward(losses["loss"])  # divided by the batches of a step there
        self.state.optimizer.step()
        return losses, engine.get_global_grad_norm() or 0.0
