"""An optimizer's state as tensors and JSON: whatever a kind of optimizer keeps, and nothing pickled.

Tensors that a parameter has by name ("exp_avg") are stored as they are. Numbers, and tensors in lists or mappings, are
stored as a tree of JSON. In it {"tensor": NAME} stands for a tensor, and {"permuted": [NAME, AXES]} for one whose axes
lie in that order in memory: products of matrices may round otherwise where they lie otherwise. So is what groups of
parameters keep (Prodigy's estimate of the rate, the sums of schedule-free optimizers).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from .sharding import spread

OF_THE_RUN = ("params", "lr", "weight_decay", "part", "peak")  # a group's values that the run's settings give


def split_state(optimizer: Any, names: Sequence[str], number: int = 0) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name, and all else.

    Args:
        optimizer: of torch, or as `accelerator.prepare` returned it. names: of its parameters, in its order.
        number: among the optimizers of a run.

    Raises:
        ConfigError: it keeps something that is neither a tensor nor JSON.
    """
    tensors: dict[str, Tensor] = {}
    parameters: dict[str, dict[str, Any]] = {}
    state = optimizer.state_dict()
    for index, values in state["state"].items():
        for key, value in values.items():
            name = f"{names[index]}:{key}"
            if isinstance(value, Tensor) or hasattr(value, "full_tensor"):
                tensors[name] = value.detach().contiguous()
            else:
                parameters.setdefault(names[index], {})[key] = _encode(value, name, tensors)
    groups = [
        {
            key: _encode(value, f"group {number}.{index}:{key}", tensors)
            for key, value in group.items()
            if key not in OF_THE_RUN and not _is_default(optimizer.defaults, key, value)
        }
        for index, group in enumerate(state["param_groups"])
    ]
    return tensors, {"parameters": parameters, "groups": groups}


def join_state(optimizer: Any, names: Sequence[str], tensors: Mapping[str, Tensor], values: dict[str, Any]) -> None:
    """Put back what `split_state` took from an optimizer of the same kind over the same parameters.

    What has the shape of its parameter is sharded as that is.

    Args:
        tensors: of these parameters and groups at least. values: empty, of a checkpoint that has tensors alone.

    Raises:
        KeyError: a tensor is missing.
    """
    index_of = {name: index for index, name in enumerate(names)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    known: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        parameter, _, key = name.rpartition(":")
        if parameter in index_of and "/" not in key:
            like = parameters[index_of[parameter]]
            known.setdefault(index_of[parameter], {})[key] = spread(value, like) if value.shape == like.shape else value
    for parameter, more in values.get("parameters", {}).items():
        if parameter in index_of:
            known.setdefault(index_of[parameter], {}).update(
                {key: _decode(value, tensors.__getitem__) for key, value in more.items()}
            )
    state = optimizer.state_dict()
    for group, more in zip(state["param_groups"], values.get("groups", []), strict=False):
        group.update({key: _decode(value, tensors.__getitem__) for key, value in more.items()})
    optimizer.load_state_dict({**state, "state": known})
    # torch casts moments to their parameter's type, which some optimizers keep in a lower precision on purpose.
    for index, saved in known.items():
        kept = optimizer.state[parameters[index]]
        for key, value in saved.items():
            if isinstance(value, Tensor) and key in kept and kept[key].dtype != value.dtype:
                kept[key] = value.to(kept[key].device)


def _is_default(defaults: dict[str, Any], key: str, value: Any) -> bool:
    if key not in defaults:
        return False
    default = defaults[key]
    return value is default or (not isinstance(value, Tensor) and not isinstance(default, Tensor) and value == default)


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        strides = value.stride()
        axes = sorted(range(value.dim()), key=lambda axis: -strides[axis])
        tensors[name] = value.detach().permute(axes).clone().contiguous()  # several parameters may share one
        return {"tensor": name} if axes == [*range(value.dim())] else {"permuted": [name, axes]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(one, f"{name}/{index}", tensors) for index, one in enumerate(value)]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode(one, f"{name}/{key}", tensors) for key, one in value.items()}}
    raise ConfigError(
        f"this optimizer keeps a {type(value).__name__} in {name}, which a checkpoint cannot hold; choose another one"
    )


def _decode(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensor(content)
    if kind == "permuted":
        name, axes = content
        return tensor(name).permute([axes.index(axis) for axis in range(len(axes))])
    if kind == "dict":
        return {key: _decode(one, tensor) for key, one in content.items()}
    values = [_decode(one, tensor) for one in content]
    return values if kind == "list" else tuple(values)
