"""Captions that are wrong in one word, which a text encoder learns to tell from the right ones."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from geopos_diffusers.data.captions import NUMBER_WORDS, pick

from .mixture_captions import PLACES

# What is changed in a caption, and how often in one that names all of them.
WRONG = {"handedness": 0.4, "number": 0.3, "place": 0.2, "view": 0.1}
_SIDE = re.compile(r"\b(left|right) hand\b")
_VIEW = re.compile(r"\b(palm|back)\b")
_NUMBER = re.compile(
    rf"\b(?:({'|'.join(NUMBER_WORDS)}|no|[0-5]) fingers? (?:raised|up)|a fist|all fingers folded|an open hand"
    r"|all five fingers spread)"
)
# Longest first: "at the top" is the beginning of "at the top left".
_PLACE = re.compile("|".join(sorted((place for row in PLACES for place in row), key=len, reverse=True)))


def wrong_captions(caption: str, generator: np.random.Generator) -> dict[str, str]:
    """`caption` with another hand, number of fingers, place or view: one text for each of WRONG that it names."""
    found: dict[str, str] = {}
    if _SIDE.search(caption):
        found["handedness"] = _SIDE.sub(lambda side: f"{_other(side[1], 'left', 'right')} hand", caption)
    if number := _NUMBER.search(caption):
        others = [count for count in range(6) if count != _count(number)]
        other = others[int(generator.integers(len(others)))]
        found["number"] = _NUMBER.sub(f"{NUMBER_WORDS[other]} finger{'' if other == 1 else 's'} raised", caption, 1)
    if place := _PLACE.search(caption):
        places = [other for row in PLACES for other in row if other != place[0]]
        found["place"] = _PLACE.sub(pick(generator, places), caption)
    if _VIEW.search(caption):
        found["view"] = _VIEW.sub(lambda view: _other(view[1], "palm", "back"), caption)
    return found


def _count(number: re.Match[str]) -> int:
    word = number[1]
    if word is None:
        return 5 if "open" in number[0] or "spread" in number[0] else 0
    if word == "no":
        return 0
    return int(word) if word.isdigit() else NUMBER_WORDS.index(word)


def _other(word: str, first: str, second: str) -> str:
    return second if word == first else first


class WrongCaptions:
    """For each of N captions what it is with another hand, number, place and view.

    `kinds`: token ids [N, L] for each of WRONG, those of the caption itself where it does not name the thing.

    Args:
        tokenize: captions to ids [N, L]. input_ids: [N, L] of the captions.
    """

    def __init__(
        self, captions: Sequence[str], tokenize: Callable[[list[str]], Tensor], input_ids: Tensor, seed: int
    ) -> None:
        generator = np.random.default_rng(seed)
        wrong = [wrong_captions(caption, generator) for caption in captions]
        self.kinds = {
            kind: tokenize([each.get(kind, caption) for each, caption in zip(wrong, captions, strict=True)])
            for kind in WRONG
        }
        named = torch.stack([(ids != input_ids).any(1) for ids in self.kinds.values()], dim=1)
        self._weights = named * torch.tensor([*WRONG.values()])
        self._weights[~named.any(1)] = 1.0  # nothing is named: any kind is the caption itself

    def draw(self, indices: list[int], generator: torch.Generator) -> Tensor:
        """[B, L]: a wrong caption of each index, of a random kind among those that it names."""
        chosen = torch.multinomial(self._weights[indices], 1, generator=generator)[:, 0]
        return torch.stack([ids[indices] for ids in self.kinds.values()])[chosen, torch.arange(len(indices))]
