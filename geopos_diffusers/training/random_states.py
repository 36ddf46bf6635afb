"""The random states of all processes of a run, saved and put back; those of processes that are new are derived."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import ConfigError


def gather_random_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """The global random states of every process: [processes, bytes] uint8, of the CPU and of the device."""
    states = {"cpu": torch.get_rng_state()}
    if accelerator.device.type != "cpu":
        states["device"] = torch.get_device_module(accelerator.device).get_rng_state()
    return {name: accelerator.gather(value.to(accelerator.device)[None]).cpu() for name, value in states.items()}


def restore_random_states(accelerator: Accelerator, states: Mapping[str, Tensor], seed: int, step: int) -> None:
    """Put this process's states back; of a process that there was not, draw them from the seed and the step.

    Raises:
        ConfigError: the states are a CPU's, and this process computes elsewhere.
    """
    index = accelerator.process_index
    if index >= len(states["cpu"]):
        torch.manual_seed(((seed * 1_000_003 + step) * 1_000_003 + index) % 2**63)  # of all devices
        return
    torch.set_rng_state(states["cpu"][index].clone())
    if accelerator.device.type != "cpu":
        if "device" not in states:
            raise ConfigError(
                f"the checkpoint was made on a CPU and cannot be continued exactly on {accelerator.device}"
            )
        torch.get_device_module(accelerator.device).set_rng_state(states["device"][index].clone())
