import numpy as np
import pytest

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.power import (
    DIFFERENCE,
    RATES,
    SharePlan,
    binomial,
    critical_counts,
    format_plan,
    images_for_shares,
    mcnemar_power,
    pairs_for_means,
    pairs_for_shares,
    plan,
    plan_table,
    rejection_chances,
)

stats = pytest.importorskip("scipy.stats")
TRIALS = 4000  # a simulated power of 80% has a standard deviation of 0.6 points


def rejected_unpaired(first: float, second: float, images: int) -> float:
    """Simulated power of the chi-squared test of two shares."""
    generator = np.random.default_rng(0)
    shares = generator.binomial(images, [[first], [second]], (2, TRIALS)) / images
    mean = shares.mean(axis=0)
    deviations = np.sqrt(np.maximum(2 * mean * (1 - mean) / images, 1e-12))
    return float((np.abs(shares[0] - shares[1]) / deviations > stats.norm.ppf(0.975)).mean())


def rejected_paired(discordant: float, difference: float, pairs: int) -> float:
    """Simulated power of McNemar's exact test."""
    generator = np.random.default_rng(1)
    wins, losses = (discordant + difference) / 2, (discordant - difference) / 2
    counts = generator.multinomial(pairs, [wins, losses, 1 - discordant], TRIALS)
    few = np.minimum(counts[:, 0], counts[:, 1])
    values = np.minimum(1.0, 2 * stats.binom.cdf(few, counts[:, 0] + counts[:, 1], 0.5))
    return float((values <= 0.05).mean())


def rejected_means(difference: float, pairs: int) -> float:
    """Simulated power of a paired t test."""
    values = np.random.default_rng(2).normal(difference, 1.0, (TRIALS, pairs))
    return float((stats.ttest_1samp(values, 0.0, axis=1).pvalue < 0.05).mean())


class TestSimulation:
    """At the printed number, a simulated evaluation finds the difference in 80% of all cases, within 3 points."""

    @pytest.mark.parametrize("rate", RATES)
    def test_unpaired(self, rate):
        (row,) = plan({"rate": rate})
        others = [other for other in (rate + DIFFERENCE, rate - DIFFERENCE) if 0 <= other <= 1]
        other = max(others, key=lambda share: images_for_shares(rate, share))
        assert rejected_unpaired(rate, other, row.images) == pytest.approx(0.80, abs=0.03)

    @pytest.mark.parametrize("discordant", [0.05, 0.06, 0.1, 0.2, 0.35, 0.5])
    def test_paired(self, discordant):
        pairs = pairs_for_shares(discordant, DIFFERENCE)
        assert rejected_paired(discordant, DIFFERENCE, pairs) == pytest.approx(0.80, abs=0.03)

    def test_paired_by_the_normal_formula(self):
        pairs = pairs_for_shares(0.5, 0.02)
        assert rejected_paired(0.5, 0.02, pairs) == pytest.approx(0.80, abs=0.03)

    @pytest.mark.parametrize("effect", [0.2, 0.5, 1.0])
    def test_means(self, effect):
        assert rejected_means(effect, pairs_for_means(effect, 1.0)) == pytest.approx(0.80, abs=0.03)


class TestKnownNumbers:
    def test_fleiss(self):
        # Without correction, 60% against 70% needs 356 each (as statistical tables and R's power.prop.test give).
        assert images_for_shares(0.6, 0.7) == 356
        assert images_for_shares(0.7, 0.6) == images_for_shares(0.4, 0.3) == 356

    def test_means_as_the_noncentral_t(self):
        for effect in (0.2, 0.5, 1.0):
            pairs = pairs_for_means(effect, 1.0)
            limit = stats.t.ppf(0.975, pairs - 1)
            power = stats.nct.sf(limit, pairs - 1, effect * np.sqrt(pairs))
            assert power == pytest.approx(0.80, abs=0.015)

    def test_critical_counts_are_those_of_the_exact_test(self):
        for count in (1, 5, 6, 20, 100, 777, 1499):
            wins = critical_counts()[count]
            assert wins < 0 or 2 * stats.binom.cdf(wins, count, 0.5) <= 0.05
            assert 2 * stats.binom.cdf(wins + 1, count, 0.5) > 0.05

    @pytest.mark.parametrize("share", [0.55, 0.8, 1.0])
    def test_rejection_chances(self, share):
        chances = rejection_chances(share)
        for count in (3, 6, 50, 600):
            wins = critical_counts()[count]
            expected = stats.binom.cdf(wins, count, share) + stats.binom.sf(count - wins - 1, count, share)
            assert chances[count] == pytest.approx(expected if wins >= 0 else 0.0, abs=1e-9)

    def test_binomial(self):
        assert binomial(3, 7, 0.3) == pytest.approx(stats.binom.pmf(3, 7, 0.3))
        assert binomial(7, 7, 1.0) == pytest.approx(1.0)
        assert binomial(6, 7, 1.0) == pytest.approx(0.0)

    def test_smallest_number_of_pairs(self):
        pairs = pairs_for_shares(0.2, 0.1)
        rejected = rejection_chances(0.75)
        assert mcnemar_power(pairs - 1, 0.2, rejected) < 0.80 <= mcnemar_power(pairs, 0.2, rejected)


class TestPlan:
    def test_fewer_images_for_larger_differences_and_alike_pairs(self):
        assert images_for_shares(0.5, 0.6) < images_for_shares(0.5, 0.55)
        numbers = [pairs_for_shares(discordant, 0.05) for discordant in (0.05, 0.1, 0.2, 0.4)]
        assert numbers == sorted(numbers)

    def test_measured_rates_and_pairs(self):
        found, right = plan({"found": 0.93, "right": 0.7}, {"right": 0.2})
        assert (found.name, found.rate, found.difference) == ("found", 0.93, DIFFERENCE)
        assert found.discordant == pytest.approx(0.93 * 0.12 + 0.88 * 0.07)  # downwards, without a measured share
        assert right.discordant == 0.2
        assert right.pairs == pairs_for_shares(0.2, DIFFERENCE) < right.images

    def test_the_larger_of_both_directions(self):
        (row,) = plan({"found": 0.9})
        assert row.images == images_for_shares(0.9, 0.85) > images_for_shares(0.9, 0.95)

    def test_shares_at_the_ends(self):
        low, high = plan({"none": 0.0, "all": 1.0})
        assert low.images == high.images == images_for_shares(0.0, 0.05)

    def test_models_that_did_not_differ(self):
        (row,) = plan({"found": 0.9}, {"found": 0.0})
        assert row.discordant == DIFFERENCE

    def test_text(self):
        text = format_plan({"found": 0.9})
        (row,) = plan({"found": 0.9})
        assert f"{row.images:,}" in text
        assert f"{pairs_for_means(0.2, 1.0):,} " in text
        assert len(format_plan().splitlines()) > len(RATES)
        assert max(map(len, format_plan().splitlines())) <= 120

    def test_table(self):
        row = SharePlan("found", 0.9, 0.05, 1234, 0.05, 567)
        header, line = plan_table([row]).splitlines()
        assert len(header) == len(line)
        assert line.split() == ["found", "90.0%", "5", "points", "1,234", "5.0%", "567"]


class TestBadInput:
    def test_shares(self):
        with pytest.raises(DataError, match=r"from 0 to 1; got 1\.2"):
            plan({"found": 1.2})
        with pytest.raises(DataError, match="the shares must differ"):
            images_for_shares(0.5, 0.5)
        with pytest.raises(DataError, match="discordant share of that much or more"):
            pairs_for_shares(0.02, 0.05)
        with pytest.raises(DataError, match=r"cannot differ by 0\.7"):
            plan({"found": 0.5}, difference=0.7)
        with pytest.raises(DataError, match="cannot differ by 0"):
            plan({"found": 0.5}, difference=0.0)

    @pytest.mark.parametrize(("difference", "deviation"), [(0.0, 1.0), (0.1, 0.0), (0.1, float("nan"))])
    def test_means(self, difference, deviation):
        with pytest.raises(DataError, match="must be finite"):
            pairs_for_means(difference, deviation)
