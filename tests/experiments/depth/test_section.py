import pytest
from experiments.depth import section as depth
from experiments.page import Picture, Place, Table
from experiments.verdict import judge
from PIL import Image

FACTORS = {"convolution": 1.0, "CoordConv": 0.6, "GeoConv, no shift": 1.2, "GeoConv": 0.8}  # of AbsRel


@pytest.fixture
def results():
    """GeoConv's AbsRel is 0.8 of the convolution's and 4/3 of CoordConv's; on heads, it is 0.5 of the convolution's."""
    runs = []
    for data, base in (("hands", 0.1), ("heads", 0.05)):
        for seed in range(5):
            for name, factor in FACTORS.items():
                if (data, name) == ("heads", "convolution"):
                    factor = 1.6
                value = base * factor * (1 + 0.01 * seed)
                for ending, parameters in (("", 8), (", matched", 9)):
                    if ending and name not in ("convolution", "GeoConv"):
                        continue
                    runs.append(
                        {"variant": name + ending, "data": data, "seed": seed, "parameters": parameters}
                        | {"scores": {"abs_rel": value, "rmse": 1.0, "delta_1.25": 0.9, "delta_1.05": 0.5}}
                        | {"curves": {"step": [1, 2], "abs_rel": [2 * value, value]}}
                    )
    constant = {"depth": 6.0, "abs_rel": 0.25, "rmse": 1.5, "delta_1.25": 0.6, "delta_1.05": 0.1}
    settings = {"size": 64, "widths": [4, 8], "steps": 2, "batch_size": 2, "train_count": 5, "test_count": 6}
    return {
        "command": "python x.py", "date": "2020-02-02", "cpu_seconds": 1.0, "settings": settings, "runs": runs,
        "units": {"hands": "palm lengths", "heads": "decimetres"}, "focal": 2.5,
        "constant": dict.fromkeys(("hands", "heads"), constant),
    }  # fmt: skip


def test_claims(results):
    claims = depth.claim_rows(results)
    verdicts = [judged.verdict for judged in judge([claim.test for claim in claims])]
    assert [(claim.here, verdict) for claim, verdict in zip(claims, verdicts, strict=True)] == [
        ("0.80", "reproduced"),
        ("1.33", "opposite"),
        ("0.50", "reproduced"),
        ("1.33", "opposite"),
    ]
    assert all((claim.id, claim.seeds) == ("C6", 5) for claim in claims)


def test_table(results):
    table = depth.error_table(results, "hands")
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows["constant"]["AbsRel"] == "25.0%"
    assert rows["constant"]["RMSE, palm lengths"] == "1.500"
    default = rows[depth.DEFAULT]
    assert default["AbsRel"] == "8.2% [8.0, 8.3]"
    assert default["AbsRel by CoordConv's"] == "1.33"
    assert rows["GeoConv, no shift"]["AbsRel by convolution's"] == "1.20"
    assert rows["convolution, matched"]["parameters"] == "9"
    assert len(rows) == 1 + 4 + 2


def test_section_shows_the_picture_that_is_there(results, tmp_path):
    source, page = tmp_path / "results", tmp_path / "page"
    source.mkdir()
    page.mkdir()
    place = Place(source / "paper_depth_x.json", page)
    sections = [depth.build_section(results, place)]
    Image.new("RGB", (8, 8)).save(source / "paper_depth_x_samples.png")
    sections.append(depth.build_section(results, place))
    files = [[block.file for block in section.blocks if isinstance(block, Picture)] for section in sections]
    assert files == [["paper_depth_x.png"], ["paper_depth_x.png", "paper_depth_x_samples.png"]]
    assert (page / "paper_depth_x.png").stat().st_size > 1000
    assert Image.open(page / "paper_depth_x_samples.png").width == 8
    assert sum(isinstance(block, Table) for block in sections[0].blocks) == 2
