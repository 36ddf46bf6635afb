import numpy as np
import pytest
import torch
from experiments.pretraining.wrong_captions import WRONG, WrongCaptions, wrong_captions

FULL = "a photo of the palm of a left hand, 3 fingers up, dark skin, on a blue background, on the left side"


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        (FULL, {"handedness", "number", "place", "view"}),
        ("a hand, a fist", {"number"}),
        ("a right hand, palm view, at the top left", {"handedness", "view", "place"}),
        ("a photograph of a hand, the thumb touching the ring finger", set()),
        ("a man turned to the left, on a teal background", set()),
        ("an open hand in the centre", {"number", "place"}),
    ],
)
def test_what_a_caption_names_can_be_wrong(caption, named):
    wrong = wrong_captions(caption, np.random.default_rng(0))
    assert set(wrong) == named
    assert caption not in wrong.values()


def test_one_thing_alone_is_wrong():
    wrong = wrong_captions(FULL, np.random.default_rng(0))
    assert wrong["handedness"] == FULL.replace("left hand", "right hand")
    assert wrong["view"] == FULL.replace("palm", "back")
    assert wrong["place"].startswith(FULL.removesuffix("on the left side"))
    assert wrong["number"].split(", ")[0] == FULL.split(", ")[0]


@pytest.mark.parametrize(
    ("wording", "count"), [("no fingers raised", 0), ("a fist", 0), ("1 finger up", 1), ("an open hand", 5)]
)
def test_another_number_is_never_the_same(wording, count):
    words = ("zero fingers", "one finger ", "two fingers", "three fingers", "four fingers", "five fingers")
    texts = {wrong_captions(f"a hand, {wording}", np.random.default_rng(seed))["number"] for seed in range(60)}
    assert len(texts) == 5
    assert not any(words[count] in text for text in texts)


def test_drawn_kinds_have_their_shares_and_are_named():
    def tokenize(captions):
        return torch.tensor([[hash(text) % 1009 for text in (caption, caption[::-1])] for caption in captions])

    captions = [FULL, "a hand, a fist", "a smiling face"]
    ids = tokenize(captions)
    wrong = WrongCaptions(captions, tokenize, ids, seed=0)
    drawn = wrong.draw([0] * 2000 + [1] * 50 + [2] * 50, torch.Generator().manual_seed(0))
    for kind, share in WRONG.items():
        found = (drawn[:2000] == wrong.kinds[kind][0]).all(1).float().mean().item()
        assert found == pytest.approx(share, abs=0.04)
    assert (drawn[2000:2050] == wrong.kinds["number"][1]).all()
    assert (drawn[2050:] == ids[2]).all()
