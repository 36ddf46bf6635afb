"""What a text or a metadata row says of a hand: number of raised fingers, view, handedness, tone, number of hands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DataError
from .hand_number import hands_in

VIEWS = ("palm", "back", "side")
HANDS = ("left", "right")
ATTRIBUTES = ("fingers", "view", "handedness", "tone")  # those that a reference can be matched on
MAXIMUM_HANDS = 10

_NUMBERS = {"zero": 0, "no": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_SOME = r"(?P<number>zero|one|two|three|four|five|[0-5])"
_NUMBER = _SOME.replace("zero", "zero|no")  # "no fingers raised" is a fist, "no fingers missing" is not
_TONES = r"(?:very |medium )?(?:light|fair|pale|medium|tan|olive|brown|dark|black|white)"
_DIGIT = r"(?:index|middle|ring|little|pinky|pinkie|fore)"
_UP = r"(?:raised|up|extended|outstretched|straight|held up|pointing up|spread(?: out)?|shown|visible)"
_DOWN = r"(?:folded|curled|bent|closed|down|lowered|tucked(?: in)?)"
_SHOW = r"(?:raising|holding up|holds up|showing|shows|extending|with|putting up|lifting)"
_FIST = r"(?:(?:closed |clenched |tight )*fist|closed hand|clenched hand|all (?:five )?fingers " + _DOWN + ")"
_OPEN = (
    r"(?:(?:wide )?open(?:ed)? (?:(?:left|right|human) )?(?:hand|palm)|all (?:(?:five|5) )?fingers "
    + _UP
    + "|high five)"
)

# Read in this order; the first that is found decides. "One hand" or "two hands" speaks of hands, not of fingers, so a
# number counts only beside "finger(s)" or with "the number / digit".
_FINGER_PATTERNS: tuple[tuple[re.Pattern[str], int | None], ...] = (
    (re.compile(rf"\b{_NUMBER} (?:of (?:the|its|his|her) )?(?:{_UP} )?(?:\w+ )?fingers? (?:\w+ )?{_UP}\b"), None),
    (re.compile(rf"\b{_NUMBER} {_UP} (?:\w+ )?fingers?\b"), None),
    (re.compile(rf"\b{_SHOW} (?:up )?(?:only |just |exactly )?{_SOME} fingers?\b(?! {_DOWN})"), None),
    (re.compile(rf"\b{_OPEN}\b"), 5),
    (re.compile(rf"\b{_FIST}\b"), 0),
    (re.compile(rf"\bfingers (?:raised |up )?{_SOME}\b"), None),
    (re.compile(r"\b(?:thumbs? up|thumb raised)\b"), 1),
    (re.compile(r"\b(?:peace|victory|v) sign\b"), 2),
    (re.compile(rf"\b(?:only )?(?:the |its |an? )?{_DIGIT}[ -]?finger {_UP}\b"), 1),
    (re.compile(rf"\b(?:number|digit|count(?:ing|s)?(?: up)?(?: to)?|counting out) {_SOME}\b"), None),
    (re.compile(rf"\b{_SOME} fingers?\b(?! {_DOWN})"), None),
)
_EITHER = re.compile(rf"\b{_SOME} (?:or|to) {_SOME.replace('?P<number>', '?:')} (?:\w+ )?fingers?\b")


@dataclass(frozen=True)
class HandAttributes:
    """What is known of a pictured hand; None is unknown.

    fingers: raised fingers, 0 to 5. view: palm, back or side. handedness: left or right. tone: the words that name the
    skin's tone, such as "medium" or "dark". hands: how many hands the image should show, 0 to 10.
    """

    fingers: int | None = None
    view: str | None = None
    handedness: str | None = None
    tone: str | None = None
    hands: int | None = None


def attributes_of_row(row: Mapping[str, Any]) -> HandAttributes:
    """The attributes of a `metadata.jsonl` row: its own keys, and what is missing from its `text`.

    `hands` is a number, or a list with an entry for each hand, as `geopos data hands --hands 2` writes it.

    Raises:
        DataError: a key has a value that it cannot have.
    """
    text = row.get("text")
    if text is not None and not isinstance(text, str):
        raise DataError(f"text is {text!r:.80}; it must be a string")
    said = attributes_of_text(text or "")
    fingers, view, handedness, tone = (row.get(name) for name in ATTRIBUTES)
    if fingers is not None and (isinstance(fingers, bool) or fingers not in range(6)):
        raise DataError(f"fingers is {fingers!r:.80}; it must be a whole number from 0 to 5")
    if view is not None and view not in VIEWS:
        raise DataError(f"view is {view!r:.80}; it must be one of {', '.join(VIEWS)}")
    if handedness is not None and handedness not in HANDS:
        raise DataError(f"handedness is {handedness!r:.80}; it must be one of {', '.join(HANDS)}")
    if tone is not None and not isinstance(tone, str):
        raise DataError(f"tone is {tone!r:.80}; it must be a string")
    given = row.get("hands")
    hands = len(given) if isinstance(given, list) else given
    if hands is not None and (isinstance(hands, bool) or hands not in range(MAXIMUM_HANDS + 1)):
        allowed = f"a whole number from 0 to {MAXIMUM_HANDS}, or a list of so many hands"
        raise DataError(f"hands is {given!r:.80}; it must be {allowed}")
    return HandAttributes(
        fingers=said.fingers if fingers is None else int(fingers),
        view=view or said.view,
        handedness=handedness or said.handedness,
        tone=tone or said.tone,
        hands=said.hands if hands is None else int(hands),
    )


def attributes_of_text(text: str) -> HandAttributes:
    return HandAttributes(
        parse_fingers(text), parse_view(text), parse_handedness(text), parse_tone(text), parse_hands(text)
    )


def parse_fingers(text: str) -> int | None:
    """The number of raised fingers that `text` asks for (0 to 5), or None if it does not say or says two things.

    Understands numbers in words and digits beside "finger(s)", fists, open hands, single named fingers, thumbs up,
    the victory sign, and "the number / digit three".
    """
    text = normalize(text)
    if _EITHER.search(text):
        return None
    for pattern, count in _FINGER_PATTERNS:
        found = {count if count is not None else number_of(match["number"]) for match in pattern.finditer(text)}
        if len(found) == 1:
            return found.pop()
        if found:
            return None
    return None


def parse_view(text: str) -> str | None:
    """The side of the hand that `text` names: "palm", "back" or "side", or None if none or several are named."""
    text = normalize(text)
    patterns = {
        "palm": r"\bpalms?\b(?! (?:tree|leaf|oil|beach))",
        "back": r"\b(?:back (?:of|view|side)|from (?:the back|behind)|dorsal|backhand|back facing)\b",
        "side": r"\b(?:(?<!back )(?<!palm )side (?:of (?:an? |the )?(?:\w+ )?hand|view)|from the side|in profile)\b",
    }
    found = [view for view, pattern in patterns.items() if re.search(pattern, text)]
    return found[0] if len(found) == 1 else None


def parse_handedness(text: str) -> str | None:
    """The hand that `text` names: "left" or "right", or None if neither or both are named."""
    text = normalize(text)
    if re.search(r"\b(?:left and (?:an? |the )?right|right and (?:an? |the )?left)\b", text):
        return None
    found = set(re.findall(r"\b(left|right) (?:(?:human|open|closed|bare) )?(?:hand|fist|palm)s?\b", text))
    return found.pop() if len(found) == 1 else None


def parse_tone(text: str) -> str | None:
    """The word for the skin's tone that stands before "skin" in `text`, such as "dark", or None."""
    found = set(re.findall(rf"\b({_TONES}) skin", normalize(text)))
    return found.pop() if len(found) == 1 else None


def parse_hands(text: str) -> int | None:
    """The number of hands that `text` asks for (0 to 10), or None; `hands_in` says what is understood."""
    return hands_in(normalize(clause) for clause in re.split(r"[,;:.!?\n]", text))


def normalize(text: str) -> str:
    """Lower case, with hyphens and punctuation as spaces and single spaces throughout."""
    return " ".join(re.sub(r"[^\w]+|_", " ", text.lower()).split())


def number_of(word: str) -> int:
    return int(word) if word.isdigit() else _NUMBERS[word]
