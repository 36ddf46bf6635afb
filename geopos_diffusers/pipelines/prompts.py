"""Which words of prompts a pipeline's tokenizer cannot hold together."""

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

logger = logging.getLogger(__name__)
WORD = re.compile(r"[^\W\d_]+")
SHOWN = 5  # words in the warning


def unreadable_words(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Words that `tokenizer` has no token for, or splits into pieces of fewer than two letters on average.

    A model learnt nothing about such a word: the packaged one reads "signing" as seven letters, and a text encoder for
    English reads other scripts as bytes.

    Args:
        tokenizer: a transformers tokenizer.

    Returns:
        The words in lower case, without repetitions, in the order of `texts`.
    """
    words = list(dict.fromkeys(word for text in texts for word in WORD.findall(text.lower())))
    if not words:
        return []
    unknown = tokenizer.unk_token_id
    if unknown in (tokenizer.eos_token_id, tokenizer.pad_token_id):  # CLIP's stands for several things
        unknown = None
    pieces = tokenizer(words, add_special_tokens=False).input_ids
    return [
        word
        for word, ids in zip(words, pieces, strict=True)
        if (unknown is not None and unknown in ids) or 2 * len(ids) > max(2, len(word))
    ]


def warn_of_unreadable_words(pipe: Any, texts: Sequence[str]) -> list[str]:
    """Say in one warning which words of `texts` the pipeline cannot read, and return them.

    Args:
        pipe: a diffusers pipeline; one without a tokenizer reads no words, and nothing is said.
    """
    tokenizer = getattr(pipe, "tokenizer", None)
    words = [] if tokenizer is None else unreadable_words(tokenizer, texts)
    if words:
        more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
        logger.warning(
            "the model's vocabulary has no %s%s: it reads single letters there",
            ", ".join(repr(word) for word in words[:SHOWN]),
            more,
        )
    return words
