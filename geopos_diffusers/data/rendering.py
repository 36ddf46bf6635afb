"""Ray casting and shading of one triangle mesh: colour, mask and depth.

Rays go only where the mesh can be: through the projected box of its vertices. Each pixel is the plain average of
`samples` x `samples` rays, so the result is antialiased and has no random part.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ..errors import DataError
from ..optional_packages import optional_import
from .vectors import bounds, cross, dot, length

Array: TypeAlias = np.ndarray
_LAMP_POINTS = np.array(
    [[-0.4, -0.8], [0.8, -0.4], [-0.8, 0.4], [0.4, 0.8]]
)  # where the four rays look, on a unit disc
_LAMP_EDGE = 0.9  # how far from the middle of that disc they look
_SEARCH_STEPS = 16  # for a distance: each shrinks the error by about the points' relief as a share of the distance
_SHADOW_OFFSET = 4e-3  # in world units: rays start this far off the surface, or they would hit where they start


@dataclass(frozen=True)
class Camera:
    """A pinhole at (0, 0, `distance`) that looks along -Z with +Y up. Image x goes right, y down, in pixels.

    A point p lands at centre + focal * (p_x, -p_y) / (distance - p_z).
    """

    size: int
    distance: float
    focal: float
    centre: tuple[float, float]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels [N, 2] of points [N, 3]. A pixel's middle is at whole number + 0.5."""
        scale = self.focal / (self.distance - points[:, 2])
        return np.stack([self.centre[0] + points[:, 0] * scale, self.centre[1] - points[:, 1] * scale], axis=1)


@dataclass(frozen=True)
class Light:
    """One distant lamp with a soft edge and an even surrounding light. Colours are linear RGB, 1 = white."""

    direction: np.ndarray  # [3], unit, towards the lamp
    colour: np.ndarray  # [3]
    ambient: np.ndarray  # [3]
    softness: float = 0.15  # radius of the lamp as a tangent of its angle


@dataclass(frozen=True)
class Surface:
    """What the skin is like. `albedo` [V, 3] linear RGB at each vertex, `shine` [V] strength of the highlight there.

    `scatter` [3] is added near the edge of shadow, where light comes out of skin again after a way inside.
    """

    albedo: np.ndarray
    shine: np.ndarray
    scatter: np.ndarray


@dataclass(frozen=True)
class Rendering:
    """What the camera sees.

    `colour` [S, S, 3] linear RGB, multiplied by the share of the pixel that the mesh covers; `mask` [S, S] that share;
    `depth` [S, S] distance from the camera along its axis, averaged over what is covered, 0 where nothing is.
    """

    colour: np.ndarray
    mask: np.ndarray
    depth: np.ndarray


def frame_camera(
    points: np.ndarray,
    size: int,
    fill: float,
    shift: tuple[float, float] = (0.0, 0.0),
    distance: float = 7.0,
    focal: float | None = None,
) -> Camera:
    """A camera that shows `points` [N, 3] in a box whose longer side is `fill` of the image.

    `shift` moves the box from the middle, each in [-1, 1], where 1 touches the image's edge. The camera stands at
    `distance` and zooms; with `focal`, in image sides, it does not zoom but comes nearer or goes away.
    """
    camera = _zoom_camera(points, size, fill, shift, distance)
    if focal is None:
        return camera
    for _ in range(_SEARCH_STEPS):
        distance *= focal * size / camera.focal
        camera = _zoom_camera(points, size, fill, shift, distance)
    return replace(camera, focal=focal * size)


def _zoom_camera(points: np.ndarray, size: int, fill: float, shift: tuple[float, float], distance: float) -> Camera:
    unit = Camera(size=size, distance=distance, focal=1.0, centre=(0.0, 0.0)).project(points)
    low, high = bounds(unit)
    focal = fill * size / (high - low).max()
    free = (size - focal * (high - low)) / 2
    middle = size / 2 - focal * (low + high) / 2 + free * np.asarray(shift)
    return Camera(size=size, distance=distance, focal=float(focal), centre=(float(middle[0]), float(middle[1])))


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Outward normals [3, F] of the faces, as long as twice their area."""
    columns = np.ascontiguousarray(vertices.T)
    first = columns[:, faces[:, 0]]
    return cross(columns[:, faces[:, 1]] - first, columns[:, faces[:, 2]] - first)


def vertex_normals(faces: np.ndarray, normals_of_faces: np.ndarray, count: int) -> np.ndarray:
    """Unit normals [3, count] at the vertices: the mean of the faces around each, weighted by their area."""
    corners = faces.ravel()
    normals = np.stack([np.bincount(corners, np.repeat(row, 3), minlength=count) for row in normals_of_faces])
    return normals / np.maximum(length(normals), 1e-12)


def _facing(vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, camera: Camera, light: Light) -> np.ndarray:
    """The faces that some ray can need: those turned to the camera, or to any part of the lamp.

    On a closed mesh no other face is seen first, and a ray to the lamp that is blocked leaves through one turned to it.
    A fifth of the whole time goes into handing faces to Embree, so each one less counts.
    """
    to_camera = np.array([[0.0], [0.0], [camera.distance]]) - vertices.T[:, faces[:, 0]]
    margin = _LAMP_EDGE * light.softness * length(normals)
    return faces[(dot(normals, to_camera) > 0) | (light.direction @ normals > -margin)]


class RayCaster:
    """Rays against one mesh through Embree. Holds Embree's device, so make one and keep it."""

    def __init__(self) -> None:
        with optional_import("rendering", "data"):
            from embreex import mesh_construction, rtcore, rtcore_scene
        self._make_scene = rtcore_scene.EmbreeScene
        self._make_mesh = mesh_construction.TriangleMesh
        self._device = rtcore.EmbreeDevice()

    def render(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        camera: Camera,
        light: Light,
        surface: Surface,
        samples: int = 2,
    ) -> Rendering:
        """Render one mesh.

        Args:
            vertices: [V, 3] world positions, all nearer than the camera (z < camera.distance).
            faces: [F, 3] vertex indices, counter-clockwise seen from outside.
            camera, light, surface: see their classes.
            samples: rays per pixel side.

        Raises:
            DataError: a vertex at or behind the camera.
        """
        nearest = vertices[:, 2].max()
        if nearest >= camera.distance:
            raise DataError(f"the mesh reaches z = {nearest:.3g}; the camera stands at {camera.distance:.3g}")
        scene = self._make_scene(self._device)
        of_faces = face_normals(vertices, faces)
        used = _facing(vertices, faces, of_faces, camera, light)
        self._make_mesh(scene, vertices.astype(np.float32), np.ascontiguousarray(used, np.int32))
        normals = vertex_normals(faces, of_faces, len(vertices))
        size = camera.size
        low, high = bounds(camera.project(vertices))
        x0, y0 = np.clip(np.floor(low), 0, size).astype(int)
        x1, y1 = np.clip(np.ceil(high), 0, size).astype(int)
        colour, mask, depth = (np.zeros((size, size, *c), np.float32) for c in ((3,), (), ()))
        if x1 > x0 and y1 > y0:
            columns = (np.arange(x0 * samples, x1 * samples, dtype=np.float32) + 0.5) / samples
            rows = (np.arange(y0 * samples, y1 * samples, dtype=np.float32) + 0.5) / samples
            rays = np.empty((len(rows), len(columns), 3), np.float32)
            rays[..., 0] = (columns - camera.centre[0]) / camera.focal
            rays[..., 1] = (camera.centre[1] - rows[:, None]) / camera.focal
            rays[..., 2] = -1.0
            parts = self._trace(scene, rays, camera, used, normals, light, surface, max(1, size * samples // 32))
            for whole, part in zip((colour, mask, depth), parts, strict=True):
                whole[y0:y1, x0:x1] = _average(part, samples)
        return Rendering(colour=colour, mask=mask, depth=np.where(mask > 0, depth / np.maximum(mask, 1e-9), 0.0))

    def _trace(
        self,
        scene: Any,
        rays: Array,
        camera: Camera,
        faces: Array,
        normals: Array,
        light: Light,
        surface: Surface,
        reach: int,
    ) -> tuple[np.ndarray, ...]:
        """Colour [H, W, 3], coverage [H, W] and depth [H, W] at each of the `rays` [H, W, 3]."""
        height, width = rays.shape[:2]
        rays = rays.reshape(-1, 3)
        origins = np.zeros_like(rays)
        origins[:, 2] = camera.distance
        found = scene.run(origins, rays, output=1)
        hit = np.flatnonzero(found["primID"] >= 0)
        distance = found["tfar"][hit]  # the rays' z is -1, so this is distance along the viewing axis
        u, v = found["u"][hit], found["v"][hit]
        shading = np.concatenate([normals, surface.albedo.T, surface.shine[None]]).astype(np.float32)
        corners = faces[found["primID"][hit]].T
        at_hits = (1.0 - u - v) * shading[:, corners[0]]
        at_hits += u * shading[:, corners[1]]
        at_hits += v * shading[:, corners[2]]
        subpixel = 2 * (hit // width % 2) + hit % width % 2
        colour, covered, depth = (np.zeros((height * width, *c), np.float32) for c in ((3,), (), ()))
        covered[hit] = 1.0
        depth[hit] = distance
        directions = np.ascontiguousarray(rays[hit].T)
        places = directions * distance
        places[2] += camera.distance
        colour[hit] = self._shade(scene, places, directions, at_hits, light, surface.scatter, subpixel).T
        covered, depth = covered.reshape(height, width), depth.reshape(height, width)
        colour = colour.reshape(height, width, 3) * _creases(depth, covered, reach)[..., None]
        return colour, covered, depth

    def _shade(
        self, scene: Any, places: Array, rays: Array, at_hits: Array, light: Light, scatter: Array, subpixel: Array
    ) -> np.ndarray:
        """Colours [3, N] at `places` [3, N], seen along `rays` [3, N]; `at_hits` [7, N]: normal, albedo, shine."""
        normal, albedo, shine = at_hits[:3], at_hits[3:6], at_hits[6]
        view = -rays / length(rays)
        normal = normal / np.maximum(length(normal), 1e-9)
        # Each of a pixel's four neighbouring rays looks at another part of the lamp: the average is a soft shadow.
        side = cross(light.direction, np.eye(3)[1 if abs(light.direction[1]) < 0.9 else 0])
        side /= np.linalg.norm(side)
        up = cross(side, light.direction)
        corner = _LAMP_POINTS * light.softness
        lamps = (light.direction + corner[:, :1] * side + corner[:, 1:] * up).astype(np.float32)
        lamps /= np.linalg.norm(lamps, axis=1, keepdims=True)
        lamp = np.ascontiguousarray(lamps.T)[:, subpixel]
        facing = dot(normal, lamp)
        lit = np.flatnonzero(facing > 0)
        starts = places[:, lit] + normal[:, lit] * _SHADOW_OFFSET
        unblocked = np.zeros(len(facing), np.float32)
        unblocked[lit] = scene.run(np.ascontiguousarray(starts.T), lamps[subpixel[lit]], query="OCCLUDED") < 0
        direct = np.maximum(facing, 0.0) * unblocked
        # Skin lets light through near the shadow's edge, red most: a wider, softer lobe per colour.
        wrap = scatter.astype(np.float32)[:, None]
        soft = np.maximum((facing + wrap) / (1.0 + wrap), 0.0) ** 2 * (0.35 + 0.65 * unblocked)
        across = 1.0 - np.abs(dot(normal, view))
        sky = (0.75 + 0.25 * normal[1] + 0.15 * normal[2]) * (1.0 - 0.5 * across**3)
        half = lamp + view
        highlight = np.maximum(dot(normal, half) / length(half), 0.0) ** 24 * shine * unblocked
        lamp_colour, ambient = (values.astype(np.float32)[:, None] for values in (light.colour, light.ambient))
        shaded = albedo * ((0.6 * direct + 0.4 * soft) * lamp_colour + sky * ambient)
        return shaded + highlight * lamp_colour


def _creases(depth: np.ndarray, covered: np.ndarray, reach: int) -> np.ndarray:
    """Darkening [H, W] in [0.45, 1] where the surface lies behind what surrounds it: a stand-in for blocked sky light.

    It is unsharp masking of the depth buffer (Luft, Colditz and Deussen 2006) with a box filter inside the mask.
    """
    weight = _box_sum(covered, reach)
    mean = _box_sum(depth * covered, reach) / np.maximum(weight, 1e-6)
    behind = np.maximum(depth - mean, 0.0) * covered
    return np.maximum(1.0 - 2.2 * behind, 0.45)


def _box_sum(image: np.ndarray, reach: int) -> np.ndarray:
    """Sum over a square of 2 * reach + 1 pixels around each pixel; outside counts as zero."""
    height, width = image.shape
    padded = np.zeros((height + 2 * reach + 2, width + 2 * reach + 2))
    padded[reach + 1 : -reach - 1, reach + 1 : -reach - 1] = image
    total = padded.cumsum(0).cumsum(1)
    side = 2 * reach + 1
    return (
        total[side : side + height, side : side + width]
        - total[:height, side : side + width]
        - total[side : side + height, :width]
        + total[:height, :width]
    ).astype(np.float32)


def _average(image: np.ndarray, samples: int) -> np.ndarray:
    parts = [image[i::samples, j::samples] for i in range(samples) for j in range(samples)]
    return np.asarray(sum(parts)) / samples**2


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Bytes of linear light in [0, 1] by the sRGB transfer curve (IEC 61966-2-1)."""
    linear = np.clip(linear, 0.0, 1.0)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(curve * 255.0).astype(np.uint8)


def from_srgb(colour: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] of sRGB values in [0, 255]."""
    share = np.asarray(colour, np.float64) / 255.0
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
