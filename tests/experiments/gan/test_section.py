import json
from dataclasses import replace

import pytest
from experiments.gan.collapse import Collapse
from experiments.gan.results import PANELS, summarise
from experiments.gan.section import build_section, collapse_verdict, describe, ratio_verdict, survival_verdict
from experiments.page import Paragraph, Picture, Place
from experiments.results import read_results
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.bootstrap import Interval


def collapse(epoch, learnt=5):
    return Collapse(learnt_at=learnt, collapsed_at=epoch, recovered_at=None, best=0.8, last=0.7)


def run(variant, seed, factor, collapsed_at):
    curves = {name: [0.1 * factor, 0.2 * factor, 0.4 * factor * (1 + seed)] for name in PANELS}
    return {
        "variant": variant,
        "seed": seed,
        "epochs": 1000,
        "parameters": {"generator": 10, "discriminator": 5},
        "collapse": vars(collapse(collapsed_at)),
        "collapsed_at_other_falls": {"0.25": None, "0.75": collapsed_at},
        "curves": {"epoch": [5, 600, 1000], **curves},
        "scores_at_some_epochs": {"mobilenet_kid": {"1000": 2.0 / factor}},
    }


def results():
    """CoordConv collapses at 20 and 30, the convolution in one run of two; GeoConv's scores are twice all others'."""
    ends = {"conv": (260, None), "coord": (20, 30), "geo": (None, None), "geo-no-shift": (None, None)}
    runs = [
        run(variant, seed, 2 if variant == "geo" else 1, ends[variant][seed]) for seed in (0, 1) for variant in ends
    ]
    return {
        "format_version": 1, "experiment": "gan", "command": "python x.py", "date": "2020-02-02", "cpu_seconds": 90.0,
        "data": {"name": "colours", "images": 40}, "criterion": "half", "real_note": "a half", "runs": runs,
        "real": dict.fromkeys([*PANELS, "mobilenet_kid"], 0.5),
        "settings": {
            "epochs": 1000, "size": 32, "width": 4, "batch_size": 8, "learning_rate": 2e-4, "evaluate_every": 5,
            "samples": 16, "bins": 4,
        },
        "variants": {
            variant: summarise([run for run in runs if run["variant"] == variant]) for variant in ends
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [((20, 30), "reproduced"), ((20, 31), "in part"), ((20, None), "in part"), ((None, None), "not reproduced")],
)
def test_verdict_on_collapse_by_epoch_30(epochs, expected):
    assert collapse_verdict([collapse(epoch) for epoch in epochs], 30) == expected


def test_runs_that_never_learnt_have_not_collapsed():
    assert collapse_verdict([collapse(None, learnt=None)], 30) == "not reproduced"
    assert survival_verdict([collapse(None, learnt=None)], [collapse(20)], 450) == "not reproduced"


@pytest.mark.parametrize(
    ("geo", "others", "expected"),
    [
        ((None, None), (20, 300), "reproduced"),
        ((None, 451), (20, 450), "reproduced"),
        ((None, None), (20, None), "in part"),
        ((None, 450), (20, 300), "not reproduced"),
    ],
)
def test_verdict_on_survival(geo, others, expected):
    assert survival_verdict([collapse(e) for e in geo], [collapse(e) for e in others], 450) == expected


def test_verdict_on_ratios():
    assert ratio_verdict(Interval(1.2, 1.1, 1.3), more_is_better=True) == "reproduced"
    assert ratio_verdict(Interval(1.2, 0.9, 1.3), more_is_better=True) == "not reproduced"
    assert ratio_verdict(Interval(0.8, 0.7, 0.9), more_is_better=False) == "reproduced"


def test_description():
    assert describe([collapse(30), collapse(20), collapse(None)], 450) == "2 of 3 collapsed, at 20, 30"
    assert describe([collapse(None), collapse(None, learnt=None)], 450) == "0 of 2 collapsed by 450; 1 never learnt"


def test_a_collapse_that_a_run_recovers_from_is_no_collapse_for_good():
    recovered = replace(collapse(20), recovered_at=60)
    assert collapse_verdict([collapse(20), collapse(10)], 30) == "reproduced"
    assert collapse_verdict([collapse(20), recovered], 30) == "in part"
    assert describe([collapse(10), recovered], 450) == "2 of 2 collapsed, at 10, 20; 1 recovered, at 60"


def test_section(tmp_path):
    source, target = tmp_path / "results", tmp_path / "page"
    source.mkdir()
    target.mkdir()
    (source / "paper_gan_x.json").write_text(json.dumps(results()))
    Image.new("RGB", (8, 8)).save(source / "paper_gan_x-film.png")
    place = Place(source / "paper_gan_x.json", target)
    section = build_section(read_results(place.results, "gan"), place)
    rows = {(row.id, row.claim): row for row in section.claims}
    assert rows["C3", "GAN: CoordConv collapses"].verdict == "reproduced"
    assert rows["C3", "GAN: convolution collapses"].here == "1 of 2 collapsed, at 260"
    assert rows["C3", "GAN: GeoConv does not collapse, the others do"].verdict == "in part"
    vendi = rows["C3", "GAN: Vendi score, GeoConv by convolution"]
    assert (vendi.here, vendi.verdict) == ("2.00", "reproduced")
    assert rows["C3", "GAN: KID-MobileNetV2, GeoConv by CoordConv"].here == "0.50"
    assert "Vendi score 2.00" in rows["Q1", "GAN: diversity with the shift by that without"].here
    assert "CoordConv: 2 of 2 collapsed, at 20, 30" in rows["N3", "GAN: 1000 epochs and more"].here
    texts = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    assert any("3 runs that collapsed fell from best shares of 0.10 to 0.10" in text for text in texts)
    pictures = [block.file for block in section.blocks if isinstance(block, Picture)]
    assert pictures == ["paper_gan_x-curves.png", "paper_gan_x-survival.png", "paper_gan_x-film.png"]
    assert all(Image.open(target / name).width >= 8 for name in pictures)


def test_one_seed_is_no_ratio(tmp_path):
    found = results()
    found["runs"] = [run for run in found["runs"] if run["seed"] == 0]
    claims = [row.claim for row in build_section(found, Place(tmp_path / "paper_gan_x.json", tmp_path)).claims]
    assert "GAN: CoordConv collapses" in claims
    assert not any("GeoConv by" in claim for claim in claims)


def test_other_experiments_are_refused(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(results() | {"experiment": "cost"}))
    with pytest.raises(DataError, match="gan"):
        read_results(tmp_path / "x.json", "gan")
