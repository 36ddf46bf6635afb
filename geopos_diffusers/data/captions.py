"""Captions from attributes. The same attributes give many wordings; a caption says only what is true of the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")
_FACING_DEGREES = 12.0  # heads turned less than this are called facing the camera


def pick(generator: np.random.Generator, options: Sequence[str]) -> str:
    """One of the options, each as likely."""
    return options[int(generator.integers(len(options)))]


def _fingers(generator: np.random.Generator, count: int) -> str:
    options: tuple[str, ...]
    if count == 0:
        options = ("a fist", "no fingers raised", "zero fingers raised", "0 fingers up", "all fingers folded")
    elif count == 5:
        options = ("an open hand", "five fingers raised", "5 fingers up", "all five fingers spread", "five fingers up")
    else:
        word, plural = NUMBER_WORDS[count], "finger" if count == 1 else "fingers"
        options = (f"{word} {plural} raised", f"{count} {plural} raised", f"{word} {plural} up", f"{count} {plural} up")
    return pick(generator, options)


def _side(generator: np.random.Generator, view: str, hand: str) -> str:
    if view == "side":
        return pick(generator, (f"the side of a {hand} hand", f"a {hand} hand from the side"))
    return pick(generator, (f"the {view} of a {hand} hand", f"a {hand} hand, {view} view"))


def _background(name: str) -> str:
    if " to " in name:
        return f"on a background fading from {name}"
    article = "an" if name[0] in "aeiou" else "a"
    return f"on {article} {name} background"


def describe_hand(attributes: Mapping[str, Any], generator: np.random.Generator) -> str:
    """A caption for a hand.

    `attributes` needs fingers (0-5), handedness, view, tone and background. Six of ten captions name
    them all; the others name some, so that a model trained on them also follows short prompts.
    """
    fingers = _fingers(generator, attributes["fingers"])
    hand, tone = attributes["handedness"], attributes["tone"]
    side = _side(generator, attributes["view"], hand)
    background = _background(attributes["background"])
    full = (
        f"a photo of {side}, {fingers}, {tone} skin, {background}",
        f"{side}, {fingers}, {tone} skin, {background}",
        f"a photo of {side} with {tone} skin, {fingers}, {background}",
        f"{fingers}, {side}, {tone} skin, {background}",
    )
    short = (
        f"a photo of {side}, {fingers}",
        f"a hand, {fingers}",
        f"a photo of a hand, {fingers}, {background}",
        f"a {hand} hand, {fingers}",
        f"a photo of {side}, {tone} skin",
        f"{fingers}, {tone} skin",
        f"a hand, {fingers}, {tone} skin, {background}",
    )
    return pick(generator, full if generator.random() < 0.6 else short)


def describe_hands(
    hands: Sequence[Mapping[str, Any]], tone: str, background: str, generator: np.random.Generator
) -> str:
    """A caption for two hands, from left to right; each needs fingers (0-5) and handedness.

    Six of ten captions say it all; the others say less.
    """
    sides = [hand["handedness"] for hand in hands]
    numbers = [_raised(hand["fingers"]) for hand in hands]
    pair = f"two {sides[0]} hands" if sides[0] == sides[1] else f"a {sides[0]} hand and a {sides[1]} hand"
    one, other = (f"a {side} hand with {number}" for side, number in zip(sides, numbers, strict=True))
    each = f"two hands, {one} and {other}"
    if sides[0] == sides[1]:
        each = f"two {sides[0]} hands, one with {numbers[0]} and one with {numbers[1]}"
    where = _background(background)
    full = (
        f"a photo of {each}, {tone} skin, {where}",
        f"{each}, {tone} skin, {where}",
    )
    short = (
        f"a photo of {pair}",
        f"two hands, {tone} skin",
        f"two hands, {where}",
        f"{pair}, {tone} skin, {where}",
        f"a photo of two hands, one with {numbers[0]} and one with {numbers[1]}",
    )
    return pick(generator, full if generator.random() < 0.6 else short)


def _raised(count: int) -> str:
    if count == 0:
        return "no fingers raised"
    return f"{NUMBER_WORDS[count]} {'finger' if count == 1 else 'fingers'} raised"


def _person(age: str, gender: str) -> str:
    if age == "child":
        return "girl" if gender == "female" else "boy"
    adult = "woman" if gender == "female" else "man"
    return f"{age} {adult}"


def _expression(generator: np.random.Generator, name: str) -> str:
    wordings = {
        "neutral": ("with a neutral expression", "with a calm face"),
        "smiling": ("smiling", "with a smile"),
        "surprised": ("looking surprised", "with a surprised expression"),
        "sad": ("looking sad", "with a sad expression"),
        "angry": ("looking angry", "with an angry expression"),
        "disgusted": ("looking disgusted", "with a disgusted expression"),
        "eyes closed": ("with eyes closed",),
        "mouth open": ("with an open mouth", "with the mouth open"),
        "lips pursed": ("with pursed lips",),
        "cheeks puffed": ("with puffed cheeks",),
    }
    return pick(generator, wordings.get(name, (name,)))


def _direction(yaw: float, pitch: float) -> str:
    """Where the head looks, left and right as seen in the image."""
    words = []
    if abs(yaw) >= _FACING_DEGREES:
        words.append("turned to the right" if yaw > 0 else "turned to the left")
    if abs(pitch) >= _FACING_DEGREES:
        words.append("looking up" if pitch > 0 else "looking down")
    return " and ".join(words) or "facing the camera"


def describe_face(attributes: Mapping[str, Any], generator: np.random.Generator) -> str:
    """A caption for a face.

    `attributes` needs expression, age, gender, yaw, pitch (degrees), tone and background. Six of ten captions name
    them all, the others some.
    """
    person = _person(attributes["age"], attributes["gender"])
    article = "an" if person[0] in "aeiou" else "a"
    expression = _expression(generator, attributes["expression"])
    direction = _direction(attributes["yaw"], attributes["pitch"])
    tone, background = attributes["tone"], _background(attributes["background"])
    full = (
        f"a photo of {article} {person} {expression}, {tone} skin, {direction}, {background}",
        f"{article} {person} with {tone} skin, {expression}, {direction}, {background}",
        f"a portrait of {article} {person}, {direction}, {expression}, {tone} skin, {background}",
    )
    short = (
        f"a photo of {article} {person} {expression}",
        f"a face, {expression}",
        f"{article} {person}, {direction}",
        f"a portrait of {article} {person}, {tone} skin",
        f"a face, {tone} skin, {background}",
    )
    return pick(generator, full if generator.random() < 0.6 else short)
