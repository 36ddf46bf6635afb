"""The check of prompts, against the packaged vocabulary and vocabularies of other kinds."""

from types import SimpleNamespace

import pytest
from tiny_models import tiny_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from geopos_diffusers.files import PACKAGED
from geopos_diffusers.pipelines.prompts import unreadable_words


def pipeline(**tokenizers) -> SimpleNamespace:
    return SimpleNamespace(components={"vae": None, **tokenizers})


@pytest.fixture(scope="module")
def packaged():
    return AutoTokenizer.from_pretrained(PACKAGED / "hands64" / "tokenizer")


def unigram(*pieces: str) -> PreTrainedTokenizerFast:
    """A vocabulary of SentencePiece's kind, as T5's is: whole pieces, and one token for all else."""
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -1.0) for piece in pieces)], unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("the back of a left hand, five fingers raised", []),
        ("A HAND", []),
        ("a hand signing, signing", ["signing"]),
        ("blurry", ["blurry"]),  # blu, r, r, y
        ("12 hands64 🖐 -- !", ["hands"]),
        ("一只手", ["一只手"]),
        ("ένα χέρι", ["ένα", "χέρι"]),
        ("हाथ", ["हाथ"]),
        ("", []),
    ],
)
def test_of_the_packaged_vocabulary(packaged, prompt, words):
    assert unreadable_words(pipeline(tokenizer=packaged), [prompt]) == words


def test_unknown_tokens():
    tokenizer = unigram("▁", "▁hand", "ling", "▁fi", "s", "t", "▁", "ar", "m")
    assert unreadable_words(pipeline(tokenizer=tokenizer), ["hand handling 手 fist arm foot"]) == [
        "手",
        "fist",
        "arm",
        "foot",
    ]


def test_a_vocabulary_of_ideographs_reads_them():
    assert unreadable_words(pipeline(tokenizer=unigram("▁", "一", "只", "手")), ["一只手 手掌"]) == ["手掌"]


def test_one_tokenizer_that_reads_a_word_is_enough(packaged):
    pipe = pipeline(tokenizer=tiny_tokenizer(), tokenizer_2=packaged)
    assert unreadable_words(pipe, ["a hand", "signing"]) == ["signing"]


def test_without_a_tokenizer():
    assert unreadable_words(pipeline(), ["signing"]) == []
