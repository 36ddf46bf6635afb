import numpy as np
import pytest
import torch
from experiments.depth.data import FILL, FOCAL, UNITS, draw_depth, load_depth
from safetensors.torch import load_file, save_file

from geopos_diffusers.data.faces import FaceOptions, FaceRenderer
from geopos_diffusers.data.hands import HandOptions, HandRenderer
from geopos_diffusers.data.rendering import frame_camera
from geopos_diffusers.errors import DataError

RENDERERS = {"hands": (HandRenderer, HandOptions), "heads": (FaceRenderer, FaceOptions)}
COUNT, SIZE = 24, 32


@pytest.fixture(scope="module", params=list(UNITS))
def drawn(request):
    return request.param, *draw_depth(request.param, COUNT, SIZE, seed=5)


def test_depth_is_that_of_the_renderer_on_the_foreground(drawn):
    data, images, depth = drawn
    renderer, options = RENDERERS[data]
    for index, item in enumerate(renderer(SIZE, 5, options(focal=FOCAL, fill=FILL)).draw(0, COUNT)):
        mask = item.mask >= 0.5
        assert np.array_equal(depth[index, 0].numpy() > 0, mask)
        np.testing.assert_allclose(depth[index, 0].numpy()[mask], item.depth[mask], rtol=1e-6)
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), np.asarray(item.image))


def test_the_larger_it_looks_the_nearer_it_is(drawn):
    _, _, depth = drawn
    foreground = (depth > 0).flatten(1)
    means = depth.flatten(1).sum(1) / foreground.sum(1)
    assert means.max() / means.min() > 1.5
    pairs = torch.stack([foreground.sum(1).float().log(), means.log()])
    assert torch.corrcoef(pairs)[0, 1] < -0.6


def test_a_seed_gives_its_images_and_another_others(drawn):
    data, images, depth = drawn
    again, same = draw_depth(data, 3, SIZE, seed=5)
    assert torch.equal(again, images[:3])
    assert torch.equal(same, depth[:3])
    assert not torch.equal(draw_depth(data, 3, SIZE, seed=6)[0], images[:3])


@pytest.mark.parametrize("fill", [0.4, 0.9])
def test_a_camera_with_a_fixed_lens_frames_as_one_that_zooms(fill):
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3))
    zooms, moves = frame_camera(points, 64, fill, (0.3, -0.2)), frame_camera(points, 64, fill, (0.3, -0.2), focal=3.0)
    assert moves.focal == 3.0 * 64
    for camera in (zooms, moves):
        assert np.ptp(camera.project(points), axis=0).max() == pytest.approx(fill * 64, rel=1e-5)
    assert moves.distance > frame_camera(points, 64, fill + 0.1, focal=3.0).distance


def test_images_are_drawn_once(tmp_path):
    first = load_depth(tmp_path, "hands", 2, 16, seed=1)
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    again = load_depth(tmp_path, "hands", 2, 16, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert path.stat().st_mtime_ns == before
    images, depth = first
    assert images.shape == (2, 3, 16, 16)
    assert depth.shape == (2, 1, 16, 16)
    assert -1 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("damage", ["cut", "other seed", "other shape"])
def test_damaged_file(tmp_path, damage):
    load_depth(tmp_path, "hands", 2, 16, seed=1)
    (path,) = tmp_path.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "other seed":
        load_depth(tmp_path, "hands", 2, 16, seed=2)
        (tmp_path / path.name.replace("seed1", "seed2")).replace(path)
    else:
        tensors = load_file(path)
        metadata = {"version": "1", "data": "hands", "count": "2", "size": "16", "seed": "1"}
        save_file({**tensors, "depth": tensors["depth"][:1]}, path, metadata)
    with pytest.raises(DataError, match="remove it to draw"):
        load_depth(tmp_path, "hands", 2, 16, seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"data": "feet"}, "feet given"), ({"count": 0}, "count is 0"), ({"size": 8}, "size is 8"), ({"seed": -1}, "-1")],
)
def test_bad_arguments(change, message):
    with pytest.raises(DataError, match=message):
        draw_depth(**{"data": "hands", "count": 1, "size": 16, "seed": 0, **change})


@pytest.mark.parametrize("options", [HandOptions, FaceOptions])
def test_bad_lens(options):
    with pytest.raises(DataError, match=r"focal is 1\.0"):
        options(focal=1.0)
