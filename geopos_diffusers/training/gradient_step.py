"""The usual optimizer step: batches forward and backward, gradients clipped, learning rates set, one optimizer."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from .checkpoints import TrainingState
from .sharding import gathered


@dataclass
class GradientStep:
    """Called with a step's number, counted from 0, it takes that step and returns what to log.

    As many batches as `accelerator.gradient_accumulation_steps` says make one step; their losses are averaged.

    state: with one optimizer. A group's "part", if it has one, names its learning rate in the log.
    model: what `accelerator.prepare` returned; several processes exchange its gradients at the end of a step.
    losses(batch): scalars by name, "loss", which is minimised, among them.
    batches(first): the batches from step `first` on; called once, at the first step.
    learning_rate(group, step): of one of the optimizer's groups.
    """

    state: TrainingState
    model: nn.Module
    losses: Callable[[Any], dict[str, Tensor]]
    batches: Callable[[int], Iterable[Any]]
    learning_rate: Callable[[dict[str, Any], int], float]
    max_grad_norm: float
    _batches: Iterator[Any] | None = field(default=None, init=False)

    def __call__(self, step: int) -> dict[str, float | Tensor]:
        """Returns the mean losses over batches, the learning rates and the gradients' norm.

        Losses and norm are tensors of this process, still to be fetched: on a GPU they may not be computed yet.
        """
        optimizer = self.state.optimizer
        if self._batches is None:
            self._batches = iter(self.batches(step))
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(group, step)
        count = self.state.accelerator.gradient_accumulation_steps
        norm: float | Tensor = 0.0
        sums: dict[str, Any] = {}
        for _ in range(count):
            losses, norm = self.learn(next(self._batches), count)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() / count
        rates = {
            f"learning_rate_{group['part']}" if "part" in group else "learning_rate": group["lr"]
            for group in optimizer.param_groups
        }
        return {**sums, **rates, "grad_norm": norm}

    def learn(self, batch: Any, count: int) -> tuple[dict[str, Tensor], float | Tensor]:
        """Forward and backward of one of a step's `count` batches; with the last one the weights change.

        Returns:
            The losses, and the gradients' norm, 0 before the last batch.
        """
        accelerator, optimizer = self.state.accelerator, self.state.optimizer
        norm: float | Tensor = 0.0
        with accelerator.accumulate(self.model):
            losses = self.losses(batch)
            backward(accelerator, losses["loss"] / count)
            if accelerator.sync_gradients:
                norm = gathered(accelerator.clip_grad_norm_(self.state.parameters.values(), self.max_grad_norm))
            optimizer.step()
            optimizer.zero_grad()
        return losses, norm


def backward(accelerator: Accelerator, loss: Tensor) -> None:
    """`accelerator.backward` without its division, and without its look on the disk for an optional package.

    That look takes as long as a step of a small network.
    """
    (loss if accelerator.scaler is None else accelerator.scaler.scale(loss)).backward()
