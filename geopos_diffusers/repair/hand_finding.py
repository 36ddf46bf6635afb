"""Finding the hands that are to be repaired: by the detector, or by the second judge where it finds none."""

from typing import TYPE_CHECKING

from PIL import Image

from ..boxes import Box
from ..images.hand_boxes import MARGINS, box_of_hand
from ..metrics.hand_judge import HandJudge

if TYPE_CHECKING:
    from ..metrics.hand_detection import HandDetector

DETECTOR, SECOND_JUDGE = "detector", "second judge"
# The judge looks for one hand that fills much of the image. Of 60 photographs of faces it gives 27% more than 0.5, and
# none more than 0.99; of 60 photographs of hands it gives all more than 0.99.
CERTAIN = 0.99


def find_hands(image: Image.Image, detector: "HandDetector", judge: HandJudge) -> tuple[list[Box], str]:
    """The boxes of an image's hands, from left to right, and who found them.

    A spoiled hand is often no hand to the detector. The second judge, which was trained on such hands too, is asked
    where it finds none, and gives one box at most.

    Args:
        image: RGB.
    """
    found = [hand.landmarks[:, :2] for hand in detector.detect(image)]
    by = DETECTOR
    if not found:
        (judgement,) = judge.judge([image])
        found, by = [judgement.keypoints] if judgement.present > CERTAIN else [], SECOND_JUDGE
    boxes = [box_of_hand(points, image.size, MARGINS["detected"]) for points in found]
    return sorted(box for box in boxes if box is not None), by
