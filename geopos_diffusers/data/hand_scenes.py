"""What is drawn at random around a hand: its pose and place, the camera's view, skin, light and background."""

from dataclasses import dataclass

import numpy as np

from .captions import pick
from .hand_joints import HandPose
from .hand_options import HandOptions
from .hand_poses import sample_pose
from .rendering import Camera, Light, Rendering
from .skin import sample_background, sample_light, skin_albedo
from .vectors import rotations

_VISIBLE_STEP = 16  # of 255: a pixel that differs by less is not seen to differ


@dataclass(frozen=True)
class Scene:
    """All of an image but the hand's shape. `turn` [3, 3] brings the right hand into the camera's frame."""

    raised: tuple[bool, ...]
    pose: HandPose
    view: str
    handedness: str
    turn: np.ndarray
    fill: float
    shift: tuple[float, float]
    monk: float
    outer: np.ndarray
    inner: np.ndarray
    light: Light
    background_name: str
    background: np.ndarray


@dataclass(frozen=True)
class Placement:
    """A mesh before the camera: `vertices` [V, 3], `faces` [F, 3], and the rest as of `Drawing`."""

    vertices: np.ndarray
    faces: np.ndarray
    camera: Camera
    centre: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """A picture `pixels` [S, S, 3] of bytes with its `keypoints` [21, 2] and `box` [4] in pixels.

    `centre` [3] is the point of the hand's frame at the middle of the camera's.
    """

    pixels: np.ndarray
    rendering: Rendering
    camera: Camera
    centre: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray


def sample_scene(generator: np.random.Generator, options: HandOptions, size: int) -> Scene:
    """A random scene for an image of `size` pixels. The order of the draws is part of every seed's images."""
    raised, pose = sample_pose(generator, options.poses)
    view = pick(generator, options.views)
    handedness = pick(generator, options.handedness)
    turn = _orientation(generator, view, options)
    fill = generator.uniform(*options.sizes)
    x, y = generator.uniform(-0.5, 0.5, 2) * (1.0 if options.placement == "centre" else 2.0)
    monk = generator.uniform(1.0, 10.0)
    outer, inner = skin_albedo(monk, generator.uniform(-1.0, 1.0))
    light = sample_light(generator)
    name, background = sample_background(
        generator, size, options.backgrounds, options.colours, inner if view == "palm" else outer
    )
    return Scene(
        raised, pose, view, handedness, turn, fill, (float(x), float(y)), monk, outer, inner, light, name, background
    )


def _orientation(generator: np.random.Generator, view: str, options: HandOptions) -> np.ndarray:
    """Rotation [3, 3] of the right hand into the camera's frame, fingers up before tilt and rotation."""
    facing = {"back": 0.0, "palm": 180.0, "side": 90.0 if generator.random() < 0.5 else -90.0}[view]
    angle = generator.uniform(0.0, 2.0 * np.pi)
    tilt = generator.uniform(0.0, options.max_tilt)
    turn = generator.uniform(-options.max_rotation, options.max_rotation)
    axes = np.array([[0.0, 0.0, 1.0], [np.cos(angle), np.sin(angle), 0.0], [0.0, 1.0, 0.0]])
    first, second, third = rotations(axes, np.array([turn, tilt, facing]))
    return first @ second @ third


def changed_share(first: Drawing, second: Drawing) -> float:
    """Share of the pixels that the hand and arm cover, in either picture, whose colour differs visibly."""
    difference = np.abs(first.pixels.astype(int) - second.pixels).max(2)
    covered = np.maximum(first.rendering.mask, second.rendering.mask)
    return float((difference > _VISIBLE_STEP).sum() / max(covered.sum(), 1.0))
