"""How a training shows where it is: a bar in a terminal, else a line now and then that a person can read."""

import sys
import time

from tqdm import tqdm


class Progress:
    """Of the steps `start` to `stop` of `total`, called `name`; `unit` is what one is called. Prints on standard error.

    every: steps between two lines, where standard error is no terminal. shown: False for none of it.
    """

    def __init__(self, name: str, start: int, stop: int, total: int, unit: str, every: int, shown: bool) -> None:
        self.start, self.stop, self.total, self.unit, self.every = start, stop, total, unit, every
        terminal = sys.stderr.isatty()
        self.bar = tqdm(desc=name, total=total, initial=start, disable=not (shown and terminal))
        self.prints_lines = shown and not terminal
        self.began = self._last_time = time.perf_counter()
        self._last_step = start
        self._losses: dict[str, list[float]] = {}

    def advance(self) -> None:
        """A step ended; nothing is known of its values yet."""
        self.bar.update()

    def report(self, step: int, values: dict[str, float]) -> None:
        """The values of `step`, counted from 1, are known."""
        losses = {name: value for name, value in values.items() if name == "loss" or name.endswith("_loss")}
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(value)
        self.bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
        if self.prints_lines and (step % self.every == 0 or step == self.stop):
            print(self._line(step, values), file=sys.stderr, flush=True)
            self._last_step, self._last_time, self._losses = step, time.perf_counter(), {}

    def close(self) -> None:
        self.bar.close()

    def _line(self, step: int, values: dict[str, float]) -> str:
        now = time.perf_counter()
        parts = [f"{self.unit} {step}/{self.total}"]
        for name, found in self._losses.items():
            mean = f" (mean of {len(found)})" if len(found) > 1 else ""
            parts.append(f"{name.replace('_', ' ')} {sum(found) / len(found):.4f}{mean}")
        rates = [f"{value:.2g}" for name, value in values.items() if name.startswith("learning_rate")]
        if rates:
            parts.append(f"lr {' '.join(rates)}")
        if "grad_norm" in values:
            parts.append(f"grad {values['grad_norm']:.2g}")
        speed = (step - self._last_step) / max(now - self._last_time, 1e-9)
        parts.append(f"{speed:.1f} it/s" if speed >= 1 else f"{1 / speed:.1f} s/it")
        average = (step - self.start) / max(now - self.began, 1e-9)
        parts.append(f"ETA {readable_time((self.stop - step) / average)}")
        return "  ".join(parts)


def readable_time(seconds: float) -> str:
    """1:03 for 63 seconds, 2:00:09 for two hours and nine seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
