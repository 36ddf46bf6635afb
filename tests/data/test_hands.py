import numpy as np
import pytest

from geopos_diffusers.data.hands import HandOptions, HandRenderer, render_hands
from geopos_diffusers.data.skin import TONES
from geopos_diffusers.errors import DataError

CANONICAL = {"poses": "canonical", "max_tilt": 12.0, "max_rotation": 15.0, "backgrounds": "plain"}
TIPS, MIDDLES, KNUCKLES = [8, 12, 16, 20], [6, 10, 14, 18], [5, 9, 13, 17]


@pytest.fixture(scope="module")
def canonical():
    return list(HandRenderer(64, 3, HandOptions(**CANONICAL)).draw(0, 96))


@pytest.fixture(scope="module")
def varied():
    return list(HandRenderer(64, 4).draw(0, 96))


class TestGeometry:
    def test_every_pixel_size_and_share(self, varied):
        for hand in varied:
            assert hand.image.size == (64, 64)
            assert hand.image.mode == "RGB"
            assert 0.03 < hand.mask.mean() < 0.85
            assert ((hand.depth > 0) == (hand.mask > 0)).all()

    def test_keypoints_lie_in_the_box_and_the_box_in_the_image(self, varied):
        for hand in varied:
            points, (x0, y0, x1, y1) = np.array(hand.attributes["keypoints"]), hand.attributes["box"]
            assert points.shape == (21, 2)
            # The wrist joint lies at the cut between hand and arm, so the box need not hold it.
            assert (points[1:] >= [x0, y0]).all()
            assert (points[1:] <= [x1, y1]).all()
            assert min(x0, y0) >= 0
            assert max(x1, y1) <= 64

    def test_keypoints_lie_on_the_hand(self, varied):
        on_hand = [
            hand.mask[int(y), int(x)] > 0 for hand in varied for x, y in np.clip(hand.attributes["keypoints"], 0, 63)
        ]
        assert np.mean(on_hand) > 0.99

    def test_raised_fingers_reach_out_and_folded_ones_do_not(self, canonical):
        for hand in canonical:
            if hand.attributes["view"] == "side":
                continue
            points = np.array(hand.attributes["keypoints"])
            up = points[9] - points[0]
            up /= np.linalg.norm(up)
            reach = (points[TIPS] - points[MIDDLES]) @ up / np.linalg.norm(points[9] - points[0])
            for finger, raised in enumerate(hand.attributes["pose"][1:]):
                assert (reach[finger] > 0.15) == raised, hand.attributes

    def test_count_is_the_number_of_raised_fingers(self, canonical, varied):
        for hand in canonical + varied:
            assert hand.attributes["fingers"] == sum(hand.attributes["pose"])
        assert {hand.attributes["fingers"] for hand in canonical} == set(range(6))

    def test_thumb_side_tells_left_from_right(self, canonical):
        for hand in canonical:
            attributes = hand.attributes
            if attributes["view"] == "side":
                continue
            points = np.array(attributes["keypoints"])
            index, pinky, middle, wrist = points[5], points[17], points[9], points[0]
            turn = np.cross(np.append(middle - wrist, 0), np.append(index - pinky, 0))[2]
            # Image y points down. Seen from the back, fingers up, a right hand's index is left of its little finger.
            assert (turn < 0) == ((attributes["handedness"] == "right") == (attributes["view"] == "back"))

    def test_fingers_point_up_without_rotation(self):
        options = HandOptions(**{**CANONICAL, "max_rotation": 0.0, "max_tilt": 0.0, "views": ("palm", "back")})
        for hand in HandRenderer(32, 0, options).draw(0, 16):
            points = np.array(hand.attributes["keypoints"])
            direction = points[9] - points[0]
            assert abs(np.degrees(np.arctan2(direction[0], -direction[1]))) < 8


class TestColour:
    def test_tones_span_the_range_and_darken_in_order(self, varied):
        brightness = {tone: [] for tone in TONES}
        for hand in varied:
            pixels = np.asarray(hand.image)[hand.mask > 0.99]
            brightness[hand.attributes["tone"]].append(pixels.mean())
        means = [np.mean(brightness[tone]) for tone in TONES]
        assert means == sorted(means, reverse=True)
        assert means[0] > 2 * means[-1]

    def test_background_is_plain_when_asked(self, canonical):
        for hand in canonical:
            outside = np.asarray(hand.image)[hand.mask == 0]
            assert np.ptp(outside, axis=0).max() == 0
            assert " to " not in hand.attributes["background"]

    def test_edges_are_antialiased(self, canonical):
        partial = [((hand.mask > 0) & (hand.mask < 1)).sum() for hand in canonical]
        assert min(partial) > 10


class TestRepeatability:
    def test_an_index_gives_the_same_hand_from_any_start(self):
        whole = list(render_hands(40, 32, seed=9))
        part = list(render_hands(5, 32, seed=9, start=33))
        for (image, attributes), (again, same) in zip(whole[33:38], part, strict=True):
            assert image.tobytes() == again.tobytes()
            assert attributes == same

    def test_seeds_differ(self):
        first, second = (next(iter(render_hands(1, 32, seed=seed)))[0].tobytes() for seed in (0, 1))
        assert first != second


class TestBadOptions:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"count": 0}, "count is 0"),
            ({"size": 4}, "size is 4"),
            ({"seed": -1}, "seed is -1"),
            ({"views": ("top",)}, "views: top given; known are palm, back, side"),
            ({"handedness": ()}, "handedness: nothing given"),
            ({"poses": "wild"}, "poses: wild given"),
            ({"colours": ("mauve", "red")}, "colours: mauve given"),
            ({"max_tilt": 90.0}, "max_tilt is 90.0"),
            ({"max_rotation": float("nan")}, "max_rotation is nan"),
            ({"fill": (0.9, 0.2)}, "fill is"),
            ({"samples": 9}, "samples is 9"),
            ({"hats": 1}, "unknown option 'hats'"),
        ],
    )
    def test_is_named(self, arguments, message):
        with pytest.raises(DataError, match=message.replace("(", r"\(")):
            render_hands(**{"count": 1, "size": 32, "seed": 0, **arguments})
