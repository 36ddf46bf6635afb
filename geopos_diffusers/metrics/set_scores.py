"""Scores of a set of images as a whole beside a reference: quality and diversity, of whole images and hand crops."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import overload

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
            key = _key(scored, reference, seed)
            for score, interval in _remember(
                cache,
                f"set/{FORMAT}/{region}/{identities[name]}/{halves}",
                key,
                lambda features=features, other=of_reference[name]: (
                    half_quality_scores(features, seed) if halves else quality_scores(features, other, seed)
                ),
            ).items():
                scores[f"{region}/{name}/{score}"] = interval
        if not of_scored:
            continue
        for score, interval in _remember(
            cache,
            f"diversity/{FORMAT}/{region}/{MARGIN if region == 'crops' else 0}",
            _key(scored, scored, seed),
            lambda region=region: diversity_scores(_Pictures(scored, region == "crops"), seed),
        ).items():
            scores[f"{region}/{score}"] = interval
    return scores


class _Pictures(Sequence[Image.Image]):
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
