"""Ctrl-C and SIGTERM in a training: noted, so that the step in progress is finished and saved first."""

import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = 1.0  # seconds after which a second Ctrl-C is meant; launchers repeat the first one at once


class Interruption:
    """Within the block the first SIGINT or SIGTERM is only noted. A second SIGINT raises KeyboardInterrupt.

    In other threads than the main one, which gets no signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._time = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._time = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._time > AGAIN:
            raise KeyboardInterrupt

    def noted(self, accelerator: Accelerator) -> int | None:
        """The signal that any process of the run got so far, or None. All processes must call it together."""
        if accelerator.num_processes == 1:
            return self.signal
        numbers = accelerator.gather(torch.tensor([self.signal or 0], device=accelerator.device))
        return int(numbers.max()) or None


def ignore_ctrl_c(_: int) -> None:
    """For processes that load data: the training process ends them when it has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
