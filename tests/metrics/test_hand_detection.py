import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from geopos_diffusers.errors import DataError, MissingDependencyError
from geopos_diffusers.metrics import hand_detection
from geopos_diffusers.metrics.hand_detection import (
    BUNDLE_FILE,
    HandDetector,
    hand_landmarker_task,
    is_known_bundle,
    share_of_smaller_box,
    surround,
)
from geopos_diffusers.metrics.quiet_library import quiet_library


@pytest.fixture(scope="module")
def hands(rendered_hands):
    """(picture, row of metadata.jsonl) of each rendered hand."""
    rows = [json.loads(line) for line in (rendered_hands / "metadata.jsonl").read_text().splitlines()]
    return [(Image.open(rendered_hands / row["file_name"]).convert("RGB"), row) for row in rows]


@pytest.fixture(scope="module")
def detections(hands, detector):
    """The most prominent hand of each picture, or None."""
    return [first(detector.detect(image)) for image, _ in hands]


def first(found):
    return next(iter(found), None)


class TestDetect:
    def test_finds_rendered_hands(self, detections):
        assert sum(detection is not None for detection in detections) >= 10
        assert all(0.5 <= detection.score <= 1 for detection in detections if detection)

    def test_landmarks_are_pixels_of_the_given_picture(self, hands, detections):
        errors = [
            np.linalg.norm(detection.landmarks[:, :2] - np.array(row["keypoints"]), axis=1).mean()
            for (_, row), detection in zip(hands, detections, strict=True)
            if detection
        ]
        assert detections[0].landmarks.shape == (21, 3)
        assert np.median(errors) < 0.08 * 64

    def test_world_landmarks_are_a_hand_in_metres(self, detections):
        lengths = [
            np.linalg.norm(detection.world_landmarks[9] - detection.world_landmarks[0])
            for detection in detections
            if detection
        ]
        assert all(0.05 < length < 0.12 for length in lengths), lengths  # wrist to middle knuckle
        # The axes are the image's: what is right of and below the wrist in one is so in the other.
        agreement = [
            np.corrcoef(detection.landmarks[:, axis], detection.world_landmarks[:, axis])[0, 1]
            for detection in detections
            for axis in (0, 1)
            if detection
        ]
        assert np.median(agreement) > 0.9

    def test_landmarks_scale_with_the_picture(self, hands, detections, detector):
        index = next(index for index, detection in enumerate(detections) if detection)
        image = hands[index][0]
        larger = detector.detect(image.resize((192, 192), Image.Resampling.BILINEAR))[0]
        difference = larger.landmarks[:, :2] / 3 - detections[index].landmarks[:, :2]
        assert np.abs(difference).mean() < 2

    def test_handedness_is_that_of_the_person(self, hands, detections, detector):
        pairs = [
            (row["handedness"], detection.handedness, first(detector.detect(ImageOps.mirror(image))))
            for (image, row), detection in zip(hands, detections, strict=True)
            if detection
        ]
        right = sum(true == found for true, found, _ in pairs)
        turned_over = sum(mirrored is not None and mirrored.handedness != found for _, found, mirrored in pairs)
        assert right >= 0.7 * len(pairs)
        assert turned_over >= 0.7 * len(pairs)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
    def test_other_modes(self, hands, detections, detector, mode):
        index = int(np.argmax([detection.score if detection else 0 for detection in detections]))
        assert len(detector.detect(hands[index][0].convert(mode))) == 1

    def test_no_hand(self, detector):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        assert detector.detect(Image.new("RGB", (64, 64), (90, 120, 200))) == []
        assert detector.detect(Image.fromarray(noise)) == []
        assert detector.detect(Image.new("RGB", (1, 40))) == []

    def test_landmarks_of_a_huge_picture_are_its_pixels(self, hands, detections, detector):
        index = next(index for index, detection in enumerate(detections) if detection)
        huge = detector.detect(hands[index][0].resize((4096, 4096), Image.Resampling.BILINEAR))[0]
        assert np.abs(huge.landmarks[:, :2] / 64 - detections[index].landmarks[:, :2]).mean() < 2

    def test_library_is_quiet(self, hands, capfd):
        with HandDetector() as fresh:
            for image, _ in hands[:3]:
                fresh.detect(image)
        assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def upright_hands():
    """Rendered hands of 96 pixels with their masks."""
    pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
    from geopos_diffusers.data.hands import HandOptions, HandRenderer

    options = HandOptions(
        views=("palm", "back"), poses="canonical", max_tilt=12, max_rotation=15, backgrounds="plain", fill=(0.7, 0.88)
    )
    return list(HandRenderer(96, 11, options).draw(0, 7))


def side_by_side(left, right, gap):
    """Both hands in one picture, `gap` widths of the narrower one apart (below 0: overlapping), and the key points."""
    first, second = (np.array(hand.attributes["keypoints"]) for hand in (left, right))
    narrower = min(np.ptp(first[:, 0]), np.ptp(second[:, 0]))
    shift = int(first[:, 0].max() - second[:, 0].min() + gap * narrower)
    picture = Image.new("RGB", (96 + shift, 96), (120, 150, 180))
    for hand, x in ((left, 0), (right, shift)):
        picture.paste(hand.image, (x, 0), Image.fromarray((hand.mask * 255).round().astype(np.uint8)))
    return picture, (first, second + np.array([shift, 0]))


class TestSeveralHands:
    @pytest.mark.parametrize("gap", [0.2, 0.0, -0.2], ids=["apart", "touching", "overlapping"])
    def test_two_hands_stay_two(self, upright_hands, detector, gap):
        found_both = 0
        for index in (0, 2, 3, 5):
            picture, keypoints = side_by_side(upright_hands[index], upright_hands[index + 1], gap)
            found = detector.detect(picture)
            assert 1 <= len(found) <= 2
            owners = {
                int(np.argmin([np.linalg.norm(hand.landmarks[:, :2] - points, axis=1).mean() for points in keypoints]))
                for hand in found
            }
            assert len(owners) == len(found)
            found_both += len(owners) == 2
        assert found_both >= 3

    def test_at_most_so_many(self, upright_hands, detector):
        picture, _ = side_by_side(upright_hands[0], upright_hands[1], 0.2)
        with HandDetector(max_hands=1, presence=False) as single:
            (only,) = single.detect(picture)
        assert np.array_equal(only.landmarks, detector.detect(picture)[0].landmarks)
        with pytest.raises(DataError, match="is 0; give 1 or more"):
            HandDetector(max_hands=0)

    @pytest.mark.parametrize(("size", "seed", "index", "poses"), [(64, 21, 67, "any"), (256, 23, 187, "canonical")])
    def test_a_hand_that_mediapipe_reports_twice_is_one(self, detector, monkeypatch, size, seed, index, poses):
        pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
        from geopos_diffusers.data.hands import render_hands

        ((picture, _),) = render_hands(1, size, seed, start=index, poses=poses)
        found = detector.detect(picture)
        monkeypatch.setattr(hand_detection, "SAME_HAND", 2.0)  # nothing is merged
        reported = detector.detect(picture)
        assert (len(reported), len(found)) == (2, 1)
        assert np.array_equal(found[0].landmarks, reported[0].landmarks)

    def test_share_of_the_smaller_box(self):
        square = np.array([[0, 0], [4, 4]])
        assert share_of_smaller_box(square, square) == 1
        assert share_of_smaller_box(square, np.array([[1, 1], [3, 3]])) == 1
        assert share_of_smaller_box(square, np.array([[3, 2], [5, 4]])) == 0.5
        assert share_of_smaller_box(square, np.array([[5, 5], [9, 9]])) == 0
        assert share_of_smaller_box(square, np.array([[2, 2], [2, 2]])) == 0


class TestSurround:
    def test_small_pictures_are_enlarged_and_bordered(self):
        pixels, scale, offset = surround(Image.new("RGB", (64, 32)))
        assert scale == 4
        assert pixels.shape == (128 + 2 * 32, 256 + 2 * 64, 3)
        assert offset.tolist() == [64, 32]

    def test_huge_pictures_are_reduced(self):
        pixels, scale, offset = surround(Image.new("RGB", (8192, 4096)))
        assert scale == 0.25
        assert pixels.shape == (1024 + 2 * 256, 2048 + 2 * 512, 3)
        assert offset.tolist() == [512, 256]

    def test_large_pictures_only_get_a_border(self):
        noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        pixels, scale, offset = surround(Image.fromarray(noise))
        assert (scale, offset.tolist()) == (1.0, [100, 75])
        assert (pixels == np.pad(noise, ((75, 75), (100, 100), (0, 0)), mode="edge")).all()

    @pytest.mark.parametrize(("size", "border"), [((300, 400), 0.0), ((1, 300), 0.25), ((256, 1), 0.3)])
    def test_borders_of_no_width(self, size, border):
        noise = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        pixels, scale, (across, down) = surround(Image.fromarray(noise), border)
        width = ((int(down),) * 2, (int(across),) * 2, (0, 0))
        assert scale == 1.0
        assert (pixels == np.pad(noise, width, mode="edge")).all()


class TestModelFile:
    def test_missing_task(self, tmp_path):
        with pytest.raises(DataError, match="is not a file"):
            HandDetector(tmp_path / "none.task")

    def test_foreign_task(self, tmp_path, capfd):
        pytest.importorskip("mediapipe")
        (tmp_path / "bad.task").write_bytes(b"no bundle")
        with pytest.raises(DataError, match=r"cannot be read as a HandLandmarker \.task bundle"):
            HandDetector(tmp_path / "bad.task")

    def test_cached_bundle_is_used_without_a_registry(self, detector, no_registry):
        no_registry.mkdir()
        shutil.copy(detector.task_path, no_registry / BUNDLE_FILE)
        assert hand_landmarker_task() == no_registry / BUNDLE_FILE

    def test_damaged_bundle_is_not_used(self, detector, no_registry):
        no_registry.mkdir()
        content = bytearray(detector.task_path.read_bytes())
        content[len(content) // 2] ^= 1
        (no_registry / BUNDLE_FILE).write_bytes(content)
        assert not is_known_bundle(no_registry / BUNDLE_FILE)
        with pytest.raises(MissingDependencyError, match="is damaged; the hand detector's model could not be fetched"):
            hand_landmarker_task()


class TestQuiet:
    def test_only_the_library_is_silenced(self, capfd):
        with quiet_library():
            os.write(2, b"W0000 00:00:1795344317.236279 4213 calculator.cc:121] a warning\n")
            os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n")
            os.write(2, b"E0000 00:00:1795344317.236279 4213 calculator.cc:121] an error\n")
            os.write(2, b"our own message\n")
        lines = capfd.readouterr().err.splitlines()
        assert [line.split()[-1] for line in lines] == ["error", "message"]

    def test_restored_after_an_error(self, capfd):
        with pytest.raises(ValueError, match="within"), quiet_library():
            raise ValueError("within")
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "after\n"
