import io
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from experiments.pretraining.mixture import CYCLE, HELD_OUT, PATTERN, Mixture
from experiments.pretraining.mixture_captions import PHOTOGRAPHED, PLACES, describe_photograph, place_of
from PIL import Image

from geopos_diffusers.data.image_folder import CHUNK

PEOPLE = 12
COUNT = 2 * CYCLE


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """One picture of each person, whose left half is of the person's own red and whose right half is black."""
    rows = []
    for person in range(PEOPLE):
        pixels = np.zeros((100, 100, 3), np.uint8)
        pixels[:, :50, 0] = 100 + 10 * person
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": person % 10, "subject": person})
    path = tmp_path_factory.mktemp("photographs") / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def mixture(photographs) -> Mixture:
    return Mixture(32, 1, COUNT, photographs)


def block(kind: str, cycle: int = 0) -> int:
    """The first index of a kind's first block in a cycle."""
    return cycle * CYCLE + PATTERN.index(kind) * CHUNK


def draw(mixture, start: int, stop: int):
    return [(np.asarray(image), attributes) for image, attributes in mixture.draw(start, stop)]


@pytest.mark.parametrize("place", [("top", "left"), ("middle", "middle"), ("bottom", "right"), ("top", "middle")])
def test_a_place_is_named_by_the_middle_of_the_box(place):
    rows, columns = {"top": 0, "middle": 1, "bottom": 2}, {"left": 0, "middle": 1, "right": 2}
    y, x = 0.3 + 0.2 * rows[place[0]], 0.3 + 0.2 * columns[place[1]]
    assert place_of((x - 0.2, y - 0.25, x + 0.2, y + 0.25)) == PLACES[rows[place[0]]][columns[place[1]]]


def test_a_mirrored_photograph_is_called_a_left_hand():
    generator = np.random.default_rng(0)
    drawn = [describe_photograph(digit, generator) for digit in range(10) for _ in range(40)]
    assert {mirrored for text, mirrored in drawn if "left hand" in text} == {True}
    assert {mirrored for text, mirrored in drawn if "left hand" not in text} == {False}
    assert 0.25 < np.mean(["left hand" in text for text, _ in drawn]) < 0.55
    shown = [any(wording in text for wording in PHOTOGRAPHED[index // 40]) for index, (text, _) in enumerate(drawn)]
    assert all(shown)


@pytest.mark.parametrize("kind", ["anywhere", "textured", "photographs"])
def test_an_image_does_not_depend_on_the_range_that_it_is_drawn_in(mixture, kind):
    first = block(kind)
    whole, part = draw(mixture, first, first + 6), draw(mixture, first + 4, first + 6)
    for (image, attributes), (same, equal) in zip(whole[4:], part, strict=True):
        assert (image == same).all()
        assert attributes == equal
        assert attributes["kind"] == kind


def test_textures_lie_behind_the_hands(mixture):
    for image, attributes in draw(mixture, block("textured"), block("textured") + 6):
        assert attributes["background"] in ("paper", "mottled", "striped")
        assert len(np.unique(image[:, :3].reshape(-1, 3), axis=0)) > 1  # no plain ground at the image's edge


def test_places_of_the_captions_are_those_of_the_hands(mixture):
    named = [row for _, row in draw(mixture, block("anywhere"), block("anywhere") + 24) if row["place"] in row["text"]]
    assert len(named) > 10
    assert len({row["place"] for row in named}) > 3
    assert all(row["place"] == place_of(row["box"]) for row in named)


def test_people_of_the_last_cycle_are_in_no_other(mixture):
    first = [row["subject"] for _, row in draw(mixture, block("photographs"), block("photographs") + CHUNK)]
    last = [row["subject"] for _, row in draw(mixture, block("photographs", 1), block("photographs", 1) + CHUNK)]
    assert set(last) == set(range(0, PEOPLE, HELD_OUT))
    assert set(first) == set(range(PEOPLE)) - set(last)


def test_mirrored_photographs_are_mirrored(mixture):
    rows = draw(mixture, block("photographs"), block("photographs") + CHUNK)
    assert {attributes["mirrored"] for _, attributes in rows} == {False, True}
    for image, attributes in rows:
        assert (image[:, -4:, 0].mean() > image[:, :4, 0].mean()) == attributes["mirrored"]


def test_blocks_of_a_kind_do_not_repeat_images(mixture):
    starts = [index * CHUNK for index, kind in enumerate(PATTERN) if kind == "centred"]
    images = [draw(mixture, start, start + 1)[0][0].tobytes() for start in (*starts[:2], CYCLE + starts[0])]
    assert len(set(images)) == 3
