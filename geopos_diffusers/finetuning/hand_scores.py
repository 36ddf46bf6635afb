"""Scores of the hands in generated images while training: all that fine-tuning takes from `metrics`.

Images are scored as `geopos evaluate` scores them, by the same networks and measures, and kept in the same cache.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..command_line import did_you_mean
from ..errors import ConfigError, DataError
from ..metrics.bootstrap import Interval, bootstrap_means
from ..metrics.evaluation_cache import EvaluationCache
from ..metrics.folder_scoring import score_folders
from ..metrics.hand_attributes import attributes_of_text
from ..metrics.image_folder import FolderImage, list_images
from ..metrics.image_scoring import ImageScorer, ScoringSettings
from ..metrics.measure_values import ReferenceModel
from ..metrics.measures import MEASURES
from ..metrics.records import ScoredFolder

INTERVAL_SEED = 0  # the default of `geopos evaluate`, so that it gives the same intervals of the same images


def check_measure(name: str) -> None:
    """Raise ConfigError for a measure that does not exist."""
    if name not in MEASURES:
        known = ", ".join(MEASURES)
        raise ConfigError(
            f"evaluation_measure must be one of {known}; got {name!r}{did_you_mean(name, list(MEASURES))}"
        )


def check_reference(reference: str | os.PathLike) -> None:
    """Raise DataError for a reference that is no folder of images, without opening any."""
    list_images(reference)


class HandScorer:
    """Scores folders of images beside one reference, which is scored once.

    The networks are loaded when an image needs them, and held until `close`. Nothing is computed again that the cache
    of `geopos evaluate` holds.

    Args:
        reference: a folder of real or rendered hands.
        measure: a name out of `MEASURES`, by which the best weights are chosen.
        prompts: of the images to come.

    Raises:
        DataError: the reference is no folder of images, or no hand is found in it.
        ConfigError: the measure has no value for such prompts.
        MissingDependencyError: mediapipe or a model is missing and cannot be fetched.
    """

    def __init__(self, reference: str | os.PathLike, measure: str, prompts: Sequence[str]) -> None:
        check_measure(measure)
        self.measure = MEASURES[measure]
        self._settings = ScoringSettings(extractors=())
        self._scorer = ImageScorer(self._settings)
        scored = self._score_folder(reference, progress=True)
        if not any(row.hands for row in scored.entries):
            raise DataError(
                f"no hand was found in the {len(scored.entries)} images of the reference {reference}; "
                "give a folder of real or rendered hands"
            )
        self._model = ReferenceModel.of(scored)
        self._check_prompts(scored, prompts)

    def close(self) -> None:
        self._scorer.close()

    @property
    def facts(self) -> dict[str, Any]:
        """What scores depend on beside the images, JSON-ready. Those of different facts are not comparable."""
        hashes = sorted(row.sha256 for row in self._model.reference.entries)
        return {
            "measure": self.measure.name,
            "reference": digest(hashes),
            "scored_with": digest(self._settings.components.values()),
        }

    def score(self, folder: str | os.PathLike) -> dict[str, Interval]:
        """The mean of each measure over the images of a folder, with its 95% interval; None where it has no value."""
        scored = self._score_folder(folder)
        values = np.stack([measure.values(scored, self._model) for measure in MEASURES.values()], axis=1)
        return dict(zip(MEASURES, bootstrap_means(values, seed=INTERVAL_SEED), strict=True))

    def is_better(self, value: float, other: float) -> bool:
        """Whether one mean of the measure is better than another. Equal ones are not."""
        return value > other if self.measure.better == "higher" else value < other

    def _score_folder(self, folder: str | os.PathLike, progress: bool = False) -> ScoredFolder:
        with EvaluationCache.default() as cache:
            (scored,) = score_folders(
                [(os.fspath(folder), list_images(folder))],
                self._settings,
                cache=cache,
                num_workers=1,
                progress=progress,
                scorer=self._scorer,
            )
        return scored

    def _check_prompts(self, reference: ScoredFolder, prompts: Sequence[str]) -> None:
        """Ask for the measure of the reference's own hands, as if they were generated from the prompts."""
        hands = [row for row in reference.entries if row.hands]
        pretended = []
        for index, prompt in enumerate(prompts):
            row = hands[index % len(hands)]
            source = FolderImage(row.source.path, row.source.name, attributes_of_text(prompt), text=prompt)
            pretended.append(replace(row, source=source))
        values = self.measure.values(replace(reference, entries=tuple(pretended)), self._model)
        if not np.isfinite(values).any():
            raise ConfigError(
                f"evaluation_measure {self.measure.name} has no value for these prompts and this reference. "
                f"It is: {self.measure.description}"
            )


def digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def as_json(scores: dict[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: asdict(interval) for name, interval in scores.items()}
