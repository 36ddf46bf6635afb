"""How many images show a difference between two models: sample sizes for 80% power at a two-sided level of 5%.

Numbers only, no images. Power is the share of evaluations that would find a true difference of that size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ..errors import DataError

LEVEL = 0.05
POWER = 0.80
DIFFERENCE = 0.05
RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
# Differences of means, in standard deviations of the pairs' differences.
EFFECTS = (0.1, 0.2, 0.3, 0.5)
MOST_EXACT = 1000  # pairs that differ up to which the exact test's power is computed; beyond, the normal formula
TABLE = 1500
_Z_LEVEL = NormalDist().inv_cdf(1 - LEVEL / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)


@dataclass(frozen=True)
class SharePlan:
    """What it takes to show that a share differs by `difference` from `rate`, upwards or downwards.

    images: of each model, where the images of the two are not paired. discordant: share of pairs whose images differ in
    the measure. pairs: images of each model, where those of one prompt and seed are compared.
    """

    name: str
    rate: float
    difference: float
    images: int
    discordant: float
    pairs: int


def images_for_shares(first: float, second: float) -> int:
    """Images of each of two models with these true shares that show the difference without pairs.

    Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (2003), chapter 4, without the correction for
    continuity: for the chi-squared test of two proportions, with the pooled variance.

    Raises:
        DataError: shares outside 0 to 1, or equal ones.
    """
    check_share("a share", first)
    check_share("a share", second)
    difference = abs(first - second)
    if difference == 0:
        raise DataError(f"the shares must differ; both are {first:g}")
    mean = (first + second) / 2
    root = _Z_LEVEL * math.sqrt(2 * mean * (1 - mean))
    root += _Z_POWER * math.sqrt(first * (1 - first) + second * (1 - second))
    return math.ceil((root / difference) ** 2)


def pairs_for_shares(discordant: float, difference: float) -> int:
    """Pairs that show a difference of two shares with McNemar's exact test, where a share `discordant` of them differ.

    The smallest number at which the exact test's power reaches POWER, searched from Connor's formula (Biometrics 43,
    1987), which is for the test without exactness and returned where more than MOST_EXACT pairs differ.

    Raises:
        DataError: a difference outside 0 to 1, or fewer discordant pairs than the difference makes.
    """
    check_share("the difference", difference)
    check_share("the discordant share", discordant)
    if not 0 < difference <= discordant:
        raise DataError(
            f"a difference of {difference:g} needs a discordant share of that much or more; got {discordant:g}"
        )
    root = _Z_LEVEL * math.sqrt(discordant) + _Z_POWER * math.sqrt(max(discordant - difference**2, 0.0))
    low = math.ceil((root / difference) ** 2)
    if low * discordant > MOST_EXACT:
        return low
    rejected = rejection_chances((discordant + difference) / (2 * discordant))
    high = low
    while mcnemar_power(high, discordant, rejected) < POWER:
        low, high = high, math.ceil(high * 1.1) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if mcnemar_power(middle, discordant, rejected) >= POWER else (middle, high)
    return high


def mcnemar_power(pairs: int, discordant: float, rejected: np.ndarray) -> float:
    """Power of the exact test with `pairs` pairs: `rejection_chances` over all numbers of pairs that differ."""
    counts = np.arange(min(pairs, len(rejected) - 1) + 1)
    log_chances = np.array([log_binomial(int(count), pairs, discordant) for count in counts])
    return float((np.exp(log_chances) * rejected[counts]).sum())


def rejection_chances(share: float) -> np.ndarray:
    """Chance that McNemar's exact test rejects where 0, 1, ... TABLE - 1 pairs differ: [TABLE].

    `share` is the true chance that a pair that differs is a win.
    """
    return lower_tails(share) + lower_tails(1 - share)


def lower_tails(share: float) -> np.ndarray:
    """Chance of at most `critical_counts()` wins of 0, 1, ... TABLE - 1 pairs, each a win with chance `share`."""
    critical = critical_counts()
    tails = np.zeros(TABLE)
    for count in range(1, TABLE):
        most, before = critical[count], critical[count - 1]
        # One pair more with the same limit: out of the tail go those who were at the limit and win.
        tails[count] = tails[count - 1] - (share * binomial(before, count - 1, share) if before >= 0 else 0.0)
        if most > before:
            tails[count] += binomial(most, count, share)
    return tails


@lru_cache(maxsize=1)
def critical_counts() -> tuple[int, ...]:
    """The most wins of 0, 1, ... TABLE - 1 pairs that differ with which the exact test rejects; -1 for none."""
    critical, tail = [-1], 0.0
    for count in range(1, TABLE):
        most = critical[-1]
        if most >= 0:
            tail -= 0.5 * binomial(most, count - 1, 0.5)
        following = binomial(most + 1, count, 0.5)
        grows = tail + following <= LEVEL / 2
        tail += following if grows else 0.0
        critical.append(most + 1 if grows else most)
    return tuple(critical)


def pairs_for_means(difference: float, deviation: float) -> int:
    """Pairs that show a mean difference with a paired t test; `deviation`: standard deviation of the differences.

    Guenther, The American Statistician 35 (1981): the normal formula and half the squared quantile of the level more.

    Raises:
        DataError: a difference of 0, a deviation that is not above 0, or values that are not finite.
    """
    if not (math.isfinite(difference) and math.isfinite(deviation) and difference != 0 and deviation > 0):
        raise DataError(f"difference {difference:g} and deviation {deviation:g} must be finite, not 0 and above 0")
    return math.ceil(((_Z_LEVEL + _Z_POWER) * deviation / difference) ** 2 + _Z_LEVEL**2 / 2)


def plan(
    rates: Mapping[str, float] | None = None,
    discordant: Mapping[str, float] | None = None,
    difference: float = DIFFERENCE,
) -> list[SharePlan]:
    """What shows a difference of `difference`, for each share.

    Args:
        rates: the shares by name, such as a baseline's measured ones; RATES if None.
        discordant: measured shares of pairs that differ, by the same names. Where there is none, pairs count as
            independent: that many differ where one prompt and seed say nothing of the other model's image.

    Raises:
        DataError: shares outside 0 to 1, or a difference that no share of 0 to 1 can have.
    """
    check_share("the difference", difference)
    named = {f"{rate:.0%}": rate for rate in RATES} if rates is None else rates
    return [plan_share(name, rate, difference, (discordant or {}).get(name)) for name, rate in named.items()]


def plan_share(name: str, rate: float, difference: float, discordant: float | None = None) -> SharePlan:
    """The plan of one share. Upwards and downwards need different numbers; the larger one is given.

    A measured discordant share below the difference, as in an evaluation of two models that do not differ, counts as
    the difference.
    """
    check_share(f"the share {name!r}", rate)
    others = [other for other in (rate + difference, rate - difference) if -1e-9 < other < 1 + 1e-9]
    if not others or difference == 0:
        raise DataError(f"a share of {rate:g} cannot differ by {difference:g}")
    others = [min(1.0, max(0.0, other)) for other in others]
    images = max(images_for_shares(rate, other) for other in others)
    if discordant is None:
        discordant = max(rate * (1 - other) + other * (1 - rate) for other in others)
    discordant = max(discordant, difference)
    return SharePlan(name, rate, difference, images, discordant, pairs_for_shares(discordant, difference))


def plan_table(plans: Sequence[SharePlan]) -> str:
    """A table of plans as text, one line each."""
    header = f"{'share':<24} {'rate':>6} {'difference':>11} {'images':>8} {'pairs that differ':>18} {'pairs':>7}"
    lines = [
        f"{row.name:<24} {row.rate:>6.1%} {100 * row.difference:>4g} points {row.images:>8,} {row.discordant:>18.1%} "
        f"{row.pairs:>7,}"
        for row in plans
    ]
    return "\n".join([header, *lines])


def format_plan(
    rates: Mapping[str, float] | None = None,
    discordant: Mapping[str, float] | None = None,
    difference: float = DIFFERENCE,
) -> str:
    """The text of `geopos evaluate --plan`: the table of `plan`, the same for means, and how to read them."""
    means = "  ".join(f"{effect:g} sd: {pairs_for_means(effect, 1.0):,}" for effect in EFFECTS)
    return (
        f"Images of each model that show a difference with {POWER:.0%} power (two-sided, level {LEVEL:.0%}).\n"
        "images: of each model, where the two models' images are not paired. pairs: where they have the same prompts\n"
        "and seeds, and so many pairs differ (McNemar's exact test). A share without a measured one counts pairs as\n"
        "independent, which asks for more than images of one seed usually need.\n\n"
        f"{plan_table(plan(rates, discordant, difference))}\n\n"
        f"A numeric measure, by the difference in standard deviations of the pairs' differences (paired t test):\n"
        f"{means} pairs\n"
    )


def check_share(name: str, value: float) -> None:
    """Raises DataError for a value that is not in 0 to 1."""
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise DataError(f"{name} must be a number from 0 to 1; got {value:g}")


def binomial(successes: int, trials: int, share: float) -> float:
    """Chance of `successes` in `trials` of chance `share`."""
    return math.exp(log_binomial(successes, trials, share))


def log_binomial(successes: int, trials: int, share: float) -> float:
    """Logarithm of `binomial`; about -700 a success or failure where its chance is 0."""
    failures = trials - successes
    ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(failures + 1)
    return ways + successes * math.log(max(share, 1e-300)) + failures * math.log(max(1 - share, 1e-300))
