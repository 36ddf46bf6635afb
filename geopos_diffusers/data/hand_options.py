"""Which rendered hands are drawn."""

from dataclasses import dataclass

from ..errors import DataError
from .hand_defects import DEFECTS
from .hand_poses import POSES
from .options import check_choices, check_degrees, check_drawing, check_share
from .skin import BACKGROUND_KINDS, BACKGROUNDS

VIEWS = ("palm", "back", "side")
HANDS = ("left", "right")
PLACEMENTS = ("centre", "anywhere")
SMALLEST, LARGEST_OF_TWO = 0.1, 0.5  # of a hand's longer side, as a share of the image's


@dataclass(frozen=True)
class HandOptions:
    """Which hands are drawn. The defaults give the full variety.

    views: sides that are shown, of palm, back and side.
    handedness: of left and right.
    poses: "canonical" (the ways people count from 0 to 5) or "any" (any fingers raised, others bent in part) or
        "touching" (the thumb meets the tip of another finger, or of all).
    max_tilt: degrees by which the hand leans out of its view, 0 to 60.
    max_rotation: degrees by which the hand is turned within the image, 0 (fingers up) to 180.
    backgrounds: "plain", "gradient" or "both".
    colours: names of the background colours, two or more.
    fill: range of the hand's longer side as a share of the image's.
    placement: "centre" (at most half of the way to the image's edge) or "anywhere" in the image.
    scale: in place of `fill`, the range of the hand's longer side, also below 0.4: the arm then is longer, and lies in
        the image's plane, so that it leaves the image. Of two hands larger ones are drawn smaller until both fit.
    hands: how many hands, 1 or 2; of several numbers, each as often. Two have one skin and light, do not overlap, and
        are told of from left to right in "hands", with their "boxes".
    focal: focal length in image sides of a camera that comes as near as `fill` asks for; None for one that stands at
        7 palm lengths and zooms.
    samples: rays per pixel side.
    defects: share of the hands that are not well formed, 0 to 1. Above 0, attributes gain "well_formed" (bool),
        "defect" (its kind, or None) and "defect_fingers" (names); the others, with the caption, say what the hand
        would show without its defect. A defect that changes too little of the picture is drawn again, if need be in
        another pose; a hand stays well formed where that does not help.
    defect_kinds: of DEFECTS; see `hand_defects` for what each is, and where its key points lie. Kinds that no chosen
        view or pose can show are left out (`visible_kinds`).
    """

    views: tuple[str, ...] = VIEWS
    handedness: tuple[str, ...] = HANDS
    poses: str = "any"
    max_tilt: float = 35.0
    max_rotation: float = 180.0
    backgrounds: str = "both"
    colours: tuple[str, ...] = tuple(BACKGROUNDS)
    fill: tuple[float, float] = (0.6, 0.92)
    focal: float | None = None
    placement: str = "centre"
    scale: tuple[float, float] | None = None
    hands: tuple[int, ...] = (1,)
    samples: int = 2
    defects: float = 0.0
    defect_kinds: tuple[str, ...] = DEFECTS

    def __post_init__(self) -> None:
        check_choices("defect_kinds", self.defect_kinds, DEFECTS)
        check_share("defects", self.defects)
        check_choices("views", self.views, VIEWS)
        check_choices("handedness", self.handedness, HANDS)
        check_choices("poses", (self.poses,), POSES)
        check_choices("backgrounds", (self.backgrounds,), BACKGROUND_KINDS)
        check_choices("colours", self.colours, tuple(BACKGROUNDS), least=2)
        check_degrees("max_tilt", self.max_tilt, 60.0)
        check_degrees("max_rotation", self.max_rotation, 180.0)
        check_drawing(self.fill, self.samples, self.focal)
        check_choices("placement", (self.placement,), PLACEMENTS)
        self._check_places()
        if self.defects and not self.visible_kinds:
            raise DataError(
                f"defect_kinds: {', '.join(self.defect_kinds)} given, which cannot be seen in views "
                f"{', '.join(self.views)} with poses {self.poses}"
            )

    def _check_places(self) -> None:
        if not self.hands or not set(self.hands) <= {1, 2}:
            given = ", ".join(map(str, self.hands)) or "nothing"
            raise DataError(f"hands: {given} given; one hand or two can be drawn")
        if self.scale is not None and not SMALLEST <= self.scale[0] <= self.scale[1] <= 1.0:
            raise DataError(f"scale is {self.scale}; it must be two shares in order, each between {SMALLEST:g} and 1")
        if 2 in self.hands and self.sizes[0] > LARGEST_OF_TWO:
            raise DataError(f"two hands need a scale that begins at {LARGEST_OF_TWO} or less; give scale 0.3 0.5")
        if 2 in self.hands and self.defects:
            raise DataError("defects are drawn on one hand, not on two; give hands 1")

    @property
    def sizes(self) -> tuple[float, float]:
        """The range of the hand's longer side as a share of the image's."""
        return self.fill if self.scale is None else self.scale

    @property
    def placed(self) -> bool:
        """Whether hands lie at other places than the middle, in other sizes or numbers: boxes then are shares."""
        return self.placement != "centre" or self.scale is not None or self.hands != (1,)

    @property
    def visible_kinds(self) -> tuple[str, ...]:
        """Those of `defect_kinds` that some hand of these views and poses can show."""
        hidden: set[str] = set()
        if set(self.views) == {"side"}:
            hidden |= {"mirrored", "thumb_side"}  # fingers behind one another: their order is not seen
        if self.poses == "touching":
            hidden |= {"thumb_side"}  # only a raised thumb shows it
        return tuple(kind for kind in self.defect_kinds if kind not in hidden)
