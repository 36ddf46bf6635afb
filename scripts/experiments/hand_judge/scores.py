"""Scores of a judge's answers."""

import numpy as np
from scipy.stats import rankdata


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half (Mann-Whitney).

    nan without positives or without negatives.
    """
    above, below = int(positive.sum()), int((~positive).sum())
    if not above or not below:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - above * (above + 1) / 2) / (above * below))
