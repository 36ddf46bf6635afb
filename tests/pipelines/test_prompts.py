import pytest
from tiny_models import tiny_stable_diffusion
from transformers import BertTokenizer

from geopos_diffusers.pipelines.loading import load_pipeline
from geopos_diffusers.pipelines.prompts import unreadable_words, warn_of_unreadable_words


@pytest.fixture(scope="module")
def packaged():
    return load_pipeline("hands64")


def test_the_packaged_model_reads_its_own_captions_and_little_else(packaged, caplog):
    caption = "a photo of the palm of a left hand, two fingers raised, light skin, on a blue background"
    assert warn_of_unreadable_words(packaged, [caption]) == []
    assert not caplog.records
    assert warn_of_unreadable_words(packaged, [f"{caption}, Signing", "an astronaut signing, 手 and 2"]) == [
        "signing",
        "astronaut",
        "手",
    ]
    (record,) = caplog.records
    assert record.getMessage() == (
        "the model's vocabulary has no 'signing', 'astronaut', '手': it reads single letters there"
    )


def test_few_of_many_words_are_shown(caplog):
    words = ["north", "south", "east", "west", "above", "below", "middle"]
    assert warn_of_unreadable_words(tiny_stable_diffusion(), [" ".join(words)] * 2) == words
    assert "'north', 'south', 'east', 'west', 'above' and 2 more: it" in caplog.text


def test_unknown_tokens(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "hand"]), encoding="utf-8")
    assert unreadable_words(BertTokenizer(str(vocabulary)), ["a hand", "a fist"]) == ["fist"]


def test_a_pipeline_without_text_has_no_unreadable_words():
    assert warn_of_unreadable_words(object(), ["a hand"]) == []
    assert unreadable_words(tiny_stable_diffusion().tokenizer, ["", "42 !"]) == []
