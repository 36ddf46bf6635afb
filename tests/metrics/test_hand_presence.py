import io
import json
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.errors import MissingDependencyError
from geopos_diffusers.metrics.hand_detection import HandDetector, read_landmark_network, surround
from geopos_diffusers.metrics.hand_presence import HandPresence, region_of_interest


@pytest.fixture(scope="module")
def network(detector):
    pytest.importorskip("ai_edge_litert", reason="the presence score needs the extra geopos-diffusers[eval]")
    return HandPresence(read_landmark_network(detector.task_path.read_bytes()))


@pytest.fixture(scope="module")
def found(rendered_hands, detector):
    """(frame, landmarks in its pixels, detection) of each rendered hand that was found."""
    rows = [json.loads(line) for line in (rendered_hands / "metadata.jsonl").read_text().splitlines()]
    hands = []
    for row in rows:
        image = Image.open(rendered_hands / row["file_name"])
        frame, scale, offset = surround(image)
        hands += [(frame, hand.landmarks[:, :2] * scale + offset, hand) for hand in detector.detect(image)[:1]]
    assert len(hands) >= 10
    return hands


class TestScore:
    def test_is_high_where_mediapipe_found_a_hand(self, found):
        scores = np.array([hand.presence for *_, hand in found])
        assert ((scores > 0.5) & (scores <= 1)).all()
        assert np.median(scores) > 0.9

    def test_the_network_sees_the_landmarks_that_mediapipe_found(self, found, network):
        distances = [
            np.linalg.norm(network.look(frame, landmarks)[1] - landmarks, axis=1).mean()
            / np.linalg.norm(np.ptp(landmarks, axis=0))
            for frame, landmarks, _ in found
        ]
        assert np.median(distances) < 0.04

    def test_is_low_beside_the_hand(self, found, network):
        for frame, landmarks, hand in found:
            blank = np.broadcast_to(frame[:1, :1], frame.shape)
            assert network.look(np.ascontiguousarray(blank), landmarks)[0] < 0.2 < hand.presence

    def test_falls_when_the_hand_is_cut_into_pieces(self, found, network):
        generator = np.random.default_rng(0)
        scores = []
        for frame, landmarks, hand in found:
            blocks = frame.reshape(8, 48, 8, 48, 3).swapaxes(1, 2).reshape(64, 48, 48, 3)
            scrambled = generator.permutation(blocks).reshape(8, 8, 48, 48, 3).swapaxes(1, 2).reshape(frame.shape)
            scores.append((network.look(np.ascontiguousarray(scrambled), landmarks)[0], hand.presence))
        cut, whole = np.array(scores).T
        assert (cut < whole).all()
        assert np.median(cut) < 0.3

    def test_pixels_beyond_the_frame_are_its_edge(self, found, network):
        """The square of a hand may reach over the border; the same frame with a wider border gives the same score."""
        frame, landmarks, _ = found[0]
        wider = np.pad(frame, ((200, 200), (200, 200), (0, 0)), mode="edge")
        assert network.look(wider, landmarks + 200)[0] == pytest.approx(network.look(frame, landmarks)[0], abs=0.02)


class TestWithout:
    def test_it_can_be_switched_off(self, rendered_hands):
        with HandDetector(presence=False) as detector:
            hands = [
                hand for path in sorted(rendered_hands.glob("*.png"))[:3] for hand in detector.detect(Image.open(path))
            ]
        assert [hand.presence for hand in hands] == [None] * len(hands)
        assert hands

    def test_without_the_package_it_is_none(self, rendered_hands, detector, monkeypatch):
        monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        path = sorted(rendered_hands.glob("*.png"))[0]
        with HandDetector() as lacking:
            assert [hand.presence for hand in lacking.detect(Image.open(path))] == [None]
        with pytest.raises(MissingDependencyError, match=r"needs the package ai_edge_litert: pip install"):
            HandPresence(b"")

    def test_the_network_is_the_bundle_s_second_file(self, detector):
        content = detector.task_path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            assert read_landmark_network(content) == bundle.read("hand_landmarks_detector.tflite")


class TestRegion:
    POINTS = np.random.default_rng(3).uniform(0, 100, (21, 2))

    def test_an_upright_hand(self):
        points = np.full((21, 2), 999.0)  # the fingers' outer joints do not count
        points[0] = (0, 0)
        points[[1, 2, 3]] = [(-10, -10), (-20, -20), (-30, -30)]
        points[[5, 9, 13, 17]] = [(-10, -50), (0, -50), (10, -50), (20, -50)]
        points[[6, 10, 14, 18]] = [(-10, -60), (0, -60), (10, -60), (20, -60)]
        # A box of 50 x 60 around (-5, -30): twice its longer side, a tenth of its height further up.
        corner, across, down = region_of_interest(points)
        assert np.allclose([corner, across, down], [(-65, -96), (120, 0), (0, 120)])

    @pytest.mark.parametrize("degrees", [0, 37, 90, 180])
    def test_turns_moves_and_scales_with_the_hand(self, degrees):
        turn = np.exp(1j * np.radians(degrees))
        matrix = 3 * np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])
        corner, across, down = region_of_interest(self.POINTS)
        moved = region_of_interest(self.POINTS @ matrix + (5, -8))
        assert np.allclose(moved, [corner @ matrix + (5, -8), across @ matrix, down @ matrix])
