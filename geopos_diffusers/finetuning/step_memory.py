"""What `--dry-run` says about the memory of a step."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..training.checkpoints import TrainingState
from ..training.memory_estimate import GIB, activation_bytes, estimate_memory
from .task import Task

# Numbers that an optimizer keeps of each trained one, where they are not two.
MOMENTS = {"sgd": 0, "rmsprop": 1, "adagrad": 1, "lion": 1}


def describe_step_memory(task: Task, state: TrainingState, batches: Iterable[Any]) -> str:
    """An estimate for one process, from the forward pass of the first batch. All processes must call it."""
    args, model = task.args, getattr(task.pipe, task.component)
    batch = next(iter(batches))
    processes = 1 if state.model is None else state.accelerator.num_processes
    with state.averaged():
        activations = activation_bytes(model, lambda: task.losses(batch), args.gradient_checkpointing)
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        moments = MOMENTS.get(args.optimizer, 2)
        estimate = estimate_memory(model, trained, activations, moments, args.use_ema, processes)
    others = [part for part in task.components().values() if isinstance(part, nn.Module) and part is not model]
    rest = sum(value.numel() * value.element_size() for part in others for value in part.parameters())
    return f"about {estimate} and {rest / GIB:.2f} of the other models"
