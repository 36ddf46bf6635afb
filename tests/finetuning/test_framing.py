"""Crops around boxes, aspect-ratio buckets, and masks that are cut as their images are."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.finetuning.buckets import bucket_sizes, bucket_step
from geopos_diffusers.finetuning.framing import frame_box, frame_centre
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.records import Columns


def write(folder, sizes, **fields):
    """Images whose red value is their column and whose green value is their row."""
    rows = []
    for index, (width, height) in enumerate(sizes):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = np.arange(width)[None], np.arange(height)[:, None]
        Image.fromarray(pixels).save(folder / f"{index}.png")
        own = {name: values[index] for name, values in fields.items() if values[index] is not None}
        rows.append({"file_name": f"{index}.png", "text": f"number {index}", **own})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def colours(pixels):
    return (pixels[:2] + 1) * 127.5


class TestBoxes:
    @pytest.mark.parametrize(
        ("box", "expected"),
        [
            ((40, 20, 60, 40), (30, 10, 70, 50)),  # 20 pixels and 10 on each side
            ((0, 0, 20, 20), (0, 0, 40, 40)),  # moved into the image
            ((180, 80, 200, 100), (160, 60, 200, 100)),
            ((0, 0, 200, 100), (50, 0, 150, 100)),  # shrunk to it
            ((-50, -50, 20, 20), (0, 0, 40, 40)),  # what lies outside does not count
        ],
    )
    def test_the_square_around_a_box(self, box, expected):
        assert frame_box((200, 100), (32, 32), box, 0.5).box == pytest.approx(expected)

    @pytest.mark.parametrize("size", [(32, 64), (64, 32), (48, 48)])
    def test_the_crop_has_the_shape_of_its_size_and_lies_within_the_image(self, size):
        rng = np.random.default_rng(0)
        for _ in range(200):
            x, y = sorted(rng.uniform(0, 300, 2)), sorted(rng.uniform(0, 200, 2))
            left, top, right, bottom = frame_box((300, 200), size, (x[0], y[0], x[1] + 1, y[1] + 1), 0.3).box
            assert 0 <= left < right <= 300
            assert 0 <= top < bottom <= 200
            assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0])

    def test_pixels_are_those_of_the_box_and_rows_without_one_keep_the_centre(self, tmp_path):
        folder = write(tmp_path, [(200, 100)] * 2, hand=[[40, 20, 20, 20], None])
        data = load_image_text(folder, 40, columns=Columns(box="hand"), margin=0.5)
        cut = colours(data[0]["pixels"])
        assert cut[0, 0, [0, -1]].tolist() == pytest.approx([30, 69], abs=0.6)
        assert cut[1, [0, -1], 0].tolist() == pytest.approx([10, 49], abs=0.6)
        assert data[0]["sizes"].tolist() == [100, 200, 10, 30, 40, 40]
        assert colours(data[1]["pixels"])[0, 0, [0, -1]].tolist() == pytest.approx([51, 149], abs=1.5)

    def test_corners_are_another_format(self, tmp_path):
        folder = write(tmp_path, [(200, 100)], hand=[[40, 20, 60, 40]])
        data = load_image_text(folder, 40, columns=Columns(box="hand", box_format="xyxy"))
        assert data[0]["sizes"].tolist() == [100, 200, 10, 30, 40, 40]

    @pytest.mark.parametrize("box", [[0.1, 0.2, 0.5, 0.6], [1, 2, 3], "x", [0, 0, 0, 5], [0, 0, float("nan"), 1], 7])
    def test_bad_boxes_are_named(self, tmp_path, box):
        with pytest.raises(DataError, match="line 1: hand"):
            load_image_text(write(tmp_path, [(20, 10)], hand=[box]), 8, columns=Columns(box="hand"))


class TestBuckets:
    def test_the_list_of_sdxl_between_one_and_two_to_one(self):
        expected = [(768, 1344), (832, 1216), (896, 1152), (960, 1088), (1024, 1024)]
        assert bucket_sizes(1024, bucket_step(1024, 32)) == expected + [size[::-1] for size in expected[3::-1]]

    @pytest.mark.parametrize(("resolution", "unit"), [(32, 4), (64, 16), (512, 64), (768, 64), (1000, 32)])
    def test_areas_and_multiples(self, resolution, unit):
        step = bucket_step(resolution, unit)
        sizes = bucket_sizes(resolution, step)
        assert sizes
        for height, width in sizes:
            assert height % unit == width % unit == 0
            assert height * width <= resolution**2
            assert 0.5 <= height / width <= 2

    def test_images_go_to_the_nearest_shape_and_little_is_cut_off(self, tmp_path):
        shapes = [(200, 100), (100, 200), (150, 150), (120, 100), (900, 90)]
        data = load_image_text(write(tmp_path, shapes), 32, bucket_step=4)
        sizes = [tuple(data[index]["pixels"].shape[1:]) for index in range(5)]
        assert sizes == [(24, 40), (40, 24), (32, 32), (28, 36), (24, 40)]
        assert data[0]["sizes"].tolist() == [100, 200, 0, 4, 24, 40]
        assert sum(data.buckets.counts().values()) == 5

    def test_a_box_chooses_the_bucket(self, tmp_path):
        folder = write(tmp_path, [(200, 100)], hand=[[90, 10, 20, 60]])
        data = load_image_text(folder, 32, columns=Columns(box="hand"), margin=0.1, bucket_step=4)
        assert data[0]["pixels"].shape == (3, 40, 24)

    def test_stated_sizes_need_no_look_at_the_files(self, tmp_path):
        folder = write(tmp_path, [(20, 20)], width=[400], height=[200])
        assert load_image_text(folder, 32, bucket_step=4).size_of(0) == (24, 40)


class TestMasks:
    def masked(self, tmp_path, **options):
        for index in range(2):
            mask = np.zeros((100, 200), np.uint8)
            mask[20:40, 40:60] = 255
            Image.fromarray(mask).save(tmp_path / f"m{index}.png")
        masks = {"mask": ["m0.png", None, "m1.png"], "hand": [None, None, [40, 20, 20, 20]]}
        folder = write(tmp_path, [(200, 100)] * 3, **masks)
        return load_image_text(folder, 40, columns=Columns(mask="mask", box="hand"), margin=0.5, **options)

    def test_a_mask_is_cut_as_its_image_is(self, tmp_path):
        data = self.masked(tmp_path)
        whole, none, box = (data[index]["mask"] for index in range(3))
        assert whole.shape == (1, 40, 40)
        assert whole.mean() == pytest.approx(0.02, abs=0.002)  # 20 x 20 of 100 x 100, half of it beyond the left edge
        assert (none == 1).all()
        assert box.mean() == pytest.approx(0.25)
        assert box[0, 10:30, 10:30].mean() == 1

    def test_masks_need_no_image_where_the_numbers_are_known(self, tmp_path):
        data = self.masked(tmp_path, bucket_step=4)
        for index in range(3):
            item = data[index]
            assert torch.equal(data.mask(index, item["sizes"]), item["mask"])

    def test_a_mask_of_another_size_is_named(self, tmp_path, caplog):
        data = self.masked(tmp_path)
        Image.new("L", (10, 10)).save(tmp_path / "m0.png")
        data = load_image_text(str(tmp_path), 40, columns=Columns(mask="mask"))
        assert data.skipped == 1
        assert "0.png (its mask has 10 x 10 pixels, the image 200 x 100)" in caplog.text


def test_the_fingerprint_follows_boxes_masks_and_buckets(tmp_path):
    folder = write(tmp_path, [(20, 10)] * 2, hand=[[1, 1, 5, 5], None], other=[[1, 1, 5, 6], None])
    kinds = [
        {},
        {"columns": Columns(box="hand")},
        {"columns": Columns(box="other")},
        {"columns": Columns(box="hand"), "margin": 0.1},
        {"bucket_step": 4},
        {"columns": Columns(mask="mask")},
    ]
    prints = [load_image_text(folder, 8, **options).fingerprint() for options in kinds]
    assert len(set(prints)) == len(kinds)
    assert prints == [load_image_text(folder, 8, **options).fingerprint() for options in kinds]


def test_the_centre_is_the_largest_rectangle():
    assert frame_centre((200, 100), (50, 50)).box == (50, 0, 150, 100)
