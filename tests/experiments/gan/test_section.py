import json
from dataclasses import replace

import pytest
from experiments.gan.collapse import Collapse
from experiments.gan.figures import PANELS
from experiments.gan.section import KID, build_section, describe
from experiments.page import Paragraph, Picture, Place
from experiments.results import read_results
from PIL import Image

from geopos_diffusers.errors import DataError


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
        "scores_at_some_epochs": {KID: {"1000": 2.0 / factor}},
    }


ENDS = {
    "convolution": (260, None, None, None, None),
    "CoordConv": (20, 30, 20, 20, 20),
    "GeoConv": (None,) * 5,
    "GeoConv, no shift": (None,) * 5,
}


def results():
    """CoordConv collapses by 30, the convolution in one run of five; GeoConv's scores are twice all others'."""
    runs = [
        run(variant, seed, 2 if variant == "GeoConv" else 1, ends[seed])
        for variant, ends in ENDS.items()
        for seed in range(5)
    ]
    return {
        "format_version": 2, "experiment": "gan", "command": "python x.py", "date": "2020-02-02", "cpu_seconds": 90.0,
        "data": {"name": "colours", "images": 40}, "criterion": "half", "real_note": "a half", "runs": runs,
        "real": dict.fromkeys([*PANELS, KID], 0.5),
        "settings": {
            "epochs": 1000, "size": 32, "width": 4, "batch_size": 8, "learning_rate": 2e-4, "evaluate_every": 5,
            "samples": 16, "bins": 4,
        },
    }  # fmt: skip


def test_description():
    assert describe([collapse(30), collapse(20), collapse(None)], 450) == "2 of 3 collapsed, at 20, 30"
    assert describe([collapse(None), collapse(None, learnt=None)], 450) == "0 of 2 collapsed by 450; 1 never learnt"


def test_recovered_runs_are_described():
    recovered = replace(collapse(20), recovered_at=60)
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
    verdicts = {row.claim: judged.verdict for row, judged in zip(section.claims, section.judgements(), strict=True)}
    assert verdicts["GAN: CoordConv collapses"] == "reproduced"
    assert rows["C3", "GAN: convolution collapses"].here == "1 of 5 collapsed, at 260"
    assert verdicts["GAN: GeoConv does not collapse, the others do"] == "in part"
    vendi = rows["C3", "GAN: Vendi score, GeoConv by convolution"]
    assert (vendi.here, verdicts[vendi.claim]) == ("2.00", "reproduced")
    assert rows["C3", "GAN: KID-MobileNetV2-96, GeoConv by CoordConv"].here == "0.50"
    assert "Vendi score 2.00" in rows["Q1", "GAN: diversity with the shift by that without"].here
    assert "CoordConv: 5 of 5 collapsed, at 20, 20, 20, 20, 30" in rows["N3", "GAN: 1000 epochs and more"].here
    texts = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    assert any("6 runs that collapsed fell from best shares of 0.10 to 0.10" in text for text in texts)
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
