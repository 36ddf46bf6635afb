"""Captions of mirrored images: left becomes right."""

import re

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
