"""What the results files say of each task of the study, in one form, whichever experiment wrote them."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..frames.arms import TRAINED as FRAME_ARMS
from ..frames.score_cells import RENDERED
from ..results import Run, pairs, read_results, select
from ..vae_decoder.run import ARMS as DECODER_ARMS
from ..vae_decoder.section import UNTOUCHED
from .arms import PRIMARY
from .measures import in_order
from .run import BASE, EXPERIMENT, REAL
from .tasks import TASKS

Pair = tuple[str, str]
PLACE_PAIRS: tuple[Pair, ...] = (
    ("frames, whole", "no control"),
    ("frames, whole", "place words, whole"),
    ("frames, whole", "box channel, whole"),
    ("frames, whole", "box tokens, whole"),
    ("frames, LoRA", "place words, LoRA"),
)
SAME_NOISE = "the same captions and noise in each arm"
DECODER_PAIRS: tuple[Pair, ...] = (("geometry", "bias"), ("geometry", "LoRA"))


@dataclass(frozen=True)
class TaskResults:
    """One task.

    primary: the score that the pairs are compared by. pairs: geometry and its control. arms: what was planned.
    results: the file's content; None where nothing was run. runs: those that are compared, references among them.
    steps: of each training. base: the variant without training; None where it was not measured. file: of the results.
    caption: of the picture beside it. real: the variant that is the held-out images themselves.
    """

    name: str
    title: str
    question: str
    primary: str
    pairs: tuple[Pair, ...]
    arms: tuple[str, ...]
    file: Path
    caption: str
    results: dict[str, Any] | None = None
    runs: list[Run] = field(default_factory=list)
    steps: int | None = None
    base: str | None = None
    real: str | None = None

    @property
    def variants(self) -> dict[str, Any]:
        """What is known of each trained arm: parameters, sweep and best rate."""
        return {} if self.results is None else self.results["variants"]

    @property
    def picture(self) -> Path:
        return self.file.with_suffix(".png")

    @property
    def measured(self) -> list[str]:
        """Variants with runs: references first, then arms in the planned order, then others."""
        found = dict.fromkeys(run["variant"] for run in self.runs)
        first = [name for name in (self.real, self.base, *self.arms) if name in found]
        return list(dict.fromkeys([*first, *found]))

    @property
    def trained(self) -> list[str]:
        return [name for name in self.measured if name in self.variants]

    @property
    def missing(self) -> list[str]:
        """Planned arms without runs."""
        return [name for name in self.arms if name not in self.measured]

    @property
    def scores(self) -> list[str]:
        """Names of the scores that any run has, in the order of the tables."""
        return in_order({name for run in self.runs for name in run["scores"] if known(run, name)})

    def known_runs(self, variant: str, score: str) -> list[Run]:
        return [run for run in select(self.runs, variant=variant) if known(run, score)]

    def step_seconds(self, variant: str) -> float | None:
        """Wall-clock time of a step of the fastest seed; None where it was not recorded."""
        seconds = [run["seconds"] for run in select(self.runs, variant=variant) if run.get("seconds")]
        return min(seconds) / self.steps if seconds else None

    def paired(self, pair: Pair, score: str) -> tuple[list[float], list[float]]:
        """A score of both arms, over the seeds that both have."""
        first, second = (self.known_runs(name, score) for name in pair)
        return pairs(first, second, score)


def known(run: Run, score: str) -> bool:
    value = run["scores"].get(score)
    return value is not None and math.isfinite(value)


def study_task(name: str, folder: Path) -> TaskResults:
    """A task of `TASKS`, from `folder`/study/TASK.json where it is there."""
    task, file = TASKS[name], folder / "study" / f"{name}.json"
    planned = (name, task.title, task.question, task.primary, PRIMARY, task.arms, file, SAME_NOISE)
    if not file.is_file():
        return TaskResults(*planned)
    results = read_results(file, EXPERIMENT)
    steps = task.steps(results["settings"]["max_train_steps"])
    return TaskResults(*planned, results, results["runs"], steps, base=BASE, real=REAL)


def place_task(folder: Path) -> TaskResults:
    """Hands in boxes, after the most steps that most arms have: from frames.json."""
    file = folder / "frames.json"
    question = "Hands of all places and sizes, drawn where a box says."
    planned = ("place", "Hands in boxes", question, "iou", PLACE_PAIRS, FRAME_ARMS, file, SAME_NOISE)
    if not file.is_file():
        return TaskResults(*planned)
    results = read_results(file, "frames")
    steps = results["image_differences"]["steps"]
    runs = [{"variant": RENDERED, "seed": 0, "scores": results["rendered"]}, *select(results["runs"], steps=steps)]
    swept = {
        name: {**arm, "best_rate": arm["rate"], "bracketed": bool(arm["sweep"])}
        for name, arm in results["variants"].items()
    }
    return TaskResults(*planned, {**results, "variants": swept}, runs, steps, real=RENDERED)


def decoding_task(folder: Path) -> TaskResults:
    """The decoder on photographs: from vae_decoder.json."""
    file = folder / "vae_decoder.json"
    question = "The decoder of the autoencoder, on photographs of hands."
    caption = "gains, sweeps and reconstructions"
    planned = (
        "decoding",
        "Decoding photographs",
        question,
        "l1_image",
        DECODER_PAIRS,
        tuple(DECODER_ARMS),
        file,
        caption,
    )
    if not file.is_file():
        return TaskResults(*planned)
    results = read_results(file, "vae_decoder")
    return TaskResults(*planned, results, results["runs"], results["settings"]["steps"], base=UNTOUCHED)


def read_tasks(folder: Path) -> list[TaskResults]:
    """All tasks, also those that were not run. folder: docs/results."""
    return [*(study_task(name, folder) for name in TASKS), place_task(folder), decoding_task(folder)]
