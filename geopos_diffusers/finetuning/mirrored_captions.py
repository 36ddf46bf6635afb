"""Mirrored images, whose captions can be changed with them: left becomes right."""

import re
from typing import Any

import torch
from torch import Tensor

# Words of English captions; the rest of a caption stays as it is.
SWAPPED = {"left": "right", "lefts": "rights", "lefty": "righty", "leftmost": "rightmost", "leftward": "rightward"}
SWAPPED |= {"leftwards": "rightwards", "leftside": "rightside"} | {
    f"left{end}": f"right{end}" for end in ("handed", "hand", "footed")
}
SWAPPED |= {right: left for left, right in SWAPPED.items()}
WORDS = re.compile(rf"(?<![^\W_])({'|'.join(sorted(SWAPPED, key=len, reverse=True))})(?![^\W_])", re.IGNORECASE)


def mirrored_caption(caption: str) -> str:
    """`caption` with left and right exchanged, in whole words alone, in their own case.

    Example:
        >>> mirrored_caption("Left hand, RIGHT-handed; a bright leftover")
        'Right hand, LEFT-handed; a bright leftover'
    """
    return WORDS.sub(lambda match: _in_case_of(match[0], SWAPPED[match[0].lower()]), caption)


def _in_case_of(model: str, word: str) -> str:
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[0].isupper() else word


MIRRORED = ("pixels", "mask", "conditioning")


def mirror_some(batch: dict[str, Any], flip_captions: bool) -> dict[str, Any]:
    """The batch with about half of its images, and what belongs to them, mirrored.

    Args:
        batch: with "pixels" [B, 3, H, W]; maybe "mask" [B, 1, H, W], "conditioning" [B, 3, H, W], "box" [B, 4] in
            shares of the image, "caption", and "mirrored0" ... beside "text0" ...
        flip_captions: whether the captions of mirrored images are changed too; see `mirrored_caption`.
    """
    pixels = batch["pixels"]
    mirrored = torch.rand(len(pixels), device=pixels.device) < 0.5
    changed: dict[str, Any] = {
        name: _choose(mirrored, batch[name].flip(-1), batch[name]) for name in MIRRORED if name in batch
    }
    if "box" in batch:
        left, top, right, bottom = batch["box"].unbind(1)
        changed["box"] = _choose(mirrored, torch.stack([1 - right, top, 1 - left, bottom], 1), batch["box"])
    if flip_captions:
        pairs = zip(batch["caption"], mirrored.tolist(), strict=True)
        changed["caption"] = [mirrored_caption(caption) if flipped else caption for caption, flipped in pairs]
        for name in [name for name in batch if name.startswith("mirrored")]:
            plain = name.replace("mirrored", "text")
            changed[plain] = _choose(mirrored, batch[name], batch[plain])
    return {**batch, **changed}


def _choose(mirrored: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(mirrored.view(-1, *[1] * (no.ndim - 1)), yes, no)
