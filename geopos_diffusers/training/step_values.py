"""The numbers of the last steps, left on the device and fetched together: a GPU then never waits for the log."""

from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor


class StepValues:
    """What steps returned and is not fetched yet: numbers, and tensors of one element that stay where they are."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._steps: list[tuple[int, dict[str, float], dict[str, float | Tensor]]] = []

    def add(self, step: int, times: dict[str, float], values: dict[str, float | Tensor]) -> None:
        """Note the values of `step` (they are not read here), and the times at its end."""
        self._steps.append((step, times, values))

    def fetch(self) -> list[tuple[int, dict[str, float], dict[str, float]]]:
        """All that was noted since the last fetch, in one exchange; tensors as their mean over processes.

        All processes must call it, after the same steps.
        """
        steps, self._steps = self._steps, []
        tensors = [value.detach() for _, _, values in steps for value in values.values() if isinstance(value, Tensor)]
        numbers: Iterator[float] = iter(())
        if tensors:
            together = torch.stack([value.float().reshape(()) for value in tensors])
            numbers = iter(self.accelerator.reduce(together, "mean").tolist())
        return [
            (
                step,
                times,
                {name: next(numbers) if isinstance(value, Tensor) else value for name, value in values.items()},
            )
            for step, times, values in steps
        ]
