"""Random rendered hands with everything that is known about them: attributes, keypoints, mask and depth."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from .captions import describe_hand, pick
from .hand_model import SHAPE_BATCH, HandModel, HandShape
from .hand_poses import POSES, sample_pose
from .image_folder import DrawRange
from .options import check_choices, check_count, check_degrees, check_drawing, check_image
from .rendering import RayCaster, Surface, frame_camera, to_srgb
from .skin import BACKGROUND_KINDS, BACKGROUNDS, name_tone, sample_background, sample_light, skin_albedo
from .vectors import bounds, rotations

VIEWS = ("palm", "back", "side")
HANDS = ("left", "right")
_SMALLEST_FRAME = (
    1.6  # a fist is not blown up to an open hand's size: the frame shows at least this much, in palm lengths
)


@dataclass(frozen=True)
class HandOptions:
    """Which hands are drawn. The defaults give the full variety.

    views: sides that are shown, of palm, back and side.
    handedness: of left and right.
    poses: "canonical" (the ways people count from 0 to 5) or "any" (any fingers raised, others bent in part).
    max_tilt: degrees by which the hand leans out of its view, 0 to 60.
    max_rotation: degrees by which the hand is turned within the image, 0 (fingers up) to 180.
    backgrounds: "plain", "gradient" or "both".
    colours: names of the background colours, two or more.
    fill: range of the hand's longer side as a share of the image's.
    focal: focal length in image sides of a camera that comes as near as `fill` asks for; None for one that stands at
        7 palm lengths and zooms.
    samples: rays per pixel side.
    """

    views: tuple[str, ...] = VIEWS
    handedness: tuple[str, ...] = HANDS
    poses: str = "any"
    max_tilt: float = 35.0
    max_rotation: float = 180.0
    backgrounds: str = "both"
    colours: tuple[str, ...] = tuple(BACKGROUNDS)
    fill: tuple[float, float] = (0.6, 0.92)
    focal: float | None = None
    samples: int = 2

    def __post_init__(self) -> None:
        check_choices("views", self.views, VIEWS)
        check_choices("handedness", self.handedness, HANDS)
        check_choices("poses", (self.poses,), POSES)
        check_choices("backgrounds", (self.backgrounds,), BACKGROUND_KINDS)
        check_choices("colours", self.colours, tuple(BACKGROUNDS), least=2)
        check_degrees("max_tilt", self.max_tilt, 60.0)
        check_degrees("max_rotation", self.max_rotation, 180.0)
        check_drawing(self.fill, self.samples, self.focal)


@dataclass(frozen=True)
class RenderedHand:
    """One image and what is known about it.

    `image` is RGB; `attributes` are those of metadata.jsonl without file_name; `mask` [S, S] the share of each
    pixel that the hand and arm cover; `depth` [S, S] the distance from the camera in palm lengths, 0 on the background.
    """

    image: Image.Image
    attributes: dict[str, Any]
    mask: np.ndarray
    depth: np.ndarray


class HandRenderer:
    """Draws hands by index: the image of an index depends on `seed`, `size` and `options` alone."""

    def __init__(self, size: int, seed: int, options: HandOptions | None = None) -> None:
        """Raises DataError for a size outside 16 to 2048 pixels or a negative seed."""
        check_image(size, seed)
        self.size, self.seed, self.options = size, seed, options or HandOptions()
        self._model = HandModel()
        self._caster = RayCaster()

    def draw(self, start: int, stop: int) -> Iterator[RenderedHand]:
        """The hands with indices start..stop-1, in order."""
        for batch in range(start // SHAPE_BATCH, -(-stop // SHAPE_BATCH)):
            indices = range(batch * SHAPE_BATCH, (batch + 1) * SHAPE_BATCH)
            generators = [np.random.default_rng(np.random.SeedSequence([self.seed, index])) for index in indices]
            shapes = self._model.sample_shapes(generators)
            for index, generator, shape in zip(indices, generators, shapes, strict=True):
                if start <= index < stop:
                    yield self._draw_one(generator, shape)

    def _draw_one(self, generator: np.random.Generator, shape: HandShape) -> RenderedHand:
        options, model = self.options, self._model
        raised, pose = sample_pose(generator, options.poses)
        view = pick(generator, options.views)
        handedness = pick(generator, options.handedness)
        vertices, keypoints = model.pose(shape, pose)
        turn = self._orientation(generator, view)
        mirror = np.array([-1.0 if handedness == "left" else 1.0, 1.0, 1.0])
        vertices, keypoints = (vertices @ turn.T) * mirror, (keypoints @ turn.T) * mirror
        faces = model.mirrored_faces if handedness == "left" else model.faces
        low, high = bounds(vertices[: model.hand_vertices])
        centre = (high + low) / 2
        vertices, keypoints = vertices - centre, keypoints - centre
        hand = vertices[: model.hand_vertices]
        extent = (high - low)[:2].max()
        fill = generator.uniform(*options.fill) * min(1.0, extent / _SMALLEST_FRAME)
        shift = tuple(generator.uniform(-0.5, 0.5, 2))
        camera = frame_camera(hand, self.size, fill, shift, 7.0, options.focal)
        monk = generator.uniform(1.0, 10.0)
        outer, inner = skin_albedo(monk, generator.uniform(-1.0, 1.0))
        light = sample_light(generator)
        name, background = sample_background(
            generator, self.size, options.backgrounds, options.colours, inner if view == "palm" else outer
        )
        rendering = self._caster.render(vertices, faces, camera, light, self._skin(outer, inner), options.samples)
        colour = rendering.colour + (1.0 - rendering.mask[..., None]) * background
        pixels = camera.project(keypoints)
        corners = np.concatenate(bounds(camera.project(hand)))
        attributes = {
            "fingers": int(sum(raised)),
            "handedness": handedness,
            "view": view,
            "tone": name_tone(monk),
            "background": name,
            "pose": list(raised),
            "keypoints": [[round(float(x), 2), round(float(y), 2)] for x, y in pixels],
            "box": [round(float(value), 2) for value in corners],
        }
        attributes = {"text": describe_hand(attributes, generator), **attributes}
        return RenderedHand(Image.fromarray(to_srgb(colour)), attributes, rendering.mask, rendering.depth)

    def _orientation(self, generator: np.random.Generator, view: str) -> np.ndarray:
        """Rotation [3, 3] of the right hand into the camera's frame, fingers up before tilt and rotation."""
        facing = {"back": 0.0, "palm": 180.0, "side": 90.0 if generator.random() < 0.5 else -90.0}[view]
        angle = generator.uniform(0.0, 2.0 * np.pi)
        tilt = generator.uniform(0.0, self.options.max_tilt)
        turn = generator.uniform(-self.options.max_rotation, self.options.max_rotation)
        axes = np.array([[0.0, 0.0, 1.0], [np.cos(angle), np.sin(angle), 0.0], [0.0, 1.0, 0.0]])
        first, second, third = rotations(axes, np.array([turn, tilt, facing]))
        return first @ second @ third

    def _skin(self, outer: np.ndarray, inner: np.ndarray) -> Surface:
        palm = self._model.palm_share[:, None]
        nail = self._model.nail_share[:, None]
        albedo = (1.0 - palm) * outer + palm * inner
        nail_colour = 0.45 * inner + 0.55 * np.array([0.80, 0.52, 0.46])
        albedo = (1.0 - 0.7 * nail) * albedo + 0.7 * nail * nail_colour
        shine = 0.05 + 0.2 * self._model.nail_share
        return Surface(albedo=albedo, shine=shine, scatter=np.array([0.5, 0.25, 0.15]))


def render_hands(
    count: int, size: int, seed: int, start: int = 0, **options: Any
) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Yield `count` hands as (RGB image of `size` pixels, attributes), from index `start` on; nothing touches the disk.

    The same (size, seed, options) give the same hand at an index, here and in `geopos data hands`. For masks and
    depth use `HandRenderer.draw`.

    Args:
        options: the fields of `HandOptions`.

    Raises:
        DataError: a bad count, size, seed or option.
    """
    unknown = sorted(set(options) - {field.name for field in fields(HandOptions)})
    if unknown:
        raise DataError(f"unknown option {unknown[0]!r}; known are {', '.join(f.name for f in fields(HandOptions))}")
    check_count(count, start)
    renderer = HandRenderer(size, seed, HandOptions(**options))
    return ((hand.image, hand.attributes) for hand in renderer.draw(start, start + count))


def make_draw_hands(size: int, seed: int, options: HandOptions) -> DrawRange:
    """The function that draws a range of indices, for `image_folder.write_image_folder`."""
    renderer = HandRenderer(size, seed, options)
    return lambda start, stop: ((hand.image, hand.attributes) for hand in renderer.draw(start, stop))
