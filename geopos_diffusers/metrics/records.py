"""What is known of scored images: the hands that were found, the second judge's opinion, features."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .finger_count import count_fingers
from .hand_attributes import HandAttributes
from .hand_detection import HandDetection
from .hand_judge import Judgement
from .image_folder import FolderImage, ImageFolder


@dataclass(frozen=True)
class ScoredImage:
    """One image after scoring.

    size: width and height in pixels. sha256: of the file's bytes, in hexadecimal.
    hands: all that the detector found, the most prominent first.
    judgement: the second judge's opinion of the most prominent hand; None where it was not asked.
    """

    source: FolderImage
    size: tuple[int, int]
    sha256: str
    hands: tuple[HandDetection, ...]
    judgement: Judgement | None = None

    @property
    def detection(self) -> HandDetection | None:
        """The most prominent hand, or None where no hand was found."""
        return self.hands[0] if self.hands else None

    @cached_property
    def counted(self) -> int | None:
        """Raised fingers of the most prominent hand, 0 to 5; None where no hand was found."""
        return count_fingers(self.hands[0].landmarks) if self.hands else None


@dataclass(frozen=True)
class ScoredFolder:
    """A folder after scoring.

    name: of the folder in tables. skipped: name and reason of each image that cannot be read.
    features: by extractor, [N, D] float32 of the whole images. crop_features: by extractor, [K, D] float32 of the crops
    of the most prominent hands. crop_index: [K], which of the N images they are of.
    """

    name: str
    folder: ImageFolder
    entries: tuple[ScoredImage, ...]
    skipped: tuple[tuple[str, str], ...]
    features: dict[str, np.ndarray] = field(default_factory=dict)
    crop_features: dict[str, np.ndarray] = field(default_factory=dict)
    crop_index: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def attributes(self) -> list[HandAttributes]:
        return [scored.source.attributes for scored in self.entries]
