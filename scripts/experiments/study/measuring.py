"""What is measured of an arm: losses on held-out images, and what its images show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from geopos_diffusers.finetuning.denoising_loss import spread_levels
from geopos_diffusers.images.metadata import METADATA, read_rows
from geopos_diffusers.images.opening import open_image
from geopos_diffusers.metrics.extractors import extractor
from geopos_diffusers.metrics.hand_attributes import attributes_of_row
from geopos_diffusers.metrics.hand_detection import HandDetector
from geopos_diffusers.metrics.hand_judge import load_hand_judge
from geopos_diffusers.metrics.kid import kid
from geopos_diffusers.metrics.vendi import vendi_score
from geopos_diffusers.pipelines.generation import generate_images
from geopos_diffusers.pipelines.loading import recommended_guidance

from ..frames.places import silhouette_parts
from .encoded_images import evenly_spread
from .padding import load_padded

BANDS = 4  # of noise levels
DRAWN_AT_ONCE = 64 * 64 * 16  # pixels


def band_losses(losses: Sequence[float], steps: int, seed: int = 0) -> dict[str, float]:
    """Mean losses by band of noise levels, "band 0" the least noisy, from those of `HeldOut`'s images.

    steps: of the noise schedule. seed: of the held-out noise.
    """
    levels = spread_levels(len(losses), steps, torch.Generator().manual_seed(seed))
    bands = (levels * BANDS // steps).numpy()
    values = np.asarray(losses)
    return {f"band {band}": float(values[bands == band].mean()) for band in range(BANDS) if (bands == band).any()}


class ImageMeasures:
    """Scores of images that were drawn from the captions of held-out ones.

    folder: of the held-out images, with "text" and, where they are known, "fingers" and "handedness".
    count: how many are drawn, evenly spread over the captions. steps: of denoising. padding: mode of the UNet's
    convolutions, where `draw` is given none; None for that of the model.
    """

    def __init__(self, folder: Path, count: int, steps: int, model: str, padding: str | None = None) -> None:
        rows = [row for _, row in read_rows(folder / METADATA)]
        chosen = evenly_spread(count, len(rows))
        self.rows = [rows[index] for index in chosen]
        self.asked = [attributes_of_row(row) for row in self.rows]
        self.steps, self.model, self.padding = steps, model, padding
        self.judge, self.network = load_hand_judge(), extractor("mobilenet")
        self.real = [open_image(folder / row["file_name"]) for row in rows]
        self.real_features = self.network.extract(image.convert("RGB") for image in self.real)
        self.asked_real = [self.real[index] for index in chosen]
        self.asked_features = self.real_features[chosen]

    def draw(
        self, trained: Path | None, size: tuple[int, int], count: int | None = None, padding: str | None = None
    ) -> list[Image.Image]:
        """Of the same noise for all arms.

        Args:
            trained: what a run saved. size: height and width in pixels. padding: for these images alone.
        """
        pipe = load_padded(self.model, padding or self.padding, trained)
        drawn = generate_images(
            pipe,
            [row["text"] for row in self.rows[:count]],
            steps=self.steps,
            guidance_scale=recommended_guidance(self.model),
            height=size[0],
            width=size[1],
            batch_size=max(1, DRAWN_AT_ONCE // (size[0] * size[1])),
        )
        return [one.image for one in drawn]

    def scores(self, images: Sequence[Image.Image]) -> dict[str, float]:
        """Means over the images. Scores that need what is not known of the captions are left out.

        found: share in which MediaPipe sees a hand; more_hands: in which it sees more than one. judge_found: in which
        the second judge sees a hand; one_hand: in which it does, and the silhouette has one part. parts: of the
        silhouette. well_formed: mean probability by the second judge, 0 without a hand. count_right: share with the
        asked number of fingers; handedness_right: with the asked hand, of those in which it sees one. kid: to the
        held-out images, in MobileNetV2's features. diversity: Vendi score as a share of that of the held-out images
        whose captions these are.
        """
        judged = self.judge.judge(images)
        present = np.array([one.present > 0.5 for one in judged])
        with HandDetector(max_hands=4) as detector:
            hands = np.array([len(detector.detect(image)) for image in images])
        parts = np.array([silhouette_parts(image) for image in images])
        features = self.network.extract(image.convert("RGB") for image in images)
        found = {
            "found": float((hands > 0).mean()),
            "more_hands": float((hands > 1).mean()),
            "one_hand": float((present & (parts == 1)).mean()),
            "parts": float(parts.mean()),
            "judge_found": float(present.mean()),
            "well_formed": float(np.mean([present[index] * one.well_formed for index, one in enumerate(judged)])),
            "diversity": vendi_score(features) / vendi_score(self.asked_features[: len(features)]),
        }
        distance = kid(features, self.real_features, seed=0).value
        if distance is not None:
            found["kid"] = float(distance)
        fingers = [
            one.fingers == asked.fingers and bool(seen)
            for one, asked, seen in zip(judged, self.asked, present, strict=True)
            if asked.fingers is not None
        ]
        sides = [
            (one.right_hand > 0.5) == (asked.handedness == "right")
            for one, asked, seen in zip(judged, self.asked, present, strict=True)
            if asked.handedness is not None and seen
        ]
        if fingers:
            found["count_right"] = float(np.mean(fingers))
        if sides:
            found["handedness_right"] = float(np.mean(sides))
        return found


def prefixed(scores: Mapping[str, Any], size: tuple[int, int], first: bool) -> dict[str, Any]:
    """Scores by name, with the size before the name of all but the first one's."""
    return dict(scores) if first else {f"{size[0]}x{size[1]} {name}": value for name, value in scores.items()}
