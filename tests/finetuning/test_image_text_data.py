import io
import json
import resource

import datasets
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.finetuning import readable_images
from geopos_diffusers.finetuning.framing import prepare_image
from geopos_diffusers.finetuning.image_text_data import load_image_text


def encoded(color, size=(20, 10), mode="RGB", format="PNG", **save_options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, format, **save_options)
    return buffer.getvalue()


def write_folder(folder, rows, names=("a.png", "sub/b.jpg")):
    (folder / "sub").mkdir()
    (folder / "a.png").write_bytes(encoded((255, 0, 0)))
    (folder / "sub" / "b.jpg").write_bytes(encoded((0, 0, 255), format="JPEG"))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


ROWS = [{"file_name": "a.png", "text": "a red hand", "fingers": 3}, {"file_name": "sub/b.jpg", "text": "blau, größer"}]


class TestImageFolder:
    def test_items(self, tmp_path):
        data = load_image_text(write_folder(tmp_path, ROWS), 8)
        assert len(data) == 2
        assert [*data.captions] == ["a red hand", "blau, größer"]
        item = data[0]
        assert item["pixels"].shape == (3, 8, 8)
        assert item["pixels"].dtype == torch.float32
        assert item["pixels"][:, 0, 0].tolist() == [1.0, -1.0, -1.0]
        assert item["sizes"].tolist() == [10, 20, 0, 4, 8, 8]

    def test_csv(self, tmp_path):
        write_folder(tmp_path, ROWS)
        (tmp_path / "metadata.jsonl").unlink()
        (tmp_path / "metadata.csv").write_text('file_name,caption\na.png,"a hand, red"\n')
        assert [*load_image_text(str(tmp_path), 8, caption_column="caption").captions] == ["a hand, red"]

    def test_limit(self, tmp_path):
        assert [*load_image_text(write_folder(tmp_path, ROWS), 8, limit=1).captions] == ["a red hand"]

    def test_unreadable_images_are_named_and_counted(self, tmp_path, caplog):
        rows = [ROWS[0], {"file_name": "gone.png", "text": "x"}, {"file_name": "bad.png", "text": "y"}, ROWS[1]]
        folder = write_folder(tmp_path, rows)
        (tmp_path / "bad.png").write_bytes(encoded((1, 2, 3), size=(300, 300))[:100])
        data = load_image_text(folder, 8)
        assert [*data.captions] == ["a red hand", "blau, größer"]
        assert data.skipped == 2
        assert data[1]["pixels"][2].mean() > 0.9
        assert "gone.png" in caplog.text
        assert "bad.png" in caplog.text
        assert "2 of 4 images" in caplog.text

    def test_the_fingerprint_follows_the_data_not_the_place(self, tmp_path):
        prints = []
        for name, rows in (("one", ROWS), ("two", ROWS), ("other", ROWS[:1])):
            (tmp_path / name).mkdir()
            prints.append(load_image_text(write_folder(tmp_path / name, rows), 8).fingerprint())
        assert prints[0] == prints[1] != prints[2]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ([json.dumps({"file_name": "a.png", "caption": "x"})], "line 1: no field 'text'; found file_name, caption"),
            ([json.dumps({"text": "x"})], "line 1: needs a file_name; found text"),
            ([json.dumps({"file_name": "a.png", "text": 7})], "text must be text, found 7"),
            ([json.dumps(ROWS[0]), "{"], r"metadata\.jsonl, line 2: not JSON"),
            (["[1]"], "expected an object, found list"),
            ([""], "holds no images with captions"),
        ],
    )
    def test_bad_metadata(self, tmp_path, lines, message):
        write_folder(tmp_path, [])
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
        with pytest.raises(DataError, match=message):
            load_image_text(str(tmp_path), 8)

    def test_no_metadata(self, tmp_path):
        with pytest.raises(DataError, match=r"has no metadata\.jsonl"):
            load_image_text(str(tmp_path), 8)


class TestParquet:
    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def test_same_items_as_a_folder(self, tmp_path):
        folder = load_image_text(write_folder(tmp_path, ROWS), 8)
        names = ["a.png", "sub/b.jpg"]
        for features in (None, datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})):
            table = datasets.Dataset.from_dict(
                {
                    "image": [{"bytes": (tmp_path / name).read_bytes(), "path": None} for name in names],
                    "text": [*folder.captions],
                },
                features=features,
            )
            file = tmp_path / f"{features is None}.parquet"
            table.to_parquet(file)
            data = load_image_text(str(file), 8)
            assert [*data.captions] == [*folder.captions]
            assert all(torch.equal(data[i]["pixels"], folder[i]["pixels"]) for i in range(2))

    def test_corrupt_rows_are_skipped(self, tmp_path, caplog):
        rows = {"img": [encoded((9, 9, 9)), b"nonsense"], "caption": ["good", "bad"]}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "rows.parquet")
        data = load_image_text(str(tmp_path / "rows.parquet"), 8, "img", "caption")
        assert [*data.captions] == ["good"]
        assert "rows.parquet, row 1" in caplog.text

    def test_another_column_of_images_is_another_data_set(self, tmp_path):
        rows = {"image": [encoded((9, 9, 9))], "img": [encoded((200, 9, 9))], "text": ["a hand"]}
        datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "rows.parquet")
        one, other, again = (
            load_image_text(str(tmp_path / "rows.parquet"), 8, name) for name in ("image", "img", "img")
        )
        assert not torch.equal(one[0]["pixels"], other[0]["pixels"])
        assert one.fingerprint() != other.fingerprint() == again.fingerprint()

    def test_missing_column(self, tmp_path):
        datasets.Dataset.from_dict({"image": [encoded((9, 9, 9))], "label": [3]}).to_parquet(tmp_path / "a.parquet")
        with pytest.raises(DataError, match="no column 'text'; found image, label"):
            load_image_text(str(tmp_path / "a.parquet"), 8)
        with pytest.raises(DataError, match="label must be text, found 3"):
            load_image_text(str(tmp_path / "a.parquet"), 8, caption_column="label")

    def test_not_a_parquet_file(self, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"nonsense")
        with pytest.raises(DataError, match=r"a\.parquet cannot be loaded"):
            load_image_text(str(tmp_path / "a.parquet"), 8)


class TestPictures:
    @pytest.mark.parametrize("size", [(64, 64), (65, 64), (640, 11), (11, 640), (1, 1), (100, 99)])
    def test_any_size_becomes_a_square(self, size):
        pixels, sizes = prepare_image(Image.new("RGB", size, (255, 255, 255)), 32)
        assert pixels.shape == (3, 32, 32)
        assert pixels.is_contiguous()
        assert (pixels == 1).all()
        assert sizes[:2].tolist() == [size[1], size[0]]

    def test_the_centre_is_kept(self):
        picture = Image.fromarray(np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2))
        pixels, sizes = prepare_image(picture, 20)
        assert sizes[3] == 20
        assert pixels[0, 0].tolist() == pytest.approx([value / 127.5 - 1 for value in range(80, 160, 4)], abs=1e-6)

    @pytest.mark.parametrize("size", [(61, 40), (40, 61), (20, 300), (33, 32)])
    def test_scaling_the_kept_part_alone_gives_the_same_pixels(self, size):
        picture = Image.effect_noise(size, 20).convert("RGB")  # so that no value is cut off between the two axes
        scale = 32 / min(size)
        whole = picture.resize([max(32, round(length * scale)) for length in size], Image.Resampling.BICUBIC)
        left, top = ((length - 32) // 2 for length in whole.size)
        expected = np.asarray(whole.crop((left, top, left + 32, top + 32))).transpose(2, 0, 1) / 127.5 - 1
        pixels, sizes = prepare_image(picture, 32)
        np.testing.assert_allclose(pixels.numpy(), expected, rtol=0, atol=2.01 / 127.5)
        assert sizes[2:4].tolist() == [top, left]

    @pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1)])
    def test_a_long_and_narrow_picture_needs_little_memory(self, tmp_path, size):
        """Scaled as a whole to 512 pixels it would take 15 GB."""
        Image.new("RGB", size, "white").save(tmp_path / "a.png")
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a line"}))
        before, hard = resource.getrlimit(resource.RLIMIT_AS)
        used = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, hard))
        try:
            item = load_image_text(str(tmp_path), 512)[0]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        assert item["pixels"].shape == (3, 512, 512)
        assert (item["pixels"] == 1).all()
        assert item["sizes"][:2].tolist() == [size[1], size[0]]


class TestLargeData:
    """More images than are looked at before the first step."""

    @pytest.fixture(autouse=True)
    def few_checked(self, monkeypatch):
        monkeypatch.setattr(readable_images, "CHECKED_IMAGES", 4)

    def write(self, folder, bad=(), count=60):
        for index in range(count):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"{index}.png")
        for index in bad:
            (folder / f"{index}.png").write_bytes(b"nonsense")
        rows = [{"file_name": f"{index}.png", "text": f"number {index}"} for index in range(count)]
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return str(folder)

    def test_an_unreadable_image_is_replaced_by_the_next_one_and_named_once(self, tmp_path, caplog):
        data = load_image_text(self.write(tmp_path, bad=[7, 8, 59]), 8)
        assert (len(data), data.skipped) == (60, 0)
        for index, shown in ((7, 9), (8, 9), (59, 0), (7, 9), (10, 10)):
            item = data[index]
            assert item["caption"] == f"number {shown}"
            assert item["pixels"][0, 0, 0].item() == pytest.approx(shown / 127.5 - 1)
        assert caplog.text.count("7.png") == 1
        later = load_image_text(str(tmp_path), 8)
        assert later[8]["caption"] == "number 9"  # whatever was read before

    def test_a_replacement_has_the_size_of_what_it_replaces(self, tmp_path):
        Image.new("RGB", (80, 40)).save(tmp_path / "wide.png")
        folder = self.write(tmp_path, bad=[2])
        rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
        rows[3]["file_name"] = "wide.png"
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        data = load_image_text(folder, 32, bucket_step=4)
        assert data.size_of(3) == (24, 40)
        assert data[2]["pixels"].shape == (3, 32, 32)
        assert data[2]["caption"] == "number 3"

    def test_many_unreadable_images_stop_a_run_at_once_or_when_they_are_met(self, tmp_path):
        for name in ("looked at", "not"):
            (tmp_path / name).mkdir()
        with pytest.raises(DataError, match=r"of 4 looked at only 3 images can be read; the first: .*15\.png"):
            load_image_text(self.write(tmp_path / "looked at", bad=[15]), 8)
        data = load_image_text(self.write(tmp_path / "not", bad=range(20, 43), count=240), 8)
        with pytest.raises(DataError, match=r"21 of the first \d+ images cannot be read, the last .*40\.png"):
            for index in range(60):
                data[index]
