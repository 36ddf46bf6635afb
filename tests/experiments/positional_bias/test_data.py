import pytest
import torch
from experiments.positional_bias.data import (
    CELL,
    COLUMNS,
    FONTS,
    FRAME,
    NUMERALS,
    PLACEMENTS,
    draw_numeral,
    draw_numerals,
)
from experiments.positional_bias.data import place_classes as place

from geopos_diffusers.errors import ConfigError

CLASSES = torch.arange(len(NUMERALS)).repeat(200)


def cells(middles):
    """The cell of each middle [N, 2], row by row."""
    return middles[:, 0] // CELL * COLUMNS + middles[:, 1] // CELL


def generator():
    return torch.Generator().manual_seed(0)


def test_training_ties_each_class_to_its_own_cell():
    middles = place(CLASSES, "tied", generator())
    assert torch.equal(cells(middles), CLASSES)
    assert set((middles % CELL).flatten().tolist()) == set(range(CELL))  # every pixel of the cell is used


def test_swapped_puts_each_class_where_training_put_exactly_one_other():
    found = cells(place(CLASSES, "swapped", generator()))
    owner = dict(zip(CLASSES.tolist(), found.tolist(), strict=True))
    assert sorted(owner.values()) == list(range(len(NUMERALS)))
    assert all(cell != number for number, cell in owner.items())
    assert torch.equal(found, torch.tensor([owner[number] for number in CLASSES.tolist()]))


def test_everywhere_uses_all_cells_for_every_class():
    found = cells(place(CLASSES, "everywhere", generator()))
    assert {(number, cell) for number, cell in zip(CLASSES.tolist(), found.tolist(), strict=True)} == {
        (number, cell) for number in range(9) for cell in range(9)
    }


def test_outside_is_never_in_the_grid():
    middles = place(CLASSES, "outside", generator())
    within = (middles >= 0) & (middles < COLUMNS * CELL)
    assert not within.all(dim=1).any()
    assert middles.min() == -FRAME
    assert middles.max() == COLUMNS * CELL + FRAME - 1


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_numerals_are_drawn_whole_at_their_place(placement):
    images, classes = draw_numerals(60, 56, placement, seed=3)
    assert images.shape == (60, 1, 56, 56)
    assert classes.shape == (60,)
    ink = images[:, 0] > 0.4
    assert ink.flatten(1).any(1).all()
    border = torch.ones(56, 56, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not ink[:, border].any()


def test_tied_images_show_the_class_in_its_cell():
    images, classes = draw_numerals(100, 56, "tied", seed=4)
    for image, number in zip(images[:, 0], classes.tolist(), strict=True):
        rows, columns = (image > 0.4).nonzero().float().T
        middle = torch.stack([rows.min() + rows.max(), columns.min() + columns.max()]) / 2 - 16
        low = torch.tensor([number // 3, number % 3]) * CELL
        assert (middle - low - 3.5).abs().max() <= 6  # half a cell and the roundings of tilted glyphs


def test_fonts_have_all_numerals():
    for font in range(len(FONTS)):
        pictures = [draw_numeral(number, (font + 0.5) / len(FONTS), 0.5, 0.5).tobytes() for number in range(9)]
        assert len(set(pictures)) == 9


def test_bad_options():
    with pytest.raises(ConfigError, match="tied, swapped, everywhere, outside"):
        draw_numerals(4, 56, "mixed", 0)
    with pytest.raises(ConfigError, match="at least 56"):
        draw_numerals(4, 32, "tied", 0)
