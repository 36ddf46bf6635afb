"""Streams of tars: order, resume, processes, damaged images."""

import io
import tarfile
from itertools import islice

import pytest
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.finetuning.records import Columns
from geopos_diffusers.finetuning.streaming import StreamedData

COUNT = 21


def write_tars(folder, bad=(), captions="txt"):
    """Three tars of seven images whose red value is their number."""
    for number in range(3):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for index in range(7 * number, 7 * number + 7):
                buffer = io.BytesIO()
                Image.new("RGB", (10, 8), (index, 0, 0)).save(buffer, "PNG")
                caption = f"number {index}"
                data = b"nonsense" if index in bad else buffer.getvalue()
                for suffix, content in (("png", data), (captions, caption.encode())):
                    info = tarfile.TarInfo(f"{index:05d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return str(folder)


def numbers(folder, count, **options):
    options = {"buffer": 5, "seed": 1} | options
    stream = islice(StreamedData(folder, 8, Columns(), **options), count)
    found = [(int(item["caption"].split()[1]), round((item["pixels"][0, 0, 0].item() + 1) * 127.5)) for item in stream]
    assert all(caption == red for caption, red in found)
    return [caption for caption, _ in found]


def test_every_pass_has_every_sample_in_another_order(tmp_path):
    found = numbers(write_tars(tmp_path), 3 * COUNT)
    passes = [found[start : start + COUNT] for start in range(0, 3 * COUNT, COUNT)]
    assert all(sorted(one) == list(range(COUNT)) for one in passes)
    assert passes[0] != passes[1] != passes[2] != list(range(COUNT))


@pytest.mark.parametrize("bad", [(), (9, 10)])
def test_a_later_start_is_the_rest(tmp_path, bad):
    folder = write_tars(tmp_path, bad)
    whole = numbers(folder, 50)
    for skip in (1, 8, 9, 20, 21, 22, 43):
        assert numbers(folder, 50 - skip, skip=skip) == whole[skip:]


def test_processes_share_the_samples(tmp_path):
    folder = write_tars(tmp_path)
    parts = [numbers(folder, 7, process=process, processes=3) for process in range(3)]
    assert sorted(number for part in parts for number in part) == list(range(COUNT))


def test_seeds_and_fingerprints(tmp_path):
    folder = write_tars(tmp_path)
    assert numbers(folder, 10) == numbers(folder, 10) != numbers(folder, 10, seed=2)
    prints = {
        StreamedData(folder, size, Columns(), buffer=buffer).fingerprint() for size in (8, 16) for buffer in (5, 6)
    }
    assert len(prints) == 4


def test_an_unreadable_image_is_replaced_and_named_once(tmp_path, caplog):
    folder = write_tars(tmp_path, bad=(9,))
    found = numbers(folder, 3 * COUNT)
    assert 9 not in found
    assert len(found) == 3 * COUNT
    assert caplog.text.count("00009") == 1


def test_a_stream_without_readable_images_ends(tmp_path):
    with pytest.raises(DataError, match="21 of the first 21 images cannot be read"):
        numbers(write_tars(tmp_path, bad=range(COUNT)), 1)


def test_what_is_not_there_is_named(tmp_path):
    folder = write_tars(tmp_path, captions="note")
    with pytest.raises(DataError, match=r"has no column 'text'; found .*note"):
        StreamedData(folder, 8, Columns())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.tar or \.parquet files"):
        StreamedData(str(tmp_path / "empty"), 8, Columns())
