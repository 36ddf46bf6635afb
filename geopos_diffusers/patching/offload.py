"""Geometry weights of layers whose parameters are elsewhere: offloaded by accelerate, or sharded by FSDP."""

from typing import Any

import torch
from torch import Tensor, nn


def group_offload_kinds(model: nn.Module) -> set[str]:
    """Whether diffusers' group offload works from copies of the weights: "stream" in memory, "disk" in files.

    The copies are made when it is enabled: parameters that come later are not among them.
    """
    kinds = set()
    for module in model.modules():
        registry = getattr(module, "_diffusers_hook", None)
        group = getattr(getattr(registry, "hooks", {}).get("group_offloading"), "group", None)
        kinds |= {"stream"} if getattr(group, "stream", None) is not None else set()
        kinds |= {"disk"} if getattr(group, "offload_to_disk_path", None) is not None else set()
    return kinds


def takes_offloaded(layer: nn.Module) -> bool:
    """Whether accelerate offloads this layer's own weights, by a map that one more can be added to."""
    hook = _offload_hook(layer)
    return hook is not None and isinstance(_below(hook.weights_map, "")[0], dict)


def add_offloaded(layer: nn.Module, name: str, value: Tensor) -> nn.Parameter:
    """Offload `value` with the layer's other weights; returns the placeholder parameter for the layer itself."""
    hook = _offload_hook(layer)
    weights, key = _below(hook.weights_map, name)
    weights[key] = value
    hook.original_devices[name] = value.device
    return nn.Parameter(torch.empty_like(value, device="meta"))


def remove_offloaded(layer: nn.Module, name: str) -> None:
    """Forget a weight of the layer where it is offloaded."""
    if takes_offloaded(layer):
        hook = _offload_hook(layer)
        weights, key = _below(hook.weights_map, name)
        weights.pop(key, None)
        hook.original_devices.pop(name, None)


def stored_weight(layer: nn.Module, name: str) -> Tensor:
    """The tensor that holds a weight's values: the parameter, or the copy that accelerate loads it from."""
    parameter = layer._parameters[name]
    hook = _offload_hook(layer) if parameter.is_meta else None
    if hook is None:
        return parameter.detach()
    weights, key = _below(hook.weights_map, name)
    if key not in weights:  # on disk, where it is only read from
        weights[key] = hook.weights_map[name]
    return weights[key]


def reshard(model: nn.Module) -> None:
    """Let FSDP2 drop the whole weights that it keeps of the outermost module after a call: they are copies."""
    for module in model.modules():
        if hasattr(module, "set_reshard_after_forward"):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered from all processes (all must call); any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def write_weight(stored: Tensor, value: Tensor) -> None:
    """Copy `value` into what `stored_weight` gave; of a sharded weight, this process's shard."""
    with torch.no_grad():
        if hasattr(stored, "full_tensor"):
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value.to(stored.device, stored.dtype), stored.device_mesh, stored.placements)
        stored.copy_(value)


def _offload_hook(layer: nn.Module) -> Any | None:
    """Accelerate's hook that keeps this layer's own weights in a map outside it."""
    hook = getattr(layer, "_hf_hook", None)
    for candidate in getattr(hook, "hooks", (hook,)):
        if getattr(candidate, "offload", False) and candidate.weights_map is not None:
            return candidate
    return None


def _below(weights_map: Any, name: str) -> tuple[Any, str]:
    """What lies below accelerate's view of one layer's weights, and the weight's key there."""
    while hasattr(weights_map, "dataset"):
        weights_map, name = weights_map.dataset, f"{weights_map.prefix}{name}"
    # Of weights on disk, those that accelerate holds in memory are looked up first.
    return getattr(weights_map, "state_dict", weights_map), name
