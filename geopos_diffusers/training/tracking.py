"""accelerate and its experiment trackers, set up from a script's options with one clear line for what cannot work."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    LoggerType,
    ProjectConfiguration,
    parse_flag_from_env,
)

from ..errors import ConfigError, MissingDependencyError
from .processes import needs_cpu_group
from .zero import asks_for_zero, hidden_from_accelerate

# What spreads optimizer states over the processes in other ways than `sharding.py` and `zero.py` do.
UNSUPPORTED = (DistributedType.MEGATRON_LM, DistributedType.XLA)
logger = logging.getLogger(__name__)


def build_accelerator(
    output_dir: str, mixed_precision: str | None, gradient_accumulation_steps: int, report_to: str | Sequence[str]
) -> Accelerator:
    """An Accelerator whose trackers write below `output_dir`/logs.

    Args:
        report_to: the tracker or trackers; all, or none, alone.

    Raises:
        ConfigError: an unknown tracker, a precision that the device does not have, or a way to spread the model over
            processes that the checkpoints do not support.
        MissingDependencyError: the tracker's package is not installed.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to)
    _check_trackers(names)
    # accelerate fails with a traceback where that version finds no GPU.
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("the first version of FSDP is not supported here; add --fsdp_version 2")
    zero = asks_for_zero()
    try:
        with hidden_from_accelerate():
            accelerator = Accelerator(
                mixed_precision=mixed_precision,
                # Each batch's gradients are spread at once where parameters are: whole ones would fill the memory.
                gradient_accumulation_plugin=GradientAccumulationPlugin(
                    gradient_accumulation_steps, sync_each_batch=parse_flag_from_env("ACCELERATE_USE_FSDP")
                ),
                log_with=None if names == ["none"] else names,
                project_config=ProjectConfiguration(output_dir, logging_dir=str(Path(output_dir) / "logs")),
                cpu=needs_cpu_group(),
            )
    except (ValueError, ImportError) as error:
        raise ConfigError(f"accelerate cannot be set up: {error}") from error
    if accelerator.mixed_precision == "fp16" and zero:
        raise ConfigError("mixed_precision fp16 is not supported with DeepSpeed here; give bf16 or no")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate lets this pass without autocast and without loss scaling.
        raise ConfigError("mixed_precision fp16 needs a GPU; on a CPU give bf16 or no")
    if accelerator.mixed_precision == "bf16" and accelerator.device.type == "cpu" and not computes_bfloat16():
        logger.warning(
            "this processor has no instructions for bfloat16: steps take several times as long as with "
            "mixed_precision no"
        )
    if accelerator.distributed_type in UNSUPPORTED:
        raise ConfigError(f"{accelerator.distributed_type.value} is not supported here; shard with FSDP2")
    return accelerator


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16 (AVX-512 or AMX, NEON), as torch's convolutions use them."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _check_trackers(names: Sequence[str]) -> None:
    known = [str(kind.value) for kind in LoggerType]
    available = [str(kind.value) for kind in get_available_trackers()]
    for name in names:
        if name in ("none", "all") and len(names) > 1:
            raise ConfigError(f"report_to {name} stands alone; got {' '.join(names)}")
        if name != "none" and name not in known:
            raise ConfigError(f"report_to must be none or one of {', '.join(known)}; got {name!r}")
        if name not in ("none", "all") and name not in available:
            install = "'geopos-diffusers[train]'" if name == "tensorboard" else name
            raise MissingDependencyError(f"report_to {name} needs the package {name}: pip install {install}")


def start_trackers(accelerator: Accelerator, name: str, settings: dict[str, Any], step: int = 0) -> None:
    """Open the trackers under `name`, with `settings` as the run's hyperparameters.

    TensorBoard's files all lie in logs/`name`: accelerate would put hyperparameters into a dated folder of each start,
    so they become a text.

    Args:
        step: where a continued run goes on; TensorBoard hides what an earlier start wrote of later steps.
    """
    if not accelerator.log_with:
        return
    accelerator.init_trackers(name, init_kwargs={"tensorboard": {"purge_step": step + 1}} if step else {})
    plain = {key: value if isinstance(value, (int, float, str)) else str(value) for key, value in settings.items()}
    for tracker in accelerator.trackers:
        if tracker.name != "tensorboard":
            tracker.store_init_configuration(plain)
        elif accelerator.is_main_process:
            tracker.writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in plain.items()), step)
