"""The results file of `mechanism`: what each of its records is of, and what stands in it of a task."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..results import Run, commands_with, read_standing, select, write_results

EXPERIMENT = "study_mechanism"
# Variants: the model without an adapter, and what is measured of one.
BASE, ENERGY, REMOVAL, ONE_LAYER = "base", "energy", "removal", "one layer"
SHIFT, POSITION = "shifted coordinates", "position"


class ResultsFile:
    """Records of all tasks: one for each task, seed and part; they are written whenever some are added."""

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        self.file, self.settings = file, settings
        standing = read_standing(file, EXPERIMENT, settings)
        self.records: list[dict[str, Any]] = [] if standing is None else standing["runs"]
        self.commands = commands_with(standing)

    def known(self, task: str, **wanted: Any) -> list[dict[str, Any]]:
        return select(self.records, task=task, **wanted)

    def add(self, task: str, seed: int, parts: Mapping[str, Mapping[str, float]]) -> None:
        """parts: scores by variant."""
        for variant, scores in parts.items():
            self.records.append({"variant": variant, "seed": seed, "task": task, "scores": dict(scores)})
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_results(self.file, EXPERIMENT, self.records, self.settings, commands=self.commands)


def first_words(runs: Iterable[Run], ending: str) -> list[str]:
    """What stands before an ending in the names of scores, such as the layers, in their order."""
    names = dict.fromkeys(name for run in runs for name in run["scores"])
    return [name.removesuffix(ending) for name in names if name.endswith(ending)]
