import pytest
from experiments.pretraining.caption_tokenizer import SMALLEST_VOCABULARY, train_caption_tokenizer

from geopos_diffusers.errors import ConfigError, DataError

CAPTIONS = [
    "a photo of the back of a left hand, three fingers raised, dark skin, on a blue background",
    "a right hand, palm view, 5 fingers up, light skin, on a white background",
] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_caption_tokenizer(CAPTIONS, vocabulary_size=700, max_length=32)


@pytest.mark.parametrize(
    "text",
    [
        "a zebra in a forest",
        "naïve café",
        "手のひら",
        "\N{RAISED HAND} \N{OK HAND SIGN}",
        "x",
        "~^|\\",
        "5 and 12",
        "a hand",
    ],
)
def test_any_text_has_a_code_that_can_be_read_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.unk_token_id not in ids[1:-1]
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded.replace(" ", "") == text.lower().replace(" ", "")


def test_words_of_the_captions_become_single_tokens(tokenizer):
    assert tokenizer.tokenize("Fingers  raised") == ["fingers</w>", "raised</w>"]


def test_captions_are_padded_with_the_end_token_and_cut(tokenizer):
    ids = tokenizer(["a hand", "a hand " * 40], padding="max_length", truncation=True).input_ids
    assert [len(row) for row in ids] == [32, 32]
    assert set(ids[0][3:]) == {tokenizer.eos_token_id}
    assert ids[1][-1] == tokenizer.eos_token_id


def test_saved_tokenizer_gives_the_same_codes(tokenizer, tmp_path):
    from transformers import CLIPTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    texts = [*CAPTIONS, "手 unknown words"]
    assert loaded(texts).input_ids == tokenizer(texts).input_ids
    assert loaded.model_max_length == 32


def test_same_captions_give_the_same_vocabulary(tokenizer):
    again = train_caption_tokenizer(CAPTIONS, vocabulary_size=700, max_length=32)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert SMALLEST_VOCABULARY < len(again) <= 700


@pytest.mark.parametrize(
    ("captions", "vocabulary_size", "max_length", "error"),
    [(CAPTIONS, 100, 32, ConfigError), (CAPTIONS, 700, 2, ConfigError), ([], 700, 32, DataError)],
)
def test_bad_input_is_refused(captions, vocabulary_size, max_length, error):
    with pytest.raises(error):
        train_caption_tokenizer(captions, vocabulary_size, max_length)
