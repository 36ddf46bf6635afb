"""Repairing the hands of one image: the old hand and its variants compete, and the judge decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..boxes import Box, check_box
from ..errors import DataError
from ..images.opening import on_white
from ..metrics.hand_attributes import parse_fingers
from ..metrics.hand_detection import HandDetector
from ..metrics.hand_judge import HandJudge, load_hand_judge
from ..metrics.measure_values import LIKELY
from .canvas import Canvas
from .hand_finding import find_hands
from .inpainting import check_size, inpaint, inpainting_pipeline, region_size, share_of_hand
from .options import RepairOptions
from .regions import Region, hand_region, resized

LARGEST_SHOWN = 512  # pixels a side of the squares that are kept to be shown


@dataclass(frozen=True)
class HandScore:
    """What the judge says of a hand, each a probability.

    present: that there is one. well_formed: that it is well formed. number_right: that as many fingers are raised as
    the prompt asks for; 1 where it names no number.
    """

    present: float
    well_formed: float
    number_right: float = 1.0

    @property
    def good(self) -> float:
        """That it is well formed and has the right number of fingers, as if the two were independent."""
        return self.well_formed * self.number_right

    @property
    def seen(self) -> bool:
        return self.present > LIKELY

    @property
    def rank(self) -> tuple[bool, float]:
        """What shows no hand is worse than every hand."""
        return self.seen, self.good


@dataclass(frozen=True)
class Candidate:
    """A variant of a hand. `square` is the region as it would be seen with it, RGB, of up to 512 pixels."""

    seed: int
    score: HandScore
    square: Image.Image


@dataclass
class RepairedHand:
    """What was done to a hand.

    box: in shares of the image.
    region: what the model was given of the image.
    before: the score of the old hand. square: the region with the old hand, RGB, of up to 512 pixels.
    candidates: none where the old hand was good enough to stay.
    chosen: which candidate was pasted; None where the old hand stayed.
    """

    box: Box
    region: Region
    before: HandScore
    square: Image.Image
    candidates: list[Candidate] = field(default_factory=list)
    chosen: int | None = None

    @property
    def after(self) -> HandScore:
        return self.before if self.chosen is None else self.candidates[self.chosen].score


@dataclass(frozen=True)
class Repair:
    """A repaired image, RGB or RGBA, and its hands in the order in which they were given."""

    image: Image.Image
    hands: list[RepairedHand]


def repair_image(
    pipe: Any,
    image: Image.Image,
    boxes: Sequence[Box] | None = None,
    prompt: str = "a hand",
    options: RepairOptions | None = None,
    *,
    judge: HandJudge | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Repair:
    """Draw the hands of an image anew and keep what the judge finds best of the old hand and its variants.

    One hand after the other is cut out in a square, inpainted in `options.candidates` variants and pasted back. Where
    the prompt says how many fingers are raised, the judge looks for that number too. All pixels outside the masks stay
    as they are, bitwise, and an alpha channel everywhere: transparent parts are shown to the model on white. Components
    of `pipe` whose adapters were trained with frames get the hand's box as their frame.

    Args:
        pipe: a diffusers pipeline that inpaints, or for which diffusers has one that does, with its adapters loaded.
        image: of any mode with 8 bits a channel.
        boxes: (x0, y0, x1, y1) of each hand, in shares of the image; None to find them.
        judge: None for the one that comes with the package.
        advance: called with the number of variants that were made, or that are not needed.

    Raises:
        ConfigError: a box that is not valid or covers no pixel, or a pipeline that cannot inpaint so or at that size.
        DataError: the image has more than 8 bits a channel, or no hand is found.
        MissingDependencyError: hands are to be found without the extra `eval`.

    Example:
        >>> from geopos_diffusers import load_pipeline, repair_image
        >>> empty = Image.new("RGB", (64, 64), "gray")
        >>> options = RepairOptions(candidates=1, steps=2, seed=1, allow_worse=True)
        >>> repair = repair_image(load_pipeline("hands64"), empty, [(0.3, 0.3, 0.7, 0.7)], "a fist", options)
        >>> repair.image.size, len(repair.hands[0].candidates)
        ((64, 64), 1)
    """
    options = options or RepairOptions()
    canvas = Canvas(image)
    made = inpainting_pipeline(pipe)
    share, size = options.share or share_of_hand(made), options.size or region_size(made)
    check_size(made, size)
    judge = judge or load_hand_judge()
    checked = _find(canvas, judge) if boxes is None else [check_box(box) for box in boxes]
    fingers = None if options.any_number else parse_fingers(prompt)
    regions = [hand_region(box, canvas.size, options.margin, share) for box in checked]
    hands = []
    for box, region in zip(checked, regions, strict=True):
        square = canvas.square(region)
        before = score_hand(judge, square, fingers)
        hand = RepairedHand(box, region, before, shown(square), [])
        hands.append(hand)
        if options.min_score is not None and before.rank >= (True, options.min_score):
            advance(options.candidates)
            continue
        squares = []
        mask = region.mask_image(size)
        for seed, drawn in inpaint(made, resized(square, size), mask, region.frame, prompt, options):
            squares.append(drawn)
            seen = canvas.square_with(region, canvas.blend(region, drawn))
            hand.candidates.append(Candidate(seed, score_hand(judge, seen, fingers), shown(seen)))
            advance(1)
        hand.chosen = choose(before, [candidate.score for candidate in hand.candidates], options.allow_worse)
        if hand.chosen is not None:
            canvas.paste(region, canvas.blend(region, squares[hand.chosen]))
    return Repair(canvas.image, hands)


def _find(canvas: Canvas, judge: HandJudge) -> list[Box]:
    with HandDetector(presence=False) as detector:
        boxes, _ = find_hands(on_white(canvas.image), detector, judge)
    if not boxes:
        raise DataError("no hand is found in the image; give its box")
    return boxes


def choose(before: HandScore, candidates: Sequence[HandScore], allow_worse: bool = False) -> int | None:
    """The place of the best candidate, the first of several; None where none is better than the old hand."""
    best = max(range(len(candidates)), key=lambda place: candidates[place].rank)
    return best if allow_worse or candidates[best].rank > before.rank else None


def score_hand(judge: HandJudge, square: Image.Image, fingers: int | None = None) -> HandScore:
    """The judge's scores of the hand in a square of an image. fingers: how many are asked for, 0 to 5; None for any."""
    (judgement,) = judge.judge([square])
    number_right = 1.0 if fingers is None else float(judgement.finger_probabilities[fingers])
    return HandScore(judgement.present, judgement.well_formed, number_right)


def shown(square: Image.Image) -> Image.Image:
    """A square as it is kept: of up to LARGEST_SHOWN pixels."""
    return square if square.width <= LARGEST_SHOWN else resized(square, LARGEST_SHOWN)
