"""Which words of a prompt a pipeline's tokenizers know."""

import logging
import unicodedata
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger(__name__)
SHOWN = 8  # words in the warning
# Names in Unicode of characters that are words or parts of words by themselves.
SYLLABLES = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def unreadable_words(pipe: Any, prompts: Iterable[str]) -> list[str]:
    """The words that a pipeline's tokenizers do not know, or split into pieces of less than two letters on average.

    Such words, and whole scripts, hardly change the image, and a model learns little from captions that hold them.
    Numbers and punctuation are left out. A word is readable when one of the tokenizers reads it.

    Args:
        pipe: a diffusers pipeline; one without a tokenizer reads everything.

    Returns:
        The unreadable words in their order, each once.

    Example:
        >>> from geopos_diffusers import load_pipeline
        >>> unreadable_words(load_pipeline("hands64"), ["a left hand signing, 手"])
        ['signing', '手']
    """
    tokenizers = [part for part in pipe.components.values() if hasattr(part, "tokenize")]
    if not tokenizers:
        return []
    words = dict.fromkeys(word for prompt in prompts for word in _words(prompt))
    return [word for word in words if not any(_reads(tokenizer, word) for tokenizer in tokenizers)]


def warn_of_unreadable_words(pipe: Any, prompts: Iterable[str]) -> list[str]:
    """Say in one warning which words of `prompts` the pipeline cannot read, and return them; see `unreadable_words`."""
    if words := unreadable_words(pipe, prompts):
        more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
        logger.warning(
            "the model's vocabulary has no %s%s; such words hardly change the image", ", ".join(words[:SHOWN]), more
        )
    return words


def _words(text: str) -> list[str]:
    """Runs of letters, with the marks that some scripts write vowels and accents with."""
    letters = (char if unicodedata.category(char)[0] in "LM" else " " for char in unicodedata.normalize("NFC", text))
    return "".join(letters).split()


def _reads(tokenizer: Any, word: str) -> bool:
    # With a space before it, as within a sentence; SentencePiece may make a token of its own of the space.
    ids = tokenizer(f" {word}", add_special_tokens=False).input_ids
    tokens = [token for token in tokenizer.convert_ids_to_tokens(ids) if token != "▁"]
    if tokenizer.unk_token_id in ids or len(tokens) > len(word):
        return False
    # A vocabulary that knows each ideograph or syllable reads them; one that knows each letter does not read words.
    return len(tokens) == 1 or 2 * len(tokens) <= len(word) or unicodedata.name(word[0], "").startswith(SYLLABLES)
