"""best/ of a run: the weights with the best value of one measure so far, and when to stop waiting for better ones."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from ..errors import DataError
from ..files import atomic_directory, write_json

BEST = "best.json"


class BestWeights:
    """The one rule for best/: of all values that are offered, the weights of the best stay, of equal ones the first.

    folder: best/ itself. measure: name of what is offered. patience: values without a better one after which
    `should_stop`; None for never.
    counters: JSON-ready, to be saved in checkpoints and put back: a continued run then keeps and stops as the
    uninterrupted one.
    """

    def __init__(self, folder: Path, measure: str, patience: int | None = None) -> None:
        self.folder, self.measure, self.patience = folder, measure, patience
        self.counters: dict[str, Any] = {}

    @property
    def best(self) -> dict[str, Any] | None:
        """What best/best.json holds; None where there was no value yet."""
        return self.counters.get("best")

    def check(self) -> None:
        """Raise DataError where best.json is there and damaged."""
        file = self.folder / BEST
        try:
            if file.is_file() and not isinstance(json.loads(file.read_text(encoding="utf-8")), dict):
                raise ValueError("it holds no object")
        except ValueError as error:
            raise DataError(f"{file} is damaged: {error}; remove {file.parent}") from error

    def offer(
        self,
        step: int,
        value: float | None,
        better: Literal["lower", "higher"],
        save: Callable[[Path], None],
        comparable: str,
        **details: Any,
    ) -> bool:
        """Keep the current weights if their value is better than all before. On the first process.

        Args:
            value: None or not finite where there is none, which is never better.
            save: writes the weights into a folder.
            comparable: values that were offered with another text are forgotten.
            details: more for best.json.

        Returns:
            Whether they were kept.
        """
        if not self._goes_on(comparable):
            self.counters.update({"comparable": comparable, "best": None, "waited": 0})
        before = self.best
        kept = value is not None and math.isfinite(value)
        if kept and before is not None:
            kept = value < before["value"] if better == "lower" else value > before["value"]
        if not kept:
            self.counters["waited"] += 1
            return False
        best = {"step": step, "measure": self.measure, "value": value, **details}
        with atomic_directory(self.folder) as folder:
            save(folder)
            write_json(folder / BEST, best)
        self.counters.update({"best": best, "waited": 0})
        return True

    def should_stop(self) -> bool:
        """Whether as many values as the patience were offered without a better one."""
        return self.patience is not None and self.counters.get("waited", 0) >= self.patience

    def _goes_on(self, comparable: str) -> bool:
        if "best" not in self.counters:
            return False
        if self.counters.get("comparable") != comparable:
            tqdm.write(f"{self.folder} begins anew: {self.measure} is measured otherwise than before")
            return False
        return self.best is None or (self.folder / BEST).is_file()
