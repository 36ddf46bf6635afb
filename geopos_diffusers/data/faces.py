"""Random rendered faces with everything that is known about them. The heads have no hair: anny's body has none."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from .captions import describe_face, pick
from .expressions import EXPRESSIONS, sample_actions
from .head_model import SHAPE_BATCH, HeadModel, HeadRequest
from .image_folder import DrawRange
from .options import check_choices, check_count, check_degrees, check_drawing, check_image
from .rendering import RayCaster, Surface, frame_camera, from_srgb, to_srgb
from .skin import BACKGROUND_KINDS, BACKGROUNDS, name_tone, sample_background, sample_light, skin_albedo
from .vectors import bounds, rotations

GENDERS = ("female", "male")
AGES = {"child": (0.3, 0.48), "young": (0.56, 0.7), "middle-aged": (0.74, 0.86), "old": (0.9, 1.0)}
_IRISES = ((92, 58, 34), (60, 38, 26), (96, 110, 70), (86, 120, 150))  # sRGB: browns first, which suit every tone


@dataclass(frozen=True)
class FaceOptions:
    """Which faces are drawn. The defaults give the full variety.

    expressions: of EXPRESSIONS.
    ages: of child, young, middle-aged, old.
    max_yaw, max_pitch, max_roll: degrees by which the head is turned aside, up or down, and leant, 0 to 90, 45 and 45.
    backgrounds: "plain", "gradient" or "both"; colours: names of the background colours, two or more.
    fill: range of the head's longer side as a share of the image's.
    focal: focal length in image sides of a camera that comes as near as `fill` asks for; None for one that stands at
        12 decimetres and zooms.
    samples: rays per pixel side.
    """

    expressions: tuple[str, ...] = tuple(EXPRESSIONS)
    ages: tuple[str, ...] = tuple(AGES)
    max_yaw: float = 50.0
    max_pitch: float = 20.0
    max_roll: float = 12.0
    backgrounds: str = "both"
    colours: tuple[str, ...] = tuple(BACKGROUNDS)
    fill: tuple[float, float] = (0.75, 0.95)
    focal: float | None = None
    samples: int = 2

    def __post_init__(self) -> None:
        check_choices("expressions", self.expressions, tuple(EXPRESSIONS))
        check_choices("ages", self.ages, tuple(AGES))
        check_choices("backgrounds", (self.backgrounds,), BACKGROUND_KINDS)
        check_choices("colours", self.colours, tuple(BACKGROUNDS), least=2)
        check_degrees("max_yaw", self.max_yaw, 90.0)
        check_degrees("max_pitch", self.max_pitch, 45.0)
        check_degrees("max_roll", self.max_roll, 45.0)
        check_drawing(self.fill, self.samples, self.focal)


@dataclass(frozen=True)
class RenderedFace:
    """One image and what is known about it.

    `image` is RGB; `attributes` are those of metadata.jsonl without file_name; `mask` [S, S] the share of each
    pixel that the head and neck cover; `depth` [S, S] the distance from the camera in decimetres, 0 on the background.
    """

    image: Image.Image
    attributes: dict[str, Any]
    mask: np.ndarray
    depth: np.ndarray


class FaceRenderer:
    """Draws faces by index: the image of an index depends on `seed`, `size` and `options` alone."""

    def __init__(self, size: int, seed: int, options: FaceOptions | None = None) -> None:
        """Raises DataError for a size outside 16 to 2048 pixels or a negative seed."""
        check_image(size, seed)
        self.size, self.seed, self.options = size, seed, options or FaceOptions()
        self._model = HeadModel()
        self._caster = RayCaster()

    def draw(self, start: int, stop: int) -> Iterator[RenderedFace]:
        """The faces with indices start..stop-1, in order."""
        for batch in range(start // SHAPE_BATCH, -(-stop // SHAPE_BATCH)):
            indices = range(batch * SHAPE_BATCH, (batch + 1) * SHAPE_BATCH)
            generators = [np.random.default_rng(np.random.SeedSequence([self.seed, index])) for index in indices]
            people = [self._sample_person(generator) for generator in generators]
            heads = self._model.sample_heads([request for _, request in people])
            for index, generator, (person, _), head in zip(indices, generators, people, heads, strict=True):
                if start <= index < stop:
                    yield self._draw_one(generator, person, head)

    def _sample_person(self, generator: np.random.Generator) -> tuple[dict[str, Any], HeadRequest]:
        age = pick(generator, self.options.ages)
        gender = pick(generator, GENDERS)
        expression = pick(generator, self.options.expressions)
        # anny's gender runs from 0 (male) to 1 (female); the middle is left out, where the word would be a guess.
        phenotype = {
            "age": generator.uniform(*AGES[age]),
            "gender": generator.uniform(0.8, 1.0) if gender == "female" else generator.uniform(0.0, 0.2),
            "muscle": generator.uniform(0.2, 0.8),
            "weight": generator.uniform(0.15, 0.85),
            "height": generator.uniform(0.3, 0.7),
            "proportions": generator.uniform(0.2, 0.9),
        }
        person = {"expression": expression, "age": age, "gender": gender}
        return person, HeadRequest(phenotype, sample_actions(generator, expression))

    def _draw_one(self, generator: np.random.Generator, person: dict[str, Any], head: np.ndarray) -> RenderedFace:
        options, model = self.options, self._model
        yaw = generator.uniform(-options.max_yaw, options.max_yaw)
        pitch = generator.uniform(-options.max_pitch, options.max_pitch)
        roll = generator.uniform(-options.max_roll, options.max_roll)
        turns = rotations(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([roll, -pitch, yaw]))
        vertices = head @ (turns[0] @ turns[1] @ turns[2]).T
        low, high = bounds(vertices[: model.head_vertices])
        vertices = vertices - (high + low) / 2
        shown = vertices[: model.head_vertices]
        fill = generator.uniform(*options.fill)
        shift = tuple(generator.uniform(-0.4, 0.4, 2))
        camera = frame_camera(shown, self.size, fill, shift, 12.0, options.focal)
        monk = generator.uniform(1.0, 10.0)
        outer, inner = skin_albedo(monk, generator.uniform(-1.0, 1.0))
        iris = _IRISES[int(generator.integers(len(_IRISES) if monk < 5.0 else 2))]
        name, background = sample_background(generator, self.size, options.backgrounds, options.colours, outer)
        surface = self._surface(outer, inner, from_srgb(np.array(iris)), person["gender"])
        rendering = self._caster.render(
            vertices, model.faces, camera, sample_light(generator), surface, options.samples
        )
        colour = rendering.colour + (1.0 - rendering.mask[..., None]) * background
        corners = np.concatenate(bounds(camera.project(shown)))
        attributes = {
            **person,
            "yaw": round(float(yaw), 1),
            "pitch": round(float(pitch), 1),
            "tone": name_tone(monk),
            "background": name,
            "box": [round(float(value), 2) for value in corners],
        }
        attributes = {"text": describe_face(attributes, generator), **attributes}
        return RenderedFace(Image.fromarray(to_srgb(colour)), attributes, rendering.mask, rendering.depth)

    def _surface(self, outer: np.ndarray, inner: np.ndarray, iris: np.ndarray, gender: str) -> Surface:
        model = self._model
        lip = 0.5 * inner + 0.5 * outer * np.array([0.95, 0.55, 0.52])
        hair = np.minimum(0.25 * outer, 0.06)
        albedo = np.tile(outer, (len(model.lip_share), 1))
        for share, colour in (
            (model.lip_share * (0.9 if gender == "female" else 0.6), lip),
            (model.brow_share * 0.85, hair),
            (model.mouth_share, np.array([0.10, 0.02, 0.02])),
        ):
            albedo += share[:, None] * (colour - albedo)
        eyes = np.tile(np.array([0.72, 0.70, 0.68]), (len(model.eye_angles), 1))
        eyes[model.eye_angles < 30.0] = iris
        eyes[model.eye_angles < 13.0] = 0.01
        albedo[model.eye_vertices] = np.tile(eyes, (2, 1))
        shine = np.full(len(albedo), 0.05)
        shine[model.eye_vertices] = 0.35
        return Surface(albedo=albedo, shine=shine, scatter=np.array([0.5, 0.25, 0.15]))


def render_faces(
    count: int, size: int, seed: int, start: int = 0, **options: Any
) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Yield `count` faces as (RGB image of `size` pixels, attributes), from index `start` on; nothing touches the disk.

    The same (size, seed, options) give the same face at an index, here and in `geopos data faces`. For masks and
    depth use `FaceRenderer.draw`.

    Args:
        options: the fields of `FaceOptions`.

    Raises:
        DataError: a bad count, size, seed or option.
    """
    known = [field.name for field in fields(FaceOptions)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise DataError(f"unknown option {unknown[0]!r}; known are {', '.join(known)}")
    check_count(count, start)
    renderer = FaceRenderer(size, seed, FaceOptions(**options))
    return ((face.image, face.attributes) for face in renderer.draw(start, start + count))


def make_draw_faces(size: int, seed: int, options: FaceOptions) -> DrawRange:
    """The function that draws a range of indices, for `image_folder.write_image_folder`."""
    renderer = FaceRenderer(size, seed, options)
    return lambda start, stop: ((face.image, face.attributes) for face in renderer.draw(start, stop))
