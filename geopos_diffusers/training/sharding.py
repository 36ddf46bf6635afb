"""FSDP2: parameters spread over the processes of a run, put together block by block while they are needed.

`accelerate launch --use_fsdp --fsdp_version 2` asks for it. torch's `fully_shard` is called here rather than by
`Accelerator.prepare`, which would cast what is trained to the low precision: here trained weights stay in float32 and
frozen ones in their own precision, so that the losses are those of plain data parallelism.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin, convert_outputs_to_fp32
from torch import Tensor, nn
from torch.nn import Parameter

from ..errors import ConfigError

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks")


def sharding_plugin(accelerator: Accelerator) -> FullyShardedDataParallelPlugin | None:
    """What the launcher says about FSDP; None where the run is not sharded.

    Read from the launcher's environment: accelerate (1.15) ignores FSDP on CPUs and says nothing.
    """
    if accelerator.num_processes == 1 or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    return FullyShardedDataParallelPlugin()


def shard(model: nn.Module, trained: Mapping[str, Parameter], accelerator: Accelerator) -> dict[str, Parameter]:
    """Spread the parameters of `model` over all processes, in place: they become new ones, DTensors.

    Blocks of the classes of `--fsdp_transformer_layer_cls_to_wrap`, or else of those that diffusers does not split, are
    gathered one after the other.

    Args:
        trained: those that are trained, by name.

    Returns:
        What they have become, by name in the same order.

    Raises:
        ConfigError: no module is of these classes, what is trained is not all in the model, or an option of FSDP is not
            supported.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    plugin = FullyShardedDataParallelPlugin()
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise ConfigError("fsdp_offload_params is not supported here; leave it out")
    check_one_model(model, trained, "FSDP")
    wanted = plugin.transformer_cls_names_to_wrap or getattr(model, "_no_split_modules", None) or []
    blocks = {name: module for name, module in model.named_modules() if name and type(module).__name__ in wanted}
    if wanted and not blocks:
        raise ConfigError(f"{type(model).__name__} has no module of class {' or '.join(wanted)} to shard")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for module in [*reversed(blocks.values()), model]:  # inner ones first
        fully_shard(module, mesh=mesh, reshard_after_forward=plugin.reshard_after_forward)
    # Without autocast's cache, which would keep a copy of all weights in the low precision.
    lower_precision(model, accelerator, cached=False)
    parameters = dict(model.named_parameters())
    return {name: parameters[name] for name in trained}


def check_one_model(model: nn.Module, trained: Mapping[str, Parameter], spreader: str) -> None:
    """Raise ConfigError unless all that is trained is in the model. spreader: what would spread it over processes."""
    own = dict(model.named_parameters())
    if others := [name for name, value in trained.items() if own.get(name) is not value]:
        raise ConfigError(
            f"{spreader} can spread one model, and {others[0]} belongs to another; use plain data parallelism"
        )


def lower_precision(model: nn.Module, accelerator: Accelerator, cached: bool) -> None:
    """Have `model.forward` compute in the precision that the accelerator was given, if any, and return float32.

    Args:
        cached: whether autocast keeps the cast weights until the end of a forward pass.
    """
    if accelerator.native_amp:
        dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float16
        autocast = torch.autocast(accelerator.device.type, dtype, cache_enabled=cached)
        model.forward = convert_outputs_to_fp32(autocast(model.forward))


@contextmanager
def unsharded(model: nn.Module | None) -> Iterator[None]:
    """Put all parameters together in every process within the block, so that one alone can use and save the model.

    All processes must enter and leave it together. The model must not be trained within.
    """
    modules = list(model.modules()) if model is not None else []
    parts: list[Any] = [module for module in modules if hasattr(module, "unshard")]
    with ExitStack() as stack:
        for part in parts:
            stack.callback(part.reshard)
            part.unshard()
            # Without the class that `fully_shard` made: its name would be saved, and what knows it would shard again.
            stack.callback(setattr, part, "__class__", type(part))
            part.__class__ = type(part).__bases__[1]
        for module in modules if parts else ():
            # FSDP's hooks would gather and shard again, in a process that calls the model or its `state_dict()` alone.
            for kind in HOOKS:
                hooks = getattr(module, kind)
                stack.callback(setattr, module, kind, hooks)
                kept = {key: hook for key, hook in hooks.items() if not _is_of_fsdp(hook)}
                setattr(module, kind, type(hooks)(kept))
        yield


def _is_of_fsdp(hook: Any) -> bool:
    hook = getattr(hook, "hook", hook)  # in torch's wrapper for those of `state_dict`
    owner = getattr(hook, "__self__", hook)
    return str(getattr(owner, "__module__", "")).startswith("torch.distributed.fsdp")


def gathered(tensor: Tensor) -> Tensor:
    """A sharded tensor put together from all processes, all of which must call; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a sharded tensor: a view; any other as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def spread(value: Tensor, like: Any) -> Tensor:
    """`value`, which every process has whole, sharded as `like` is; as it is, where `like` is not sharded."""
    if not hasattr(like, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
