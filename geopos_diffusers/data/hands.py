"""Random rendered hands with everything that is known about them: attributes, keypoints, mask and depth."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from .captions import describe_hand, describe_hands, pick
from .hand_conditions import CONDITIONS
from .hand_defects import DEFECTS, DefectRequest, make_defect
from .hand_mesh import HandMesh, pose_hand
from .hand_model import FINGERS, FOREARM_LENGTH, SHAPE_BATCH, HandModel, HandShape
from .hand_options import HandOptions
from .hand_pairs import apart, cover, lay_over, sample_pair
from .hand_scenes import Drawing, Placement, Scene, changed_share, sample_scene
from .image_folder import DrawRange
from .options import check_choices, check_count, check_image
from .rendering import RayCaster, Surface, frame_camera, to_srgb
from .skin import name_tone
from .vectors import bounds

_SMALLEST_FRAME = (
    1.6  # a fist is not blown up to an open hand's size: the frame shows at least this much, in palm lengths
)
# Share of the hand's and arm's pixels that a defect must change. Flesh between two fingers is seen in few.
VISIBLE_CHANGE = dict.fromkeys(DEFECTS, 0.04) | {"fused": 0.02}
_TRIES, _TRIES_IN_SCENE = 150, 3
_PAIR_TRIES = 100
# Palm lengths from the wrist to the end of the arm, times the share of the image that the hand fills: enough to leave
# the image from its farthest corner.
_ARM_REACH = 4.0
_BEND = 1.0  # palm lengths


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
        arm = FOREARM_LENGTH if not self.options.placed else _ARM_REACH / self.options.sizes[0]
        self._model = HandModel(max(arm, FOREARM_LENGTH))
        self._caster = RayCaster()

    def draw(self, start: int, stop: int) -> Iterator[RenderedHand]:
        """The hands with indices start..stop-1, in order."""
        for batch in range(start // SHAPE_BATCH, -(-stop // SHAPE_BATCH)):
            indices = range(batch * SHAPE_BATCH, (batch + 1) * SHAPE_BATCH)
            generators = [np.random.default_rng(np.random.SeedSequence([self.seed, index])) for index in indices]
            shapes = self._model.sample_shapes(generators)
            for index, generator, shape in zip(indices, generators, shapes, strict=True):
                if start <= index < stop:
                    yield self._draw_one(index, generator, shape)

    def _draw_one(self, index: int, generator: np.random.Generator, shape: HandShape) -> RenderedHand:
        if 2 in self.options.hands:
            own = np.random.default_rng(np.random.SeedSequence([self.seed, index], spawn_key=(2,)))
            if self.options.hands[int(own.integers(len(self.options.hands)))] == 2:
                return self._draw_two(own, shape)
        scene = sample_scene(generator, self.options, self.size)
        if not self.options.defects:
            hand = self._render(scene, pose_hand(self._model, shape, scene.pose))
            return self._describe(hand, scene, generator)
        # A generator of its own: the hands that are well formed are the same whatever the share of defects.
        own = np.random.default_rng(np.random.SeedSequence([self.seed, index], spawn_key=(1,)))
        found = self._draw_defect(scene, shape, own) if own.random() < self.options.defects else None
        if found is None:
            hand = self._render(scene, pose_hand(self._model, shape, scene.pose))
            return self._describe(hand, scene, generator, {"well_formed": True, "defect": None, "defect_fingers": []})
        hand, scene, defect = found
        return self._describe(hand, scene, generator, defect)

    def _draw_defect(
        self, scene: Scene, shape: HandShape, generator: np.random.Generator
    ) -> tuple[Drawing, Scene, dict[str, Any]] | None:
        """A hand with a defect that can be seen; None if there was none after many tries.

        After every few tries the pose, view and the rest are drawn anew: in a fist hardly anything shows.
        """
        kind = pick(generator, self.options.visible_kinds)
        for attempt in range(_TRIES):
            if attempt and attempt % _TRIES_IN_SCENE == 0:
                scene = sample_scene(generator, self.options, self.size)
            request = DefectRequest(self._model, shape, scene.pose, scene.raised, scene.view, generator)
            defect = make_defect(kind, request)
            if defect is None:
                scene = sample_scene(generator, self.options, self.size)
                continue
            drawn = self._render(scene, defect.mesh)
            if changed_share(drawn, self._render(scene, defect.sound, drawn)) > VISIBLE_CHANGE[kind]:
                names = [FINGERS[finger] for finger in defect.fingers]
                return drawn, scene, {"well_formed": False, "defect": kind, "defect_fingers": names}
        return None

    def _draw_two(self, generator: np.random.Generator, shape: HandShape) -> RenderedHand:
        """Two hands of one person whose boxes lie apart, and of which the upper one's arm leaves the other hand free.

        Drawn again until that is so, each time a little smaller if the options let it; of what never fits, what covers
        least.
        """
        best: tuple[int, list[Drawing], list[Scene]] | None = None
        for attempt in range(_PAIR_TRIES):
            scenes = sample_pair(generator, self.options, self.size, attempt / _PAIR_TRIES)
            meshes = [pose_hand(self._model, shape, scene.pose) for scene in scenes]
            places = [self._place(scene, mesh) for scene, mesh in zip(scenes, meshes, strict=True)]
            if not apart(*(place.box / self.size for place in places)):
                continue
            drawn = [self._cast(*each) for each in zip(scenes, meshes, places, strict=True)]
            # The one that covers less of the other lies above.
            hidden = [cover(drawn[1 - lower], drawn[lower]) for lower in (0, 1)]
            order = [0, 1] if hidden[0] <= hidden[1] else [1, 0]
            if best is None or min(hidden) < best[0]:
                best = min(hidden), [drawn[each] for each in order], [scenes[each] for each in order]
            if best[0] == 0:
                break
        if best is None:
            raise DataError(f"two hands of scale {self.options.sizes} do not fit into one image; give smaller ones")
        return self._describe_two(best[1], best[2], generator)

    def _describe_two(
        self, drawings: list[Drawing], scenes: list[Scene], generator: np.random.Generator
    ) -> RenderedHand:
        pixels, mask, depth = lay_over(drawings[0].rendering, drawings[1].rendering, scenes[0].background)
        from_left = np.argsort([drawn.box[0] for drawn in drawings], kind="stable")
        hands = [self._hand(drawings[each], scenes[each]) for each in from_left]
        tone, background = name_tone(scenes[0].monk), scenes[0].background_name
        attributes = {
            "text": describe_hands(hands, tone, background, generator),
            "tone": tone,
            "background": background,
            "hands": hands,
            "boxes": [self._share_box(drawings[each].box) for each in from_left],
        }
        return RenderedHand(Image.fromarray(pixels), attributes, mask, depth)

    def _hand(self, drawn: Drawing, scene: Scene) -> dict[str, Any]:
        """What is known of one of several hands."""
        return {
            "fingers": int(sum(scene.raised)),
            "handedness": scene.handedness,
            "view": scene.view,
            "pose": list(scene.raised),
            "keypoints": [[round(float(x), 2), round(float(y), 2)] for x, y in drawn.keypoints],
        }

    def _share_box(self, box: np.ndarray) -> list[float]:
        """A box in pixels as shares of the image."""
        return [round(float(value), 4) for value in np.clip(box / self.size, 0.0, 1.0)]

    def _render(self, scene: Scene, mesh: HandMesh, like: Drawing | None = None) -> Drawing:
        """Draw a mesh in a scene, framed by itself or from the camera of another drawing."""
        return self._cast(scene, mesh, self._place(scene, mesh, like))

    def _place(self, scene: Scene, mesh: HandMesh, like: Drawing | None = None) -> Placement:
        """Put a mesh before the camera of a scene, or of another drawing."""
        options, model = self.options, self._model
        mirror = np.array([-1.0 if scene.handedness == "left" else 1.0, 1.0, 1.0])
        vertices, keypoints = mesh.vertices @ scene.turn.T, mesh.keypoints @ scene.turn.T
        if options.placed:
            self._flatten_arm(vertices, mesh, scene.turn)
        vertices, keypoints = vertices * mirror, keypoints * mirror
        if scene.handedness == "right":
            faces = mesh.faces
        else:
            faces = model.mirrored_faces if mesh.faces is model.faces else np.ascontiguousarray(mesh.faces[:, ::-1])
        on_hand = np.r_[: model.hand_vertices, model.size : len(vertices)]
        low, high = bounds(vertices[on_hand])
        centre = (high + low) / 2 if like is None else like.centre
        vertices, keypoints = vertices - centre, keypoints - centre
        hand = vertices[on_hand]
        if like is None:
            fill = scene.fill * min(1.0, (high - low)[:2].max() / _SMALLEST_FRAME)
            camera = frame_camera(hand, self.size, fill, scene.shift, 7.0, options.focal)
        else:
            camera = like.camera
        corners = np.concatenate(bounds(camera.project(hand)))
        return Placement(vertices, faces, camera, centre, camera.project(keypoints), corners)

    def _cast(self, scene: Scene, mesh: HandMesh, place: Placement) -> Drawing:
        """The picture of a mesh at its place."""
        skin = self._skin(scene.outer, scene.inner, mesh.skin)
        samples = self.options.samples
        rendering = self._caster.render(place.vertices, place.faces, place.camera, scene.light, skin, samples)
        colour = rendering.colour + (1.0 - rendering.mask[..., None]) * scene.background
        return Drawing(to_srgb(colour), rendering, place.camera, place.centre, place.keypoints, place.box)

    def _flatten_arm(self, vertices: np.ndarray, mesh: HandMesh, turn: np.ndarray) -> None:
        """Bend a turned hand's arm, in place, into the plane of the image: a long one could reach the camera.

        It bends within about `_BEND` of the wrist.
        """
        arm = slice(self._model.hand_vertices, self._model.size)
        along = -turn[:, 1]
        flat = along * (1.0, 1.0, 0.0)
        wrist = mesh.vertices[: self._model.hand_vertices, 1].min()
        distance = np.maximum(wrist - mesh.vertices[arm, 1], 0.0)
        bent = distance - _BEND * (1.0 - np.exp(-distance / _BEND))
        vertices[arm] += bent[:, None] * (flat / np.linalg.norm(flat) - along)

    def _describe(
        self, drawn: Drawing, scene: Scene, generator: np.random.Generator, defect: dict[str, Any] | None = None
    ) -> RenderedHand:
        attributes = {
            "fingers": int(sum(scene.raised)),
            "handedness": scene.handedness,
            "view": scene.view,
            "tone": name_tone(scene.monk),
            "background": scene.background_name,
            "pose": list(scene.raised),
            "keypoints": [[round(float(x), 2), round(float(y), 2)] for x, y in drawn.keypoints],
            "box": self._share_box(drawn.box) if self.options.placed else [round(float(v), 2) for v in drawn.box],
            **(defect or {}),
        }
        attributes = {"text": describe_hand(attributes, generator), **attributes}
        return RenderedHand(Image.fromarray(drawn.pixels), attributes, drawn.rendering.mask, drawn.rendering.depth)

    def _skin(self, outer: np.ndarray, inner: np.ndarray, of: np.ndarray) -> Surface:
        palm = self._model.palm_share[of, None]
        nail = self._model.nail_share[of, None]
        albedo = (1.0 - palm) * outer + palm * inner
        nail_colour = 0.45 * inner + 0.55 * np.array([0.80, 0.52, 0.46])
        albedo = (1.0 - 0.7 * nail) * albedo + 0.7 * nail * nail_colour
        shine = 0.05 + 0.2 * self._model.nail_share[of]
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


def make_draw_hands(size: int, seed: int, options: HandOptions, conditioning: tuple[str, ...] = ()) -> DrawRange:
    """The function that draws a range of indices, for `image_folder.write_image_folder`.

    Args:
        conditioning: names out of CONDITIONS; each is an attribute "NAME_file_name", a picture.
    """
    check_choices("conditioning", conditioning, tuple(CONDITIONS), least=0)
    renderer = HandRenderer(size, seed, options)

    def draw(start: int, stop: int) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
        for hand in renderer.draw(start, stop):
            pictures = {f"{name}_file_name": CONDITIONS[name](hand) for name in conditioning}
            yield hand.image, {**hand.attributes, **pictures}

    return draw
