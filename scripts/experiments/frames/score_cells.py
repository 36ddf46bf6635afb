"""Scores of arms as cells of the page's tables."""

from ..arms_page import estimate_cell
from ..results import Run, mean_score

COLUMNS = {
    "correlation_x": "correlation x",
    "correlation_y": "y",
    "iou": "median IoU",
    "centre_error": "centre error",
    "found": "found",
    "mediapipe_found": "found by MediaPipe",
    "fingers": "fingers right, of the found",
    "well_formed": "well formed, of the found",
    "kid": "KID",
}
MORE_COLUMNS = {
    "one_hand": "one hand",
    "size": "mean size",
    "fingers_at_sizes": "fingers right, at the asked sizes",
    "well_formed_at_sizes": "well formed, at the asked sizes",
}
RENDERED = "the rendered hands"


def row(name: str, runs: list[Run]) -> list[str]:
    """An arm's means over seeds."""
    return [name, str(len(runs)), *(score_cell(runs, score) for score in COLUMNS)]


def known_runs(runs: list[Run], score: str) -> list[Run]:
    """The runs that have the score: without a hand there is no place, and some were not judged by MediaPipe."""
    return [run for run in runs if run["scores"].get(score) is not None]


def score_cell(runs: list[Run], score: str) -> str:
    """The mean over the seeds whose score is known, and how many they are if not all; a dash without any."""
    known = known_runs(runs, score)
    if not known:
        return "-"
    return estimate_cell(mean_score(known, score)) + ("" if len(known) == len(runs) else f" (n = {len(known)})")


def sweep_cell(sweep: dict[str, float | None], digits: int) -> str:
    """What each rate was judged by."""
    shown = (f"{rate}: {'diverged' if value is None else f'{value:.{digits}f}'}" for rate, value in sweep.items())
    return ", ".join(shown) or "not swept"


def seeds_of(runs: list[Run]) -> str:
    return "one seed" if len(runs) == 1 else f"{len(runs)} seeds"


def rendered_row(scores: dict[str, float]) -> list[str]:
    """What the judge gives the rendered hands, which are their own reference."""
    return [RENDERED, "", *("0" if name == "kid" else f"{scores[name]:.3f}" for name in COLUMNS)]
