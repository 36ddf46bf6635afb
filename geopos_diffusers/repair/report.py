"""What is shown and recorded of repaired images: contact sheets of them and of their hands, and repair.json."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from PIL import Image

from ..images.box_drawing import draw_boxes
from ..images.contact_sheet import contact_sheet
from .repairing import HandScore, Repair, RepairedHand

CELL = 256  # pixels a side of an image on a sheet


def before_and_after(before: Image.Image, repair: Repair) -> list[Image.Image]:
    """Both images as a sheet shows them: the one before with the boxes of its hands."""
    return [draw_boxes(before, [hand.box for hand in repair.hands], CELL), draw_boxes(repair.image, [], CELL)]


def captions_of(name: str, repair: Repair) -> list[str]:
    """Captions of `before_and_after`, with the judge's scores of all hands."""
    before, after = (
        ", ".join(_shown(score) for score in scores)
        for scores in ([hand.before for hand in repair.hands], [hand.after for hand in repair.hands])
    )
    return [f"{name}: {before}", f"after: {after}"]


def sheet_of_hands(hands: Sequence[tuple[str, RepairedHand]]) -> Image.Image:
    """A row for each hand, given with its image's name: as it was, then its variants, with the judge's scores."""
    columns = 1 + max(len(hand.candidates) for _, hand in hands)
    images, captions = [], []
    for name, hand in hands:
        squares = [hand.square, *(candidate.square for candidate in hand.candidates)]
        texts = [f"{name}\n{_shown(hand.before)}{' - kept' if hand.chosen is None else ''}"]
        for place, candidate in enumerate(hand.candidates):
            chosen = " - chosen" if place == hand.chosen else ""
            texts.append(f"seed {candidate.seed}\n{_shown(candidate.score)}{chosen}")
        empty = columns - len(squares)
        images += squares + [Image.new("RGB", hand.square.size, "white")] * empty
        captions += texts + [""] * empty
    return contact_sheet(images, captions, columns)


def _shown(score: HandScore) -> str:
    return f"{score.good:.2f}" if score.seen else "no hand"


def record_of(hand: RepairedHand) -> dict[str, Any]:
    """A hand's entry in repair.json."""
    region = hand.region
    return {
        "box": list(hand.box),
        "region": [region.left, region.top, region.side],
        "mask": list(region.mask),
        "before": asdict(hand.before),
        "candidates": [{"seed": candidate.seed, **asdict(candidate.score)} for candidate in hand.candidates],
        "chosen": hand.chosen,
        "after": asdict(hand.after),
    }
