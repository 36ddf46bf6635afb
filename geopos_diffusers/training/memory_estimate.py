"""How much memory a training step needs: an arithmetic of parameters, and activations counted in a forward pass.

The model may lie on the meta device, which holds no values: then a model of any size is counted without its memory.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

GIB = 2**30


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one process needs at once, in the backward pass.

    frozen, trained: parameters. gradients, moments: of what is trained. average: the moving average of the weights.
    activations: what the forward pass keeps for the backward pass, of all samples of a batch.
    gathered: of sharded parameters, what is whole at a time: two blocks, and what is in no block.
    """

    frozen: int
    trained: int
    gradients: int
    moments: int
    average: int
    activations: int
    gathered: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / GIB:.2f}" for name, value in asdict(self).items() if value)
        return f"{self.total / GIB:.2f} GiB ({parts})"


def estimate_memory(
    model: nn.Module,
    trained: Mapping[str, Tensor],
    activations: int,
    moments: int = 2,
    average: bool = False,
    processes: int = 1,
) -> MemoryEstimate:
    """Add up the memory of a step.

    Args:
        trained: the trained parameters of `model`, by name.
        activations: as `activation_bytes` counts them, of one process's batch.
        moments: numbers that the optimizer keeps of each trained one: 2 of AdamW, 1 of SGD with momentum.
        average: whether a moving average is kept.
        processes: over which parameters are sharded (FSDP2); 1 where each process has all of them.
    """
    whole = sum(_bytes(value) for value in trained.values())
    frozen = sum(_bytes(value) for name, value in model.named_parameters() if name not in trained)
    root, *others = block_bytes(model)
    return MemoryEstimate(
        frozen=frozen // processes,
        trained=whole // processes,
        gradients=whole // processes,
        moments=moments * whole // processes,
        average=whole // processes if average else 0,
        activations=activations,
        gathered=root + sum(sorted(others, reverse=True)[:2]) if processes > 1 else 0,
    )


def block_bytes(model: nn.Module) -> list[int]:
    """Bytes of what FSDP2 gathers at once: first what is in no block, then each block without those within it."""
    wanted = getattr(model, "_no_split_modules", None) or []
    blocks = {name: 0 for name, module in model.named_modules() if not name or type(module).__name__ in wanted}
    for name, value in model.named_parameters():
        while (name := name.rpartition(".")[0]) not in blocks:
            pass
        blocks[name] += _bytes(value)
    return list(blocks.values())


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def activation_bytes(model: nn.Module, call: Callable[[], Any], checkpointing: bool = False) -> int:
    """Bytes of all tensors that `call`, a forward pass of `model`, keeps for the backward pass, parameters left out.

    They grow with the batch and with the number of pixels: count one sample and multiply.

    Args:
        checkpointing: count as under gradient checkpointing: the inputs of all checkpointed blocks, and what the one
            that keeps most keeps while it is computed again. For models of diffusers.
    """
    own = {_storage(value) for value in model.parameters()}
    kept: dict[int, int] = {}
    again = [0]

    def run_block(block: Callable[..., Any], *inputs: Any) -> Any:
        inner: dict[int, int] = {}
        with _noted(inner, own):
            output = block(*inputs)
        _note(kept, own, *(value for value in inputs if isinstance(value, Tensor)))
        again.append(sum(inner.values()))
        return output

    if checkpointing:
        model.enable_gradient_checkpointing(run_block)  # type: ignore[operator]
    try:
        with _noted(kept, own), _FusedAttention():
            output = call()  # held, so that no memory is given out twice
    finally:
        if checkpointing:
            model.disable_gradient_checkpointing()  # type: ignore[operator]
    del output
    return sum(kept.values()) + max(again)


@contextmanager
def _noted(kept: dict[int, int], own: set[int]) -> Iterator[None]:
    held = []

    def note(value: Tensor) -> Tensor:
        _note(kept, own, value)
        held.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        yield


def _note(kept: dict[int, int], own: set[int], *values: Tensor) -> None:
    for value in values:
        if (key := _storage(value)) not in own:
            kept[key] = value.untyped_storage().nbytes()


def _storage(value: Tensor) -> int:
    return value.untyped_storage()._cdata


class _FusedAttention(TorchFunctionMode):
    """On the meta device, attention that keeps what the fused kernels of CPUs and GPUs keep.

    torch takes another path there, which keeps the scores of all pairs of positions.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.scaled_dot_product_attention and args[0].device.type == "meta":
            return _KeepsInputs.apply(*args[:3])
        return function(*args, **(kwargs or {}))


class _KeepsInputs(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        context.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        raise RuntimeError("counted, not computed")
