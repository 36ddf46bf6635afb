"""When a training run collapsed: the project's own criterion, on the share of covered modes over epochs.

The paper (arXiv 2401.01951) speaks of collapse from the look of samples; here it is a number. Let c(e) be the share of
k-means bins of the real data that samples of fixed latents cover at epoch e (see `mode_coverage.py`).

- A run has *learnt* at the first evaluated epoch with c(e) >= LEARNT.
- It is *collapsed at epoch e* if e comes after that, c(e) is below FALL times the best share of the epochs before, and
  so it stays for PATIENCE evaluations in a row, of which e is the first.
- A run that never learns has no epoch of collapse and is reported as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from geopos_diffusers.errors import DataError

LEARNT = 0.2
FALL = 0.5
PATIENCE = 3


@dataclass(frozen=True)
class Collapse:
    """What became of a run; epochs are None where the event did not happen.

    learnt_at, collapsed_at: epochs, as the criterion above says. recovered_at: the first epoch after the collapse with
    at least FALL times the best share again. best: the largest share, last: that of the last evaluation.
    """

    learnt_at: int | None
    collapsed_at: int | None
    recovered_at: int | None
    best: float
    last: float


def find_collapse(
    epochs: Sequence[int],
    covered: Sequence[float],
    learnt: float = LEARNT,
    fall: float = FALL,
    patience: int = PATIENCE,
) -> Collapse:
    """Apply the criterion to the evaluated epochs, in order, and the share of covered bins at each.

    Raises:
        DataError: no evaluations, or another number of epochs than of shares.
    """
    if not epochs or len(epochs) != len(covered):
        raise DataError(f"{len(epochs)} epochs and {len(covered)} shares of covered bins; equally many are needed")
    start = next((index for index, share in enumerate(covered) if share >= learnt), None)
    collapsed = recovered = None
    if start is not None:
        best_before, low = covered[start], 0
        for index in range(start + 1, len(covered)):
            if covered[index] < fall * best_before:
                low += 1
            else:
                low, best_before = 0, max(best_before, covered[index])
            if low == patience:
                collapsed = index - patience + 1
                after = range(index + 1, len(covered))
                recovered = next((later for later in after if covered[later] >= fall * best_before), None)
                break
    return Collapse(
        learnt_at=None if start is None else epochs[start],
        collapsed_at=None if collapsed is None else epochs[collapsed],
        recovered_at=None if recovered is None else epochs[recovered],
        best=max(covered),
        last=covered[-1],
    )


def surviving_share(collapses: Sequence[Collapse], epoch: int) -> float:
    """Share of runs that have not collapsed by `epoch`, that epoch included. Runs that never learnt do not count.

    nan if no run learnt.
    """
    learnt = [run for run in collapses if run.learnt_at is not None]
    if not learnt:
        return float("nan")
    return sum(run.collapsed_at is None or run.collapsed_at > epoch for run in learnt) / len(learnt)
