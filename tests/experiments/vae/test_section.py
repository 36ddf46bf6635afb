import numpy as np
import pytest
from experiments.page import Place
from experiments.vae import claims as vae
from experiments.vae import section
from experiments.vae.figure import reach
from experiments.verdict import judge
from scipy.stats import t as student_t

FACTORS = {"convolution": 1.0, "CoordConv": 0.95, "GeoConv": 0.8, "GeoConv, no shift": 0.9}
SPREADS = {"convolution": 0.06, "CoordConv": 0.06, "GeoConv": 0.01, "GeoConv, no shift": 0.03}
POINTS = np.array([4.0, 2.0, 1.0])


def vae_results(factors=FACTORS, spreads=SPREADS, kid=0.0):
    """Losses are `factors` of the convolution's, their spread over seeds is `spreads`."""
    runs = []
    for latent_size in (4, 8, 16):
        for seed, place in enumerate((-1.2, -0.5, 0.1, 0.6, 1.0)):
            for name in vae.VARIANTS:
                curve = (100 * factors[name] * POINTS * (1 + spreads[name] / factors[name] * place)).tolist()
                better = name == "GeoConv"
                run = {"variant": name, "seed": seed, "latent_size": latent_size, "parameters": 10}
                run["curves"] = {"step": [1, 2, 3], "test": curve, "train_loss": curve}
                parts = {"test_reconstruction": curve[-1] - 1, "test_kl": 1.0, "validation": curve[-1]}
                run["scores"] = {"test": curve[-1], **parts}
                run["sample_scores"] = {"vendi": 6.0 if better else 5.0, "ms_ssim": 0.2 if better else 0.3}
                run["sample_scores"] |= {"MobileNetV2-96_vendi": 4.0, vae.KID: 0.1 + kid * better + 0.001 * seed}
                run["sample_scores"] |= {f"fitted_{name}": value for name, value in run["sample_scores"].items()}
                runs.append(run)
    settings = {"latent_sizes": [4, 8, 16], "widths": [2, 4], "size": 32, "steps": 3, "batch_size": 2}
    settings |= {"variance": 0.1, "samples": 20}
    real = {"count": 20, "vendi": 9.0, "ms_ssim": 0.1, "MobileNetV2-96_vendi": 7.0, vae.KID: 0.0}
    data = {"name": "squares", "train": 9, "validation": 2, "test": 3}
    head = {"command": "python x.py", "date": "2020-02-02", "cpu_seconds": 60.0, "pictures": None}
    return {**head, "settings": settings, "real": real, "data": data, "runs": runs}


def claims(**changes):
    """Rows of claims and their verdicts, by claim."""
    rows = vae.claim_rows(vae_results(**changes))
    judged = judge([row.test for row in rows])
    return {row.claim: (row, found.verdict) for row, found in zip(rows, judged, strict=True)}


NARROWER = "VAE: 95% intervals of the test loss's curve narrower than the convolution's, over seeds"


def test_claims_of_known_results():
    found = claims(kid=-0.05)
    assert [(claim.id, verdict) for claim, verdict in found.values()] == [
        ("C4", "reproduced"),  # -20% of the convolution
        ("C4", "reproduced"),  # 0.8 / 0.95
        ("C4", "reproduced"),  # 6 times narrower
        *[("C4", "reproduced")] * 7,  # widths over all runs; two of diversity and KID of two kinds of samples
        ("Q2", "measured"),
    ]
    assert found["VAE: test loss of GeoConv against convolution"][0].here == "-19.9% [-24.0, -15.6]"
    assert found[NARROWER][0].here == "GeoConv 6.00 times, CoordConv 1.00 times"
    shift = found["VAE: is it the shift that makes curves consistent?"][0]
    assert shift.here.startswith("intervals 3.00 times as wide")
    assert {claim.seeds for claim, _ in found.values()} == {5}


@pytest.mark.parametrize(
    ("geo", "expected"), [(1.0, "not reproduced"), (0.95, "not reproduced"), (0.9, "reproduced"), (0.5, "reproduced")]
)
def test_loss_verdict_follows_the_interval(geo, expected):
    # The wide spread of the convolution leaves a reduction of 5% within its interval.
    found = claims(factors={**FACTORS, "GeoConv": geo}, spreads={**SPREADS, "convolution": 0.05})
    assert found["VAE: test loss of GeoConv against convolution"][1] == expected


@pytest.mark.parametrize(("spread", "expected"), [(0.06, "not reproduced"), (0.03, "in part"), (0.012, "reproduced")])
def test_width_verdict(spread, expected):
    assert claims(spreads={**SPREADS, "GeoConv": spread})[NARROWER][1] == expected


def test_kid_that_is_not_lower():
    row, verdict = claims(kid=0.05)["VAE: better samples of the prior (lower KID-MobileNetV2-96)"]
    assert (row.here.startswith("GeoConv 0.0500"), verdict) == (True, "opposite")


def test_each_score_of_diversity_has_its_own_row():
    found = claims()
    for source in ("the prior", "fitted latents"):
        assert found[f"VAE: more diverse samples of {source} (higher Vendi score of pixels)"][1] == "reproduced"
        assert found[f"VAE: more diverse samples of {source} (lower MS-SSIM of pairs)"][1] == "reproduced"


def test_width_ratio_by_hand():
    # Two latent sizes and points; the first variant spreads 4, 4 and 1, 1 times as much: sqrt(4 * 1) = 2.
    places = np.array([0.0, 1.0, 3.0])
    rows = np.stack([np.stack([factor * places, places]) for factor in (4.0, 1.0)])  # [L, 2, S]
    rows = np.repeat(rows.transpose(2, 0, 1)[..., None], 2, axis=3)
    assert vae.width_ratio(rows).value == pytest.approx(2)
    # Over all six runs: sums of squares about the means of 0, 4, 12, 0, 1, 3 and of 0, 1, 3 twice.
    first, second = np.array([0, 4, 12, 0, 1, 3]), np.array([0, 1, 3, 0, 1, 3])
    over_all = vae.width_ratio(rows, vae.log_width_ratio_over_all)
    assert over_all.value == pytest.approx(first.std() / second.std())
    assert vae.width_ratio(rows[:1]).value is None


def test_pooled_ratio_by_hand():
    rows = np.array([[[1.0, 2.0], [8.0, 4.0]], [[3.0, 6.0], [8.0, 4.0]]])  # ratios 1 / 2 and 2
    assert vae.pooled_ratio(rows).value == pytest.approx(1)
    assert vae.pooled_difference(rows).value == pytest.approx((-1 + 4 - 3 + 4) / 4)


def test_bands_are_those_of_student():
    curves = np.random.default_rng(0).normal(size=(5, 7))
    low, _ = student_t.interval(0.95, 4, curves.mean(0), curves.std(0, ddof=1) / 5**0.5)
    assert reach(curves) == pytest.approx(curves.mean(0) - low)
    assert not reach(curves[:1]).any()


def test_section_without_some_runs(tmp_path):
    results = vae_results()
    results["runs"] = [run for run in results["runs"] if run["variant"] in ("convolution", "GeoConv")]
    built = section.build_section(results, Place(tmp_path / "paper_vae_squares.json", tmp_path))
    assert built.claims[-1].here.startswith("intervals - times")
    assert (tmp_path / "paper_vae_squares_curves.png").stat().st_size > 1000
