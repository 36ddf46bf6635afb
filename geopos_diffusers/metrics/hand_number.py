"""How many hands a text asks for."""

import re
from collections.abc import Iterable

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = rf"(?:{'|'.join(_NUMBERS)}|10|\d)"
_HAND = r"(?:hand|fist|palm)"
# Words between a number and its hands. Others may begin another thing: "two people with hands in their pockets".
_LIKE = (
    r"(?:(?:very |well |wide )?(?:human|left|right|raised|lifted|open|opened|closed|clenched|cupped|clasped|folded|"
    r"bare|empty|gloved|outstretched|extended|severed|robotic|bony|small|large|big|tiny|huge|old|young|adult|wrinkled|"
    r"dirty|wet|clean|strong|delicate|dark|light|pale|brown|black|white|different|separate|identical|male|female|"
    r"man s|woman s|child s|baby s|skinned) )"
)

# Phrases with the word "hand" that speak of no hand, in the form that `hand_attributes.normalize` gives them.
_NO_HANDS = re.compile(
    r"\b(?:(?:on|from) the (?:one|other) hand|(?:first|second|third|upper|helping|whip) hand|fist bump|"
    r"(?:left|right) hand (?:side|corner|page|edge|drive|thread|turn)|hand (?:in|over|to|by) hand|"
    r"(?:by|at|in|to|out of) hand|(?:hour|minute|clock|clock s|watch) hands?|"
    r"hands? of (?:an? |the )?(?:\w+ )?(?:clock|watch|cards?|poker|bridge|god|fate|time)|"
    r"hand (?:made|drawn|painted|written|lettered|crafted|carved|sewn|stitched|knitted|woven|picked)"
    r"(?! (?:of|with|in|by|on|from|out|as)\b)|hand shaped(?! like)|"
    r"hand held(?! (?:up|out|high|against|to|by|in|over|above|near|next|at|open)\b)|"
    r"hand (?:rail|bag|book|ball|gun|saw|tools?|luggage|cream|lotion|soap|saniti[sz]er|towels?|mirror|puppet|grenade|"
    r"brake|axe|cart|wash|stand|dryer|prints?|me downs?)|"
    r"hands (?:on|free|down|off)|(?:all|good|safe|deck|farm|stage|hired) hands?|"
    r"palm (?:trees?|leaf|leaves|oil|beach|springs|sunday|reader|reading|fronds?|top))\b"
)
_COUNTED = re.compile(rf"\b(?P<number>no|a single|{_NUMBER}) {_LIKE}{{0,3}}{_HAND}(?P<plural>s?)\b")
_PAIR = re.compile(
    r"\b(?:both (?:of )?(?:the |his |her |their |my |your |its )?|(?:pair|couple) of (?:the )?)"
    rf"{_LIKE}{{0,3}}{_HAND}s\b|\bhand ?shakes?\b|\bshak(?:e|es|ing) hands\b"
)
_LEFT_AND_RIGHT = re.compile(
    rf"\b(?P<first>left|right) (?:{_HAND} )?(?:and|with|plus|next to|beside|over|on) (?:an? |the |his |her |its )?"
    rf"(?!(?P=first)\b)(?:left|right) {_HAND}s?\b"
)
_NOT_COUNTED = re.compile(
    rf"\beach\b|\b(?:another|other|every|either|neither|several|many|some|few) {_LIKE}{{0,3}}{_HAND}s?\b"
)
_SIDE_OF_A_HAND = re.compile(r"\b(?:palm|back|side) of (?=(?:an?|the|his|her|one|left|right|human)\b)")
_INDEFINITE = re.compile(rf"\ban? {_LIKE}{{0,3}}{_HAND}\b")
_FINGERS = re.compile(
    r"\b(?:zero|one|two|three|four|five|[0-5]|all|all five|no(?= fingers (?:raised|up))) "
    r"(?:raised |extended |outstretched |straight |spread )?fingers?\b(?! (?:of|food))"
)


def hands_in(clauses: Iterable[str]) -> int | None:
    """The number of hands that a text asks for, 0 to 10, or None if it does not say or says two things.

    Args:
        clauses: the text between commas, each as `hand_attributes.normalize` gives it. "An open hand, a right hand" is
            one hand.

    Numbers count beside "hands", "fists" or "palms" ("two raised hands"); "both hands", "a pair of hands", "a left and
    a right hand" and "a handshake" are two; the singular is one ("a hand", "the palm of a left hand", "a clenched
    fist"). So is "three fingers raised" where no hand is named: it is one hand that shows up to five. "Hands" alone,
    "each hand" and "a hand holding a hand" are None. "Handbag", "hand-made" or "on the other hand" are no hands.
    """
    clauses = [_SIDE_OF_A_HAND.sub("", _NO_HANDS.sub(" ", clause)) for clause in clauses]
    text = " ".join(clauses)
    if _NOT_COUNTED.search(text):
        return None
    said = {_number_of(match["number"], bool(match["plural"])) for match in _COUNTED.finditer(text)}
    if _PAIR.search(text) or _LEFT_AND_RIGHT.search(text):
        said.add(2)
    if said:
        return said.pop() if len(said) == 1 else None
    if re.search(rf"\b{_HAND}s\b", text) or any(len(_INDEFINITE.findall(clause)) > 1 for clause in clauses):
        return None
    return 1 if re.search(rf"\b{_HAND}\b", text) or _FINGERS.search(text) else None


def _number_of(word: str, plural: bool) -> int | None:
    """The number of hands, or None where it counts something else: the gestures of "two hand gestures"."""
    if word == "no":
        return 0
    number = 1 if word == "a single" else int(word) if word.isdigit() else _NUMBERS.index(word)
    return number if (number != 1) == plural else None
