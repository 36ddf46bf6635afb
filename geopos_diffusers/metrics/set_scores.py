"""Scores of a set of images as a whole beside a reference: quality and diversity, of whole images and hand crops."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import overload

import numpy as np
from PIL import Image

from ..images.opening import open_image
from .bootstrap import Interval
from .diversity import diversity_scores
from .evaluation_cache import EvaluationCache
from .hand_crops import MARGIN, crop_hand, hand_box
from .quality import half_quality_scores, quality_scores
from .records import ScoredFolder, ScoredImage
from .wheel_files import sha256_of

FORMAT = 1  # of the kept scores; raised when their computation changes


def set_scores(
    scored: ScoredFolder, reference: ScoredFolder, identities: Mapping[str, str], seed: int, cache: EvaluationCache
) -> dict[str, Interval]:
    """Scores of the set by "images/NAME" and "crops/NAME", where NAME is "EXTRACTOR/SCORE" or a diversity's own.

    For the reference itself, the scores of its halves, one beside the other: images in random order, as rendered sets
    are sorted. `identities`: of the extractors, by their names, as of `extractor_identity`.
    """
    scores: dict[str, Interval] = {}
    halves = scored is reference
    for region, of_scored, of_reference in (
        ("images", scored.features, reference.features),
        ("crops", scored.crop_features, reference.crop_features),
    ):
        for name, features in of_scored.items():
            component = f"set/{FORMAT}/{region}/{identities[name]}/{halves}"
            compute = partial(_quality, features, None if halves else of_reference[name], seed)
            found = _remember(cache, component, _key(scored, reference, seed), compute)
            scores |= {f"{region}/{name}/{score}": interval for score, interval in found.items()}
        if of_scored:
            component = f"diversity/{FORMAT}/{region}/{MARGIN if region == 'crops' else 0}"
            compute = partial(diversity_scores, _Images(scored, region == "crops"), seed)
            found = _remember(cache, component, _key(scored, scored, seed), compute)
            scores |= {f"{region}/{score}": interval for score, interval in found.items()}
    return scores


def _quality(features: np.ndarray, reference: np.ndarray | None, seed: int) -> dict[str, Interval]:
    """Scores of features beside a reference's; without one, of their own halves."""
    return half_quality_scores(features, seed) if reference is None else quality_scores(features, reference, seed)


class _Images(Sequence[Image.Image]):
    """The images of a folder, or the crops of their most prominent hands, opened when they are asked for."""

    def __init__(self, scored: ScoredFolder, crops: bool) -> None:
        self.entries: list[ScoredImage] = [row for row in scored.entries if row.hands or not crops]
        self.crops = crops

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | Sequence[Image.Image]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        row = self.entries[index]
        image = open_image(row.source.path)
        return crop_hand(image, hand_box(row.hands[0].landmarks)) if self.crops else image


def _key(scored: ScoredFolder, reference: ScoredFolder, seed: int) -> str:
    parts = [row.sha256 for row in scored.entries] + ["beside"] + [row.sha256 for row in reference.entries]
    return sha256_of(f"{seed} {' '.join(parts)}".encode())


def _remember(
    cache: EvaluationCache, component: str, key: str, compute: Callable[[], dict[str, Interval]]
) -> dict[str, Interval]:
    """What `compute` gives, or what the cache holds of it."""
    kept = cache.read(component, [key])
    if key not in kept:
        scores = compute()
        cache.write([(component, key, json.dumps({name: asdict(value) for name, value in scores.items()}).encode())])
        return scores
    return {name: Interval(**value) for name, value in json.loads(kept[key]).items()}
