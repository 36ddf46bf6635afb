"""Which images a report's page shows, and their thumbnails: JPEG within the page, with the landmarks beside them."""

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..images.opening import open_image

MOST_THUMBNAILS, MOST_BYTES = 600, 18_000_000  # bytes before base64, which makes a third more of them
SIDE, QUALITY = 192, 85  # pixels of the longer side; of JPEG
PAIRED_SHARE = 0.4  # of the thumbnails, for the same prompt and noise of all models
RANKED_MEASURES = 4  # whose best and worst images are shown of a set that is too large to be shown as a whole
MAIN_MEASURES = ("judge_score", "anatomy_distance", "presence", "joint_error")  # where they are known; first of all


@dataclass(frozen=True)
class Chosen:
    """images: (set, image) indices, the reference being the last set. sentence: how they were chosen."""

    images: tuple[tuple[int, int], ...]
    sentence: str


def sets_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The folders of a report's document and, last, its reference."""
    return [*document["folders"], document["reference"]]


def ranking_measures(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The measures that rank images: numbers rather than shares, those of MAIN_MEASURES first."""
    measures = document["measures"]
    numbers = [measure for measure in measures if measure["kind"] == "number" and not measure["warning"]]
    main = [measure for name in MAIN_MEASURES for measure in numbers if measure["name"] == name]
    return [*main, *(measure for measure in numbers if measure not in main)] or measures[:1]


def choose_images(document: dict[str, Any], limit: int = MOST_THUMBNAILS) -> Chosen:
    """At most `limit` images of a report: all of them, or pairs, the best and worst, those with several hands, others.

    Random choices are those of the report's seed.
    """
    sets = sets_of(document)
    total = sum(len(part["images"]) for part in sets)
    everything = [(place, index) for place, part in enumerate(sets) for index in range(len(part["images"]))]
    if total <= limit:
        return Chosen(tuple(everything), f"All {total:,} images are shown.")
    generator = np.random.default_rng(document["seed"])
    chosen: dict[tuple[int, int], None] = {}
    groups = _paired_groups(document)
    for row in generator.permutation(len(groups)):
        if len(chosen) + len(groups[row]) > PAIRED_SHARE * limit:
            break
        chosen |= dict.fromkeys(groups[row])
    ranked = ranking_measures(document)[:RANKED_MEASURES]
    queues = [queue for place, part in enumerate(sets) for queue in _queues(place, part, ranked, generator)]
    while queues and len(chosen) < limit:
        queue = queues.pop(0)
        if following := next((image for image in queue if image not in chosen), None):
            chosen[following] = None
            queues.append(queue)
    titles = ", ".join(measure["title"] for measure in ranked)
    pairs = "images of the same prompt and noise, " if groups else ""
    sentence = (
        f"{len(chosen):,} of {total:,} images are shown: {pairs}the best and the worst of each set by {titles}, images "
        f"with several hands, and others at random (seed {document['seed']}). The tables hold all."
    )
    return Chosen(tuple(chosen), sentence)


def _paired_groups(document: dict[str, Any]) -> list[list[tuple[int, int]]]:
    """Images of one prompt and noise, of all models that have it."""
    groups = {index: [(0, index)] for index in range(len(document["folders"][0]["images"]))}
    for place, pairing in enumerate(document["pairings"], start=1):
        for first, second in zip(pairing["baseline_images"], pairing["other_images"], strict=True):
            groups[first].append((place, second))
    return [group for group in groups.values() if len(group) > 1]


def _queues(
    place: int, part: dict[str, Any], ranked: Sequence[dict[str, Any]], generator: np.random.Generator
) -> Iterator[Iterator[tuple[int, int]]]:
    """Orders in which to show images of one set, each from its first on: worst, best, several hands, random."""
    images = part["images"]
    shuffled = generator.permutation(len(images))
    for measure in ranked:
        known = [(images[index]["values"][measure["name"]], int(index)) for index in shuffled]
        ordered = sorted((pair for pair in known if pair[0] is not None), key=lambda pair: pair[0])
        yield iter([(place, index) for _, index in ordered])
        yield iter([(place, index) for _, index in reversed(ordered)])
    yield iter([(place, int(index)) for index in shuffled if len(images[index]["hands"]) > 1])
    yield iter([(place, int(index)) for index in shuffled])


def make_thumbnails(document: dict[str, Any], chosen: Chosen) -> tuple[dict[tuple[int, int], dict[str, Any]], int]:
    """By (set, image): the address of a JPEG within the page, its size in pixels, and landmarks [42] of each hand.

    Returns:
        The thumbnails and the number of images that cannot be read any more; nothing is taken beyond MOST_BYTES.
    """
    sets = sets_of(document)
    made: dict[tuple[int, int], dict[str, Any]] = {}
    missing = size = 0
    for place, index in chosen.images:
        row = sets[place]["images"][index]
        try:
            image = open_image(Path(sets[place]["path"]) / row["file_name"])
        except DataError:
            missing += 1
            continue
        thumbnail, length = _thumbnail(image, [hand["landmarks"] for hand in row["hands"]])
        if size + length > MOST_BYTES:
            break
        size += length
        made[place, index] = thumbnail
    return made, missing


def _thumbnail(image: Image.Image, hands: Sequence[Sequence[Sequence[float]]]) -> tuple[dict[str, Any], int]:
    scale = min(1.0, SIDE / max(image.size))
    size = max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, format="JPEG", quality=QUALITY)
    points = [[round(scale * value, 1) for joint in hand for value in joint[:2]] for hand in hands]
    address = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"src": address, "w": size[0], "h": size[1], "hands": points}, buffer.tell()
