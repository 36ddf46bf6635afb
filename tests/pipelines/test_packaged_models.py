"""The packaged models and the adapter: what they weigh, and whether they draw what their cards say."""

import numpy as np
import pytest

from geopos_diffusers import load_geoconv_weights
from geopos_diffusers.cli.box_options import grid_places
from geopos_diffusers.files import PACKAGED
from geopos_diffusers.metrics.hand_judge import load_hand_judge
from geopos_diffusers.pipelines.generation import generate_images
from geopos_diffusers.pipelines.loading import load_pipeline

MODELS = ("hands64", "hands64-v2")
MOST_BYTES = 24e6
LOOK = "an open hand, light skin, on a blue background"
NUMBERS = ("no fingers", "one finger", "two fingers", "three fingers", "four fingers", "five fingers")


@pytest.fixture(scope="module")
def judge():
    return load_hand_judge()


def draw(model, prompts, seed=0):
    pipe = load_pipeline(model)
    drawn = generate_images(pipe, prompts, steps=20, guidance_scale=2.5, seed=seed)
    return [one.image for one in drawn]


@pytest.mark.parametrize("model", MODELS)
class TestModels:
    def test_files(self, model):
        files = [path for path in (PACKAGED / model).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < MOST_BYTES
        assert not [path for path in files if path.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]
        assert "license: apache-2.0" in (PACKAGED / model / "README.md").read_text(encoding="utf-8")

    def test_hands_with_the_asked_number_of_fingers(self, model, judge):
        """By chance one in six is right."""
        prompts = [f"a photo of the palm of a right hand, {number} raised, light skin, on a blue background"
                   for number in NUMBERS]  # fmt: skip
        found = judge.judge(draw(model, prompts))
        assert sum(one.present > 0.5 for one in found) >= 5
        assert sum(one.fingers == number for number, one in enumerate(found)) >= 4


class TestSecondEdition:
    NOISES = 6

    def judged(self, judge, prompt):
        return judge.judge(draw("hands64-v2", [prompt] * self.NOISES))

    def test_left_and_right(self, judge):
        """The first edition draws the same for both."""
        left, right = (
            [one.right_hand for one in self.judged(judge, f"a photo of the palm of a {hand} hand, {LOOK}")]
            for hand in ("left", "right")
        )
        assert np.mean(right) - np.mean(left) > 0.4

    def test_places(self, judge):
        """The same noise in both: middles of the key points, as shares of the image."""
        left, right = (
            np.mean([one.keypoints.mean(0)[0] / 64 for one in self.judged(judge, f"an open hand, on the {side} side")])
            for side in ("left", "right")
        )
        assert right - left > 0.25

    def test_photographs(self, judge):
        found = self.judged(judge, "a photograph of a right hand, an open hand")
        assert sum(one.present > 0.5 for one in found) >= 5

    def test_the_card_names_whose_photographs_it_has_seen(self):
        card = (PACKAGED / "hands64-v2" / "README.md").read_text(encoding="utf-8")
        assert "Mavi" in card
        assert "2011.08927" in card


class TestFramedAdapter:
    """`hands64-frames`, an adapter of the first edition."""

    def test_files(self):
        folder = PACKAGED / "hands64-frames"
        assert sum(path.stat().st_size for path in folder.iterdir()) < 1e5
        assert "license: apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")

    def test_hands_go_where_the_box_is(self, judge):
        """One noise in nine boxes: the middles of the boxes and of the key points correlate on both axes."""
        pipe = load_pipeline("hands64")
        load_geoconv_weights(pipe, "hands64-frames")
        boxes = grid_places(3, 0.4, 0.5)
        drawn = generate_images(
            pipe, [f"a photo of the palm of a left hand, {LOOK}"] * 9, steps=15, guidance_scale=2.5, boxes=boxes,
            images_per_seed=9,
        )  # fmt: skip
        found = judge.judge([one.image for one in drawn])
        assert sum(one.present > 0.5 for one in found) >= 8
        middles = np.array([one.keypoints.mean(0) / 64 for one in found])
        asked = np.array([((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes])
        assert np.corrcoef(middles[:, 0], asked[:, 0])[0, 1] > 0.9
        assert np.corrcoef(middles[:, 1], asked[:, 1])[0, 1] > 0.5
