"""Scores of hands while training: images of the current weights, always from the same noise; the best are kept.

The run's folder then holds evaluation/step-N/ (images, metadata.jsonl), evaluation/scores.jsonl, evaluation/scores.png
and best/, the weights with the best mean of the chosen measure.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from ..errors import ConfigError, DataError
from ..files import atomic_directory, atomic_path, write_json, write_text
from ..images.metadata import METADATA
from ..metrics.report_table import decimal
from ..optional_packages import is_installed, optional_import
from ..pipelines.generation import generate_images
from ..training.early_stopping import BestWeights
from ..training.loss_log import read_losses
from .denoising_options import PromptArguments
from .hand_scores import HandScorer, as_json, check_reference, digest
from .validation import evaluation_prompts, generating, guidance_scale, sampling_options, untouched_randomness

SCORES, SETTINGS = "scores.jsonl", "settings.json"


class HandEvaluation:
    """The evaluations of a run. `prepare` comes before the training, `begin` at its start, `finish` at its end.

    rows: of scores.jsonl. best: is offered the chosen measure, if it goes by that.

    Raises:
        DataError: no prompts, or a reference that is no folder of images.
    """

    def __init__(self, args: PromptArguments, best: BestWeights | None) -> None:
        self.args = args
        self.best = best if best is not None and best.measure == args.hand_measure else None
        self.prompts = evaluation_prompts(args)
        check_reference(args.evaluation_reference or "")
        self.folder = Path(args.output_dir) / "evaluation"
        self.rows: list[dict[str, Any]] = []

    def prepare(self, continued: bool) -> None:
        """Score the reference, and see that a continued run's scores are of the same kind. On the first process.

        Raises:
            DataError, ConfigError, MissingDependencyError: as of `HandScorer`.
            ConfigError: the scores that are there are of other prompts, another reference, measure or sampling.
        """
        self.scorer = HandScorer(self.args.evaluation_reference or "", self.args.hand_measure, self.prompts)
        self.facts = {
            **self.scorer.facts,
            "prompts": digest(self.prompts),
            "images": self.args.evaluation_images or len(self.prompts),
            "inference_steps": self.args.validation_inference_steps,
            "guidance_scale": guidance_scale(self.args),
        }
        before = read_object(self.folder / SETTINGS) if continued else None
        if before is None:
            return
        for name, value in self.facts.items():
            if before.get(name) != value:
                raise ConfigError(
                    f"the scores in {self.folder} were made with {name}={json.dumps(before.get(name))}; this run has "
                    f"{name}={json.dumps(value)}. Give the same again, or remove that folder for a new curve and best/"
                )

    def begin(self, step: int) -> None:
        """The training begins, or continues after `step`. What is there of later steps is written anew, as losses are.

        best/ stays: a continued run repeats its steps exactly, so those weights are what it comes to.
        """
        self.rows = [row for row in read_losses(self.folder / SCORES) if row["step"] <= step]
        self._write_rows()
        write_json(self.folder / SETTINGS, self.facts)
        for images in self.folder.glob("step-*"):
            if images.is_dir() and int(images.name.removeprefix("step-")) > step:
                shutil.rmtree(images)

    def evaluate(
        self,
        pipe: Any,
        call_arguments: Callable[[list[str]], dict[str, Any]],
        accelerator: Accelerator,
        resolution: int,
        save: Callable[[Path], None],
        step: int,
    ) -> dict[str, float]:
        """Generate and score the images of the current weights, and keep these if they are the best so far.

        Args:
            call_arguments: see `generate_images`.
            save: writes what is trained into a folder.

        Returns:
            No scores: they go to the trackers from here, since the terminal shows the chosen one alone.
        """
        began = time.perf_counter()
        images = self._generate(pipe, call_arguments, accelerator, resolution, step)
        with untouched_randomness(accelerator):
            scores = self.scorer.score(images)
        means = {name: interval.value for name, interval in scores.items() if interval.value is not None}
        accelerator.log({f"evaluation/{name}": value for name, value in means.items()}, step=step)
        row = {"step": step, "images": self.facts["images"], "seconds": round(time.perf_counter() - began, 1)}
        self.rows.append({**row, "measures": as_json(scores)})
        self._write_rows()
        self._offer(step, save)
        tqdm.write(f"step {step}: {self._describe(self._chosen(self.rows[-1]))}, in {row['seconds']} s")
        return {}

    def finish(self) -> None:
        """Draw the curve and say which step was the best."""
        self.scorer.close()
        measure = self.scorer.measure.name
        if not any(row["measures"][measure]["value"] is not None for row in self.rows):
            missing = "" if self.best is None else f", so there is no {self.best.folder}"
            print(f"no evaluation had a value of {measure}{missing}")
            return
        if self.best is not None and self.best.best is not None:
            best = self.best.best
            print(f"best of {len(self.rows)} evaluations: step {best['step']}, {self._describe(best)}")
        if is_installed("matplotlib"):
            draw_scores(self.rows, measure, self.scorer.measure.title, self.folder / "scores.png")
        else:
            print("evaluation/scores.png is left out: it needs matplotlib (pip install 'geopos-diffusers[train]')")

    def _generate(
        self, pipe: Any, call_arguments: Callable, accelerator: Accelerator, resolution: int, step: int
    ) -> Path:
        target = self.folder / f"step-{step}"
        options = {**sampling_options(self.args, resolution), "call_arguments": call_arguments}
        count, batch = self.facts["images"], self.args.train_batch_size
        with atomic_directory(target) as folder, generating(pipe, accelerator):
            rows = []
            for item in generate_images(pipe, self.prompts, num_images=count, batch_size=batch, **options):
                item.image.save(folder / item.file_name, format="PNG")
                rows.append(json.dumps(item.row, ensure_ascii=False) + "\n")
            (folder / METADATA).write_text("".join(rows), encoding="utf-8")
        return target

    def _write_rows(self) -> None:
        write_text(self.folder / SCORES, "".join(json.dumps(row) + "\n" for row in self.rows))

    def _offer(self, step: int, save: Callable[[Path], None]) -> None:
        if self.best is None:
            return
        chosen = dict(self._chosen(self.rows[-1]))
        value, better = chosen.pop("value"), self.scorer.measure.better
        comparable = digest([json.dumps(self.facts, sort_keys=True)])
        self.best.offer(step, value, better, save, comparable, **chosen)

    def _chosen(self, row: dict[str, Any]) -> dict[str, Any]:
        return row["measures"][self.scorer.measure.name]

    def _describe(self, interval: dict[str, Any]) -> str:
        measure = self.scorer.measure
        if interval["value"] is None:
            return f"{measure.title} has no value"
        return f"{measure.title} {decimal(interval, measure.digits)}"


def read_object(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None where there is no such file.

    Raises:
        DataError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; remove {path.parent}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: it holds no object; remove {path.parent}")
    return value


def draw_scores(rows: list[dict[str, Any]], measure: str, title: str, target: Path) -> None:
    """Write a PNG of a measure's mean and interval against steps, with that of step 0, the base, as a line."""
    with optional_import("the curve of the scores", "train"):
        from matplotlib.figure import Figure

    points = [(row["step"], row["measures"][measure]) for row in rows if row["measures"][measure]["value"] is not None]
    steps = [step for step, _ in points]
    value = [interval["value"] for _, interval in points]
    # Of a single image there is no interval.
    low, high = ([math.nan if one[name] is None else one[name] for _, one in points] for name in ("low", "high"))
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, value, color="C0", marker="o", label="mean")
    axes.fill_between(steps, low, high, color="C0", alpha=0.2, linewidth=0, label="95% interval")
    if steps[0] == 0:
        axes.axhline(value[0], color="0.4", linewidth=0.8, linestyle="--", label="before training")
    axes.set(xlabel="step", ylabel=title)
    axes.legend()
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
