"""What the scores of the study's results files are called, and which way is better."""

import re
from dataclasses import dataclass, replace

from geopos_diffusers.errors import DataError

LOWER, HIGHER, NEAR_ONE = "lower", "higher", "near 1"


@dataclass(frozen=True)
class Measure:
    """label: for tables. better: LOWER, HIGHER or NEAR_ONE. style: number format."""

    label: str
    better: str
    style: str = ".3f"

    @property
    def digits(self) -> int:
        return int(self.style.strip(".f"))


# In the order of the tables. Losses and forgetting are ratios to the base's, drift to its loss on known hands.
MEASURES = {
    "loss": Measure("loss ratio", LOWER),
    "forgetting": Measure("forgetting: loss ratio on known hands", LOWER),
    "drift": Measure("drift: change of the prediction on known hands", LOWER),
    "loss band 0": Measure("loss ratio, least noise", LOWER),
    "loss band 1": Measure("loss ratio, second band", LOWER),
    "loss band 2": Measure("loss ratio, third band", LOWER),
    "loss band 3": Measure("loss ratio, most noise", LOWER),
    "iou": Measure("IoU with the box", HIGHER),
    "correlation_x": Measure("correlation with the box, across", HIGHER),
    "correlation_y": Measure("correlation with the box, down", HIGHER),
    "centre_error": Measure("error of the centre", LOWER),
    "width_correlation": Measure("correlation of the width", HIGHER),
    "height_correlation": Measure("correlation of the height", HIGHER),
    "found": Measure("hand found", HIGHER),
    "mediapipe_found": Measure("hand found by MediaPipe", HIGHER),
    "judge_found": Measure("hand found by the second judge", HIGHER),
    "one_hand": Measure("one hand", HIGHER),
    "more_hands": Measure("more than one hand", LOWER),
    "parts": Measure("parts of the silhouette", LOWER, ".2f"),
    "well_formed": Measure("well formed", HIGHER),
    "count_right": Measure("fingers right", HIGHER),
    "fingers": Measure("fingers right", HIGHER),
    "handedness_right": Measure("left or right as asked", HIGHER),
    "silhouette_seen": Measure("silhouette seen", HIGHER),
    "silhouette_x": Measure("correlation of the silhouette, across", HIGHER),
    "silhouette_top": Measure("correlation of the silhouette's upper edge", HIGHER),
    "diversity": Measure("diversity beside the held-out images'", NEAR_ONE),
    "l1_image": Measure("L1 error", LOWER, ".4f"),
    "l1_ring": Measure("L1 error, ring", LOWER, ".4f"),
    "l1_centre": Measure("L1 error, centre", LOWER, ".4f"),
    "psnr_image": Measure("PSNR [dB]", HIGHER, ".2f"),
    "psnr_ring": Measure("PSNR, ring [dB]", HIGHER, ".2f"),
    "psnr_centre": Measure("PSNR, centre [dB]", HIGHER, ".2f"),
    "lpips_image": Measure("LPIPS", LOWER),
    "lpips_ring": Measure("LPIPS, ring", LOWER),
    "lpips_centre": Measure("LPIPS, centre", LOWER),
    "kid": Measure("KID", LOWER, ".4f"),
}


def split_size(score: str) -> tuple[str | None, str]:
    """("64x128", "found") of "64x128 found", the size as height x width; no size of what has none in front."""
    match = re.fullmatch(r"(\d+x\d+) (.+)", score)
    return (match[1], match[2]) if match else (None, score)


def measure_of(score: str) -> Measure:
    """The measure behind a score's name, with the size of the images in its label.

    Raises:
        DataError: an unknown score.
    """
    size, name = split_size(score)
    if name not in MEASURES:
        raise DataError(f"nothing says whether more or less of the score {name!r} is better; add it to MEASURES")
    measure = MEASURES[name]
    return measure if size is None else replace(measure, label=f"{measure.label}, {size}")


def in_order(scores: set[str]) -> list[str]:
    """Known scores: those without a size first, each size's together, as `MEASURES` has them."""
    names = list(MEASURES)

    def place(score: str) -> tuple[list[int], int]:
        size, name = split_size(score)
        return ([] if size is None else [int(side) for side in size.split("x")], names.index(name))

    return sorted((score for score in scores if measure_of(score)), key=place)
