"""One call of a patched model: whether its layers draw shifts in it, and the shift that they share.

A shift is drawn in training mode, and only where gradients are recorded: diffusers leaves models that it builds from a
config (`from_config`, AnimateDiff's `from_unet2d`) in training mode, and generating with one of them must give the same
images for the same seed; so must validation without gradients inside a training loop.

Whether gradients are recorded is decided where the model's call begins. Within it, a checkpoint with
`use_reentrant=True` runs its part under `no_grad` first and again in the backward pass, recorded then: a layer that
asked for itself would draw in the second pass alone.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .config import GeoPosConfig
from .encoding import draw_shift

# Each layer asks in each call, so the names are looked up once.
_dispatch_modes = torch._C._len_torch_dispatch_stack  # fake and functional tensors
_function_transform = torch._C._functorch.peek_interpreter_stack  # of torch.func


class ModelCall:
    """What the layers of one patched model know of its present call; hooks on the model mark where it begins and ends.

    Attributes:
        depth: calls that are running; a part that is called within the model counts too.
        recorded: whether the outermost of them records gradients.
        shift: what was drawn for the call, where all layers use the same shift (`shift_scope="model"`).
    """

    def __init__(self) -> None:
        self.depth = 0
        self.recorded = False
        self.shift: Tensor | None = None

    def enter(self, inputs: Iterable[Any], whole: bool) -> None:
        """Begin a call with these inputs, of the whole model or of a part of it."""
        if self.depth == 0:
            # A checkpoint runs the whole model again with the random state of its call, and so draws the same shift; a
            # part that it runs again is under the shift that the call drew before it.
            if whole or not in_backward_pass():
                self.shift = None
            # A reentrant checkpoint around the whole model calls it under no_grad, with an input that asks for
            # gradients: without one it could not give any.
            self.recorded = torch.is_grad_enabled() or any(
                isinstance(value, Tensor) and value.requires_grad for value in inputs
            )
        self.depth += 1

    def leave(self) -> None:
        # Torch also ends calls that another hook stopped before they began here.
        self.depth = max(self.depth - 1, 0)

    def records_gradients(self) -> bool:
        return torch.is_grad_enabled() or (self.depth > 0 and self.recorded)

    def shared_shift(
        self, config: GeoPosConfig, axes: int, samples: int, like: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """The call's shift [S, axes]: the first layer that asks draws it."""
        if self.shift is None or self.shift.shape[0] not in (1, samples):
            # Drawn for three axes: layers of fewer axes in the same model use the leading columns.
            self.shift = draw_shift(config, 3, samples, like, generator)
        return self.shift[:, :axes]


def makes_plain_tensors() -> bool:
    """Whether a tensor that is made now can be kept for later calls: nothing compiles, fakes or transforms it."""
    return not (torch.compiler.is_compiling() or _dispatch_modes() or _function_transform() is not None)


def in_function_transform() -> bool:
    """Whether torch.func transforms this call: under `vmap` an output cannot be written into where weights are many."""
    return not torch.compiler.is_compiling() and _function_transform() is not None


def in_backward_pass() -> bool:
    """Whether this is a call that a checkpoint makes again for its gradients."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@cache
def inference_generator(device: torch.device) -> torch.Generator:
    # Images must not depend on whether a patched model drew shifts from the user's generator.
    return torch.Generator(device).manual_seed(0)


class _BeginCall:
    def __init__(self, call: ModelCall, whole: bool) -> None:
        self.call, self.whole = call, whole

    # torch's quantisation copies hooks onto the layers that it makes, and calls them without `kwargs` there.
    def __call__(self, module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        self.call.enter((*args, *(kwargs or {}).values()), self.whole)


class _EndCall:
    def __init__(self, call: ModelCall) -> None:
        self.call = call

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        self.call.leave()


def follow_calls(model: nn.Module, call: ModelCall) -> list[RemovableHandle]:
    """Keep `call` up to date by hooks on the model and its patched parts, which the handles take off again."""
    handles = []
    # Autoencoders are called by part (vae.decode runs vae.decoder), so a part called alone is a model call too.
    parts = [
        part for part in model.children() if any(getattr(layer, "geo_call", None) is call for layer in part.modules())
    ]
    for module in (model, *parts):
        handles.append(module.register_forward_pre_hook(_BeginCall(call, module is model), with_kwargs=True))
        handles.append(module.register_forward_hook(_EndCall(call), always_call=True))
    return handles
