"""What the scores of quality and diversity are, and from how many images on they are worth reading."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from .kid import MINIMUM_IMAGES


class QualityMeasure(NamedTuple):
    """What a score is.

    title: for tables. better: "lower", "higher" or "near the reference's". usual: fewest images of each set that papers
    use or ask for; of CMMD and the Vendi score, chosen here. source: paper. range: of its values. minimum: fewest
    images of each set that it can be had of.
    """

    title: str
    better: str
    usual: int
    source: str
    range: tuple[float, float]
    minimum: int


ANY, POSITIVE, SHARE = (-math.inf, math.inf), (0.0, math.inf), (0.0, 1.0)
NEAR = "near the reference's"
SUBSAMPLED = 12  # halves of fewer images have too few for five neighbours
IMAGES_PER_BIN, MAXIMUM_BINS = 10, 100  # of the reference
BINNED = 2 * IMAGES_PER_BIN

FEATURE_SCORES: dict[str, QualityMeasure] = {
    "fid": QualityMeasure("FID", "lower", 10_000, "Heusel et al., arXiv 1706.08500", POSITIVE, SUBSAMPLED),
    "kid": QualityMeasure("KID", "lower", 1000, "Bińkowski et al., arXiv 1801.01401", ANY, MINIMUM_IMAGES),
    "cmmd": QualityMeasure("CMMD", "lower", 1000, "Jayasumana et al., arXiv 2401.09603", ANY, MINIMUM_IMAGES),
    "precision": QualityMeasure(
        "precision", "higher", 10_000, "Kynkäänniemi et al., arXiv 1904.06991", SHARE, SUBSAMPLED
    ),
    "recall": QualityMeasure("recall", "higher", 10_000, "Kynkäänniemi et al., arXiv 1904.06991", SHARE, SUBSAMPLED),
    "density": QualityMeasure("density", NEAR, 10_000, "Naeem et al., arXiv 2002.09797", POSITIVE, SUBSAMPLED),
    "coverage": QualityMeasure("coverage", "higher", 10_000, "Naeem et al., arXiv 2002.09797", SHARE, SUBSAMPLED),
    "vendi": QualityMeasure(
        "Vendi score", NEAR, 1000, "Friedman and Dieng, arXiv 2210.02410", (1.0, math.inf), SUBSAMPLED
    ),
    "ndb": QualityMeasure("NDB / K", "lower", 1000, "Richardson and Weiss, arXiv 1805.12462", SHARE, BINNED),
    "jsd": QualityMeasure("JSD", "lower", 1000, "Richardson and Weiss, arXiv 1805.12462", SHARE, BINNED),
}
DIVERSITY_SCORES: dict[str, QualityMeasure] = {
    "ms_ssim": QualityMeasure("MS-SSIM of pairs", NEAR, 100, "Odena et al., arXiv 1610.09585", SHARE, 2),
    "lpips_mobilenet": QualityMeasure(
        "LPIPS-MobileNetV2 (uniform weights) of pairs", NEAR, 100, "after Zhang et al., arXiv 1801.03924", POSITIVE, 2
    ),
    "lpips_alex": QualityMeasure("LPIPS-Alex of pairs", NEAR, 100, "Zhang et al., arXiv 1801.03924", POSITIVE, 2),
}
QUALITY = FEATURE_SCORES | DIVERSITY_SCORES


def warnings_for(
    count: int, reference_count: int, width: int | None = None, names: Iterable[str] = FEATURE_SCORES
) -> tuple[str, ...]:
    """Sentences on what too few images do to the scores; none if there are enough.

    Args:
        count: images of the set.
        reference_count: images of the reference.
        width: D, values of one image's features.
        names: of the scores, as in `QUALITY`.
    """
    fewest = min(count, reference_count)
    few: dict[int, list[str]] = {}
    for measure in (QUALITY[name] for name in names):
        if fewest < measure.usual:
            few.setdefault(measure.usual, []).append(measure.title)
    sentences = [
        f"{', '.join(titles)}: {fewest:,} images, fewer than the usual {usual:,}; compare only with scores of as many."
        for usual, titles in sorted(few.items())
    ]
    if width is not None and fewest <= width:
        sentences.append(f"FID is far too high, by its bias: {fewest:,} images, and {width:,} features of each.")
    return tuple(sentences)
