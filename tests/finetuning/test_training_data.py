"""Data of fine-tuning runs from end to end: caches, buckets, masks, streams, several data sets, mirrored captions."""

import io
import json
import shutil
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from script_loading import REPOSITORY
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_xl

from geopos_diffusers import GeoConvConfig, apply_geoconv
from geopos_diffusers.errors import ConfigError, DataError
from geopos_diffusers.finetuning import readable_images

SIZES = ((48, 40), (80, 40), (40, 80), (48, 48), (90, 50), (70, 40))


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    """Six images of several shapes with boxes, masks and captions that say left or right."""
    folder = tmp_path_factory.mktemp("hands")
    rng = np.random.default_rng(1)
    rows = []
    for index, (width, height) in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        mask = np.zeros((height, width), np.uint8)
        mask[10:30, 10:30] = 255
        Image.fromarray(mask).save(folder / f"mask{index}.png")
        side = "left" if index % 2 else "right"
        row = {"file_name": f"{index}.png", "text": f"a {side} hand, {index}", "mask": f"mask{index}.png"}
        rows.append(row | ({"hand": [10, 10, 20, 20]} if index else {}))
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def losses(lines):
    return [line["loss"] for line in lines]


class TestCaches:
    @pytest.mark.parametrize("text", [pytest.param(False, marks=pytest.mark.slow), True])
    def test_training_from_the_disk_is_training(self, finetune, hands, text):
        options = {"dataset": hands, "max_train_steps": 3, "train": "geoconv", "mask_column": "mask"}
        options |= {"aspect_ratio_buckets": True, "crop_to": "hand"}
        _, expected = finetune("plain", **options)
        folder, lines = finetune("cached", cache_latents=True, cache_text_embeddings=text, **options)
        assert losses(lines) == losses(expected)
        assert [line["mask_loss_share"] for line in lines] == [line["mask_loss_share"] for line in expected]
        assert len([*(folder / "latents").iterdir()]) == 1
        assert (folder / "text").is_dir() == text

    def test_mirrored_captions_are_cached_too(self, finetune, hands):
        options = {"dataset": hands, "max_train_steps": 3, "random_flip": True}
        _, plain = finetune("unchanged", **options)
        _, expected = finetune("changed", flip_captions=True, **options)
        assert losses(plain) != losses(expected)
        prompts = {"validation_prompts": ["a hand"], "validation_inference_steps": 1}
        folder, lines = finetune("text", flip_captions=True, cache_text_embeddings=True, **prompts, **options)
        assert losses(lines) == losses(expected)
        assert len([*folder.glob("validation-*.png")]) == 2

    def test_two_encoders(self, finetune, hands, tmp_path):
        tiny_stable_diffusion_xl().save_pretrained(tmp_path / "xl")
        options = {"dataset": hands, "model": tmp_path / "xl", "max_train_steps": 2}
        _, expected = finetune("plain", **options)
        _, lines = finetune("text", cache_text_embeddings=True, cache_latents=True, **options)
        assert losses(lines) == losses(expected)

    @pytest.mark.slow
    def test_an_image_that_takes_another_s_place_brings_its_caption_and_mask(
        self, finetune, hands, tmp_path, monkeypatch, caplog
    ):
        monkeypatch.setattr(readable_images, "CHECKED_IMAGES", 2)
        folder = tmp_path / "damaged"
        shutil.copytree(hands, folder)
        (folder / "4.png").write_bytes(b"nonsense")
        options = {"dataset": folder, "max_train_steps": 4, "mask_column": "mask", "aspect_ratio_buckets": True}
        _, expected = finetune("plain", **options)
        assert "4.png" in caplog.text
        _, lines = finetune("cached", cache_latents=True, cache_text_embeddings=True, **options)
        assert losses(lines) == losses(expected)

    @pytest.mark.slow
    def test_other_images_and_settings_have_other_files(self, finetune, hands, tmp_path):
        kept = {"cache_latents": True, "latents_folder": tmp_path / "latents", "max_train_steps": 1}
        for number, options in enumerate(({}, {}, {"max_train_samples": 3}, {"crop_to": "hand"}), 1):
            finetune(f"run{number}", dataset=hands, **kept, **options)
            assert len([*(tmp_path / "latents").iterdir()]) == max(1, number - 1)

    def test_a_flipped_bit_is_noticed(self, finetune, hands, tmp_path):
        kept = {"cache_latents": True, "latents_folder": tmp_path / "latents", "max_train_steps": 3}
        finetune("first", dataset=hands, **kept)
        (file,) = (tmp_path / "latents").iterdir()
        assert set(load_file(file)) >= {"0.moments", "5.sizes", "places", "checksums"}
        data = bytearray(file.read_bytes())
        for place in range(len(data) // 2, len(data) - 400, 256):
            data[place] ^= 1
        file.write_bytes(data)
        with pytest.raises(DataError, match=r"latents-\w+\.safetensors is damaged \(item \d\); remove it"):
            finetune("second", dataset=hands, **kept)


class TestOrder:
    @pytest.mark.parametrize(
        "kind", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("buckets", "two")), "both"]
    )
    def test_a_continued_run_is_the_whole_one(self, finetune, hands, images, kind):
        options = {"dataset": hands, "train": "geoconv", "checkpointing_steps": 2}
        if kind != "two":
            options["aspect_ratio_buckets"] = True
        if kind != "buckets":
            options |= {"dataset": [hands, images], "dataset_weights": [3, 1]}
        _, expected = finetune("whole", max_train_steps=4, **options)
        finetune("parts", max_train_steps=2, **options)
        _, lines = finetune("parts", max_train_steps=4, **options)
        assert lines == expected

    def test_weights_are_one_a_data_set(self, finetune, hands, images):
        with pytest.raises(ConfigError, match="1 dataset_weights are given for 2 data sets"):
            finetune("weights", dataset=[hands, images], dataset_weights=[3])


@torch.no_grad()
@pytest.mark.parametrize("size", [(12, 20), (20, 12), (16, 16)])
def test_the_geometry_channel_sees_each_bucket_s_own_size(size):
    """With the weight of x alone, the first layer adds a ramp from -1 at the left edge to 1 at the right one."""
    pipe = tiny_stable_diffusion()
    apply_geoconv(pipe, GeoConvConfig(shift_range=0.0))
    layer, seen = pipe.unet.conv_in, []
    layer.geo_weight.zero_()
    layer.geo_weight[:, 1] = 1.0
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    pipe.unet(torch.zeros(1, 4, *size), 0, torch.zeros(1, 3, 16))
    ramp = seen[0][0, 0] - layer.bias[0]
    assert torch.allclose(ramp, torch.linspace(-1, 1, size[1]).expand(size), atol=1e-5)


class TestMasks:
    def test_the_share_is_logged_and_weights_matter(self, finetune, hands, capsys):
        options = {"dataset": hands, "max_train_steps": 2, "mask_column": "mask", "crop_to": "hand"}
        folder, lines = finetune("masked", **options)
        assert all(0 < line["mask_loss_share"] < 1 for line in lines)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["mask_loss_share"] == pytest.approx(np.mean([line["mask_loss_share"] for line in lines]))
        assert (summary["images_without_box"], summary["images_without_mask"]) == (1, 0)
        assert "of the loss came from inside the masks" in capsys.readouterr().out
        _, even = finetune("even", mask_floor=1.0, **options)
        _, none = finetune("none", dataset=hands, max_train_steps=2, crop_to="hand")
        assert losses(even) == pytest.approx(losses(none), rel=1e-6)
        assert losses(lines) != pytest.approx(losses(none), rel=1e-3)

    @pytest.mark.parametrize(
        ("option", "message"), [("mask_column", "no image has a mask"), ("crop_to", "no image has a box")]
    )
    def test_a_column_that_no_image_has(self, finetune, hands, option, message):
        with pytest.raises(DataError, match=f"{message}: none has a field 'wrong'"):
            finetune("wrong", dataset=hands, max_train_steps=1, **{option: "wrong"})


class TestStreaming:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.0)

    @pytest.fixture(params=["tar", pytest.param("parquet", marks=pytest.mark.slow)])
    def shards(self, request, hands, tmp_path):
        folder = tmp_path / "shards"
        folder.mkdir()
        rows = [json.loads(line) for line in (hands / "metadata.jsonl").read_text().splitlines()]
        for number in range(2):
            own = rows[3 * number : 3 * number + 3]
            encoded = [(hands / row["file_name"]).read_bytes() for row in own]
            if request.param == "parquet":
                features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
                images = [{"bytes": data, "path": None} for data in encoded]
                table = {"image": images, "text": [row["text"] for row in own]}
                datasets.Dataset.from_dict(table, features).to_parquet(folder / f"{number}.parquet")
                continue
            with tarfile.open(folder / f"{number}.tar", "w") as tar:
                for index, (row, data) in enumerate(zip(own, encoded, strict=True)):
                    for suffix, content in (("png", data), ("txt", row["text"].encode())):
                        info = tarfile.TarInfo(f"{number}{index}.{suffix}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
        return folder

    def test_a_continued_run_is_the_whole_one(self, finetune, shards):
        options = {"dataset": shards, "streaming": True, "shuffle_buffer": 3, "checkpointing_steps": 2}
        folder, expected = finetune("whole", max_train_steps=5, **options)
        finetune("parts", max_train_steps=2, **options)
        _, lines = finetune("parts", max_train_steps=5, **options)
        assert lines == expected
        assert json.loads((folder / "summary.json").read_text())["images"] is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"aspect_ratio_buckets": True}, "aspect_ratio_buckets needs to know all images"),
            ({"num_workers": 1}, "give num_workers 0"),
            ({"dataset": ["a", "b"]}, "streaming reads one data set"),
            ({}, "is an image folder, which is read on demand; leave out streaming"),
        ],
    )
    def test_what_cannot_be_streamed(self, finetune, hands, options, message):
        with pytest.raises((ConfigError, DataError), match=message):
            finetune("refused", **{"dataset": hands, "streaming": True, **options})


@pytest.mark.slow
def test_two_processes_share_caches_and_the_sizes_of_their_batches(hands, model, tmp_path):
    """Each encodes its own files; losses are those without caches, and a resumed run is the whole one."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = REPOSITORY / "scripts" / "finetune_text_to_image.py"
    program = tmp_path / "few_items.py"
    program.write_text(
        "import runpy, sys\n"
        "from geopos_diffusers.finetuning import tensor_shards\n"
        "tensor_shards.SHARD_ITEMS = 2\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )

    def run(name, steps, *more):
        options = ["--model", model, "--dataset", hands, "--output_dir", tmp_path / name, "--train_batch_size", 2]
        options += ["--max_train_steps", steps, "--aspect_ratio_buckets", "--report_to", "none", *more]
        command = [*torchrun, program, script, *options]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in (tmp_path / name / "losses.jsonl").read_text().splitlines()]

    expected = run("plain", 4)
    run("cached", 2, "--cache_latents", "--cache_text_embeddings")
    assert len([*(tmp_path / "cached" / "latents").glob("*.safetensors")]) == 3
    assert losses(run("cached", 4, "--cache_latents", "--cache_text_embeddings")) == losses(expected)
