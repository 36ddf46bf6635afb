"""A CLIPTokenizer with a vocabulary of its own, learnt from the captions of a data set."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

from geopos_diffusers.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
SMALLEST_VOCABULARY = 2 + 2 * 256


def train_caption_tokenizer(captions: Iterable[str], vocabulary_size: int, max_length: int) -> "CLIPTokenizer":
    """Learn byte-level byte pairs from `captions`, the way CLIP's own vocabulary was made.

    Every byte is in the vocabulary, alone and as the end of a word, so any text has a code without unknown tokens. As
    in Stable Diffusion 1, captions start with the start token and are padded with the end token. The result is the
    same for the same captions in the same order.

    Args:
        captions: texts to learn from; case is ignored.
        vocabulary_size: the most tokens, at least SMALLEST_VOCABULARY. Few captions yield fewer.
        max_length: tokens of a padded or truncated caption, start and end included.

    Raises:
        ConfigError: a vocabulary below SMALLEST_VOCABULARY or a length below 3.
        DataError: there are no captions.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    if vocabulary_size < SMALLEST_VOCABULARY:
        raise ConfigError(f"vocabulary_size is {vocabulary_size}; all bytes need at least {SMALLEST_VOCABULARY}")
    if max_length < 3:
        raise ConfigError(f"max_length is {max_length}; start, end and a word need at least 3")
    captions = list(captions)
    if not captions:
        raise DataError("a tokenizer needs at least one caption to learn from")

    # The rules that cut text into words are CLIPTokenizer's own, so that words are cut alike now and later.
    rules = CLIPTokenizer().backend_tokenizer
    words: Counter[str] = Counter()
    for caption, count in Counter(captions).items():
        for word, _ in rules.pre_tokenizer.pre_tokenize_str(rules.normalizer.normalize_str(caption)):
            words[word] += count

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [START, END, *alphabet, *(byte + WORD_END for byte in alphabet)]
    merges = learn_merges(words, vocabulary_size - len(tokens))
    tokens += [left + right for left, right in merges]
    # Two merges may give the same token; the first one names it.
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)


def learn_merges(words: Counter[str], limit: int) -> list[tuple[str, str]]:
    """Join the most frequent pair of neighbouring symbols, again and again, up to `limit` times.

    `tokenizers` has a trainer for this too, but pairs that are equally frequent come in another order each time there,
    and a continued run needs the codes of the run that it continues. Here they come in alphabetical order.

    Args:
        words: how often each word occurs, spelt in byte-level characters.
    """
    spelling = {word: [*word[:-1], word[-1] + WORD_END] for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in spelling.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for symbols in spelling.values():
            for index in range(len(symbols) - 2, -1, -1):
                if tuple(symbols[index : index + 2]) == best:
                    symbols[index : index + 2] = ["".join(best)]
    return merges
