"""Scores of arms as cells of the page's tables."""

from ..arms_page import estimate_cell
from ..results import Run, mean_score

COLUMNS = {
    "correlation_x": "correlation x",
    "correlation_y": "y",
    "iou": "IoU",
    "centre_error": "centre error",
    "found": "found",
    "mediapipe_found": "found by MediaPipe",
    "fingers": "fingers right",
    "well_formed": "well formed",
    "kid": "KID",
}
RENDERED = "the rendered hands"


def row(name: str, runs: list[Run]) -> list[str]:
    """An arm's means over seeds."""
    return [name, str(len(runs)), *(score_cell(runs, score) for score in COLUMNS)]


def score_cell(runs: list[Run], score: str) -> str:
    """The mean over the seeds whose score is known; a dash without any."""
    known = [run for run in runs if run["scores"].get(score) is not None]
    return estimate_cell(mean_score(known, score)) if known else "-"


def seeds_of(runs: list[Run]) -> str:
    return "one seed" if len(runs) == 1 else f"{len(runs)} seeds"


def rendered_row(scores: dict[str, float]) -> list[str]:
    """What the judge gives the rendered hands, which are their own reference."""
    return [RENDERED, "", *("0" if name == "kid" else f"{scores[name]:.3f}" for name in COLUMNS)]
