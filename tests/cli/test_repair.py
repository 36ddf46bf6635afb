"""`geopos repair`: what is found, written and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import refused, save_random_adapter, spoiled_hands
from PIL import Image, ImageCms
from tiny_models import tiny_sana
from trained_models import trained_stable_diffusion

from geopos_diffusers import GeoConvConfig, save_geoconv_weights
from geopos_diffusers.cli.main import main

BOX = ["--box", "0.2", "0.2", "0.7", "0.7"]


@pytest.fixture
def image(tmp_path) -> str:
    """A file of noise, in which there is no hand."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return str(tmp_path / "image.png")


@pytest.fixture(scope="module")
def hands(tmp_path_factory) -> Path:
    """A folder of two rendered hands that are not well formed, of 96 pixels."""
    return spoiled_hands(tmp_path_factory.mktemp("rendered"), 2)


def repair(model: str | None, output: Path, *extra: str) -> int:
    """model: None for the default."""
    options = [
        *([] if model is None else ["--model", model]),
        "--steps",
        "2",
        "--num-candidates",
        "2",
        "--quiet",
        "--output",
        str(output),
    ]
    return main(["repair", *extra, *options])


def record(folder: Path) -> list[dict]:
    return json.loads((folder / "repair.json").read_text())["images"]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


class TestWritten:
    def test_the_packaged_model_repairs_hands_that_the_detector_finds(self, hands, tmp_path, capsys):
        files = [str(hands / f"{index:06d}.png") for index in (0, 1)]
        options = ["--prompt", "a photo of the palm of a left hand, an open hand", "--steps", "6", "--seed", "1"]
        assert repair(None, tmp_path / "out", *files, *options) == 0
        assert "2 hands in 2 images" in capsys.readouterr().out
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"000000.png", "000001.png", "contact_sheet.png", "hands.png", "repair.json"}
        for file, row in zip(files, record(tmp_path / "out"), strict=True):
            assert row["image"] == file
            assert row["found_by"] in ("detector", "second judge")
            (hand,) = row["hands"]
            scores = [hand["before"], *hand["candidates"]]
            good = [score["well_formed"] * score["number_right"] for score in scores]
            best = max(zip([score["present"] > 0.5 for score in scores], good, strict=True))
            assert hand["after"]["well_formed"] * hand["after"]["number_right"] == best[1]
            assert [candidate["seed"] for candidate in hand["candidates"]] == [1, 2]
            left, upper, right, lower = hand["mask"]
            before, after = pixels(Path(file)), pixels(tmp_path / "out" / row["written"])
            changed = (before != after).any(2)
            assert changed.any() == (hand["chosen"] is not None)
            changed[upper:lower, left:right] = False
            assert not changed.any()
        saved = json.loads(Image.open(tmp_path / "out" / "000001.png").text["geopos"])
        assert saved["repair"] == record(tmp_path / "out")[1]
        assert saved["settings"]["model"] == "hands64-v2"
        assert saved["settings"]["guidance_scale"] == 2.5

    def test_boxes_by_hand_alpha_and_profile(self, model, tmp_path):
        """Transparent noise with a colour profile; two boxes."""
        values = np.random.default_rng(0).integers(0, 256, (60, 80, 4), dtype=np.uint8)
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        Image.fromarray(values).save(tmp_path / "clear.png", icc_profile=profile)
        boxes = ["--box", "0.1", "0.2", "0.3", "0.6", "--box", "0.6", "0.2", "0.9", "0.6"]
        output = tmp_path / "out"
        assert repair(model, output, str(tmp_path / "clear.png"), *boxes, "--allow-worse") == 0
        (row,) = record(output)
        after, kept = pixels(output / "clear.png"), np.ones((60, 80), dtype=bool)
        for hand in row["hands"]:
            left, upper, right, lower = hand["mask"]
            kept[upper:lower, left:right] = False
        assert row["found_by"] == "given"
        assert len(row["hands"]) == 2
        assert (after[kept] == values[kept]).all()
        assert (after[..., 3] == values[..., 3]).all()
        assert (after[~kept] != values[~kept]).any(1).mean() > 0.5
        assert Image.open(output / "clear.png").info["icc_profile"] == profile

    def test_a_run_repeats_bitwise(self, model, image, tmp_path):
        for name in ("first", "second"):
            assert repair(model, tmp_path / name, image, *BOX, "--seed", "4", "--allow-worse") == 0
        assert (pixels(tmp_path / "first" / "image.png") == pixels(tmp_path / "second" / "image.png")).all()
        assert record(tmp_path / "first") == record(tmp_path / "second")

    def test_the_input_stays_and_is_turned_upright(self, model, tmp_path):
        """A JPEG whose EXIF says that it lies on its side."""
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.zeros((40, 64, 3), dtype=np.uint8)).save(tmp_path / "side.jpg", exif=exif)
        before = (tmp_path / "side.jpg").read_bytes()
        assert repair(model, tmp_path / "out", str(tmp_path / "side.jpg"), *BOX) == 0
        assert (tmp_path / "side.jpg").read_bytes() == before
        assert record(tmp_path / "out")[0]["size"] == [40, 64]
        assert Image.open(tmp_path / "out" / "side.png").size == (40, 64)

    def test_the_prompt_that_an_image_was_saved_with(self, model, tmp_path):
        prompts = ["generate", "--model", model, "--steps", "1", "--prompt", "three fingers"]
        assert main([*prompts, "--output", str(tmp_path / "made")]) == 0
        made = str(tmp_path / "made" / "00000.png")
        assert repair(model, tmp_path / "own", made, *BOX) == 0
        assert repair(model, tmp_path / "other", made, *BOX, "--prompt", "a fist") == 0
        assert [record(tmp_path / name)[0]["prompt"] for name in ("own", "other")] == ["three fingers", "a fist"]

    def test_an_adapter_with_frames_sets_the_scale(self, model, image, tmp_path):
        """The mean box is half as wide as the image, so the hand fills half of the square."""
        framed = tmp_path / "framed"
        save_geoconv_weights(trained_stable_diffusion(GeoConvConfig(default_frame=(0.1, 0.1, 0.6, 0.4))), framed)
        plain = save_random_adapter(tmp_path / "plain", seed=0)
        box = ["--box", "0.4", "0.4", "0.6", "0.6", "--margin", "0.1"]
        sides = []
        for adapter in (str(framed), plain):
            name = Path(adapter).name
            assert repair(model, tmp_path / f"{name}-out", image, *box, "--geoconv", adapter) == 0
            sides.append(record(tmp_path / f"{name}-out")[0]["hands"][0]["region"][2])
        assert sides == [32, 27]  # 16 pixels over 0.5 and over 0.6


class TestBoxesFile:
    def test_rows_of_a_data_set(self, model, hands, tmp_path):
        rows = [
            {"file_name": "hands/000001.png", "boxes": [[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.9, 0.9]]},
            {"file_name": "000000.png", "box": [0.2, 0.2, 0.8, 0.8], "text": "a hand"},
            {"file_name": "another.png", "box": [0.2, 0.2, 0.8, 0.8]},
            {"file_name": "others/000001.png", "box": [0.2, 0.2, 0.8, 0.8]},
            {"file_name": "000000.png", "text": "a row without hands"},
        ]
        (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
        files = [str(hands / f"{index:06d}.png") for index in (0, 1)]
        assert repair(model, tmp_path / "out", *files, "--boxes", str(tmp_path / "boxes.jsonl")) == 0
        found = [[hand["box"] for hand in row["hands"]] for row in record(tmp_path / "out")]
        assert found == [[rows[1]["box"]], rows[0]["boxes"]]

    def test_lines_of_numbers_for_one_image(self, model, image, tmp_path):
        (tmp_path / "boxes.txt").write_text("0.1 0.1 0.4 0.5\n\n[0.5, 0.5, 0.9, 0.9]\n")
        assert repair(model, tmp_path / "out", image, "--boxes", str(tmp_path / "boxes.txt")) == 0
        assert len(record(tmp_path / "out")[0]["hands"]) == 2

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"file_name": "other.png", "box": [0.1, 0.1, 0.4, 0.5]}', "holds no box of image.png"),
            ('{"text": "a hand"}', "line 1 has no box"),
            ('{"box": null, "boxes": null}', "line 1 has no box"),
            ("0.1 0.1 0.4", "line 1: box takes four numbers"),
            ('{"boxes": [[0.1, 0.1, 1.4, 0.5]]}', "line 1: box 0.1 0.1 1.4 0.5 reaches outside"),
            ('{"boxes": 3}', "line 1: boxes takes a list of boxes; got 3"),
            ('{"boxes": [3]}', "line 1: box takes four numbers"),
            ("", "holds no box of image.png"),
        ],
    )
    def test_bad_lines(self, model, image, tmp_path, capsys, text, message):
        (tmp_path / "boxes.txt").write_text(text)
        options = ["--boxes", str(tmp_path / "boxes.txt"), "--output", str(tmp_path / "out")]
        assert message in refused(capsys, "repair", image, "--model", model, *options)
        assert not (tmp_path / "out").exists()


class TestDryRun:
    def test_it_names_the_hands_and_writes_nothing(self, hands, tmp_path, capsys):
        file = str(hands / "000000.png")
        assert main(["repair", file, "--dry-run", "--output", str(tmp_path / "out")]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith(f"{file}: 1 hand (")
        assert not (tmp_path / "out").exists()
        box = np.array(printed.rpartition(": ")[2].split(), dtype=float)
        row = json.loads((hands / "metadata.jsonl").read_text().splitlines()[0])
        assert np.abs(box - np.array(row["box"]) / 96).max() < 0.12

    def test_a_mask_of_the_whole_square_is_said(self, image, tmp_path, capsys):
        whole, half = ["--box", "0", "0", "1", "1"], BOX
        for box, warned in ((whole, True), (half, False)):
            assert main(["repair", image, *box, "--dry-run", "--output", str(tmp_path / "out")]) == 0
            assert ("the mask covers nearly the whole square" in capsys.readouterr().err) is warned

    def test_images_without_hands_can_be_left_out(self, hands, image, tmp_path, capsys):
        files = [image, str(hands / "000000.png")]
        assert main(["repair", *files, "--skip-unfound", "--dry-run", "--output", str(tmp_path / "out")]) == 0
        assert f"{image}: no hand is found; left out" in capsys.readouterr().out
        alone = refused(capsys, "repair", image, "--skip-unfound", "--output", str(tmp_path / "out"))
        assert "no hand is found in any of the images" in alone


class TestRefused:
    """One line, exit code 2, and nothing is written."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--box", "0.5", "0.5", "1.2", "0.9"], "--box 0.5 0.5 1.2 0.9 reaches outside the image"),
            (["--box", "0.5", "0.5", "0.4", "0.9"], "empty or reversed"),
            (["--box", "0.5", "0.5", "0.505", "0.9"], "covers less than a pixel"),
            ([*BOX, "--boxes", "boxes.txt"], "give --box or --boxes, not both"),
            (["--boxes", "nowhere.txt"], "no file of boxes nowhere.txt"),
            ([], "no hand is found; say where it is with --box"),
            ([*BOX, "--num-candidates", "0"], "error: --num-candidates must be 1 or more; got 0"),
            ([*BOX, "--strength", "1.5"], "error: --strength must be above 0 and up to 1; got 1.5"),
            ([*BOX, "--strength", "nan"], "strength must be above 0"),
            ([*BOX, "--inference-steps", "0"], "error: --inference-steps must be 1 or more; got 0"),
            ([*BOX, "--batch-size", "0"], "error: --batch-size must be 1 or more; got 0"),
            ([*BOX, "--min-score", "2"], "error: --min-score must be between 0 and 1; got 2"),
            ([*BOX, "--guidance-scale", "nan"], "error: --guidance-scale must be a finite number"),
            ([*BOX, "--size", "4"], "error: --size must be between 8 and 8192 pixels; got 4"),
            ([*BOX, "--size", "2000000"], "error: --size must be between 8 and 8192 pixels; got 2000000"),
            ([*BOX, "--size", "33"], "error: --size must be a multiple of 8 pixels for StableDiffusionInpaintPipeline"),
            ([*BOX, "--model", "hands64", "--size", "66"], "error: --size must be a multiple of 4 pixels"),
            ([*BOX, "--model", "hands64-v2", "--size", "65"], "error: --size must be a multiple of 4 pixels"),
            ([*BOX, "--margin", "-1"], "margin must be between 0 and 2"),
            ([*BOX, "--only-bad", "--min-score", "0.3"], "give --only-bad or --min-score, not both"),
            ([*BOX, "--geoconv-scale", "2"], "--geoconv-scale needs --geoconv"),
            ([*BOX, "--model", "nowhere"], "no pipeline 'nowhere'"),
            ([*BOX, "--device", "nothing"], "cannot use device 'nothing'"),
            ([*BOX, "--geoconv", "nowhere"], "nowhere"),
        ],
    )
    def test_options(self, model, image, tmp_path, capsys, options, message):
        line = refused(capsys, "repair", image, "--model", model, "--output", str(tmp_path / "out"), *options)
        assert message in line
        assert not (tmp_path / "out").exists()

    def test_images(self, model, image, tmp_path, capsys):
        def line(*files: str, output: str = "out") -> str:
            return refused(capsys, "repair", *files, "--model", model, *BOX, "--output", str(tmp_path / output))

        assert "missing.png: no such file" in line(str(tmp_path / "missing.png"))
        assert "no such file" in line(str(tmp_path))
        (tmp_path / "text.png").write_text("no image")
        assert "text.png: not a readable image" in line(str(tmp_path / "text.png"))
        (tmp_path / "cut.png").write_bytes(Path(image).read_bytes()[:2000])
        assert "cut.png: not a readable image" in line(str(tmp_path / "cut.png"))
        Image.new("I;16", (40, 40)).save(tmp_path / "deep.png")
        assert "deep.png: it has more than 8 bits a channel" in line(str(tmp_path / "deep.png"))
        assert "image.png and" in line(image, image)
        Image.open(image).save(tmp_path / "contact_sheet.png")
        assert "which is the report's" in line(str(tmp_path / "contact_sheet.png"))
        assert not (tmp_path / "out").exists()

    def test_the_input_is_never_overwritten(self, model, image, tmp_path, capsys):
        options = ["--model", model, *BOX, "--output", str(tmp_path)]
        assert "is not empty" in refused(capsys, "repair", image, *options)
        assert "lies in the output folder" in refused(capsys, "repair", image, *options, "--overwrite")
        assert Path(image).is_file()

    def test_sixteen_bits_of_colour(self, model, tmp_path, capsys):
        """Pillow would read them as eight."""
        import struct
        import zlib

        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        rows = zlib.compress(b"".join(b"\0" + bytes(16 * 6) for _ in range(16)))
        header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        (tmp_path / "deep.png").write_bytes(png)
        options = ["--model", model, *BOX, "--output", str(tmp_path / "out")]
        assert "more than 8 bits a channel" in refused(capsys, "repair", str(tmp_path / "deep.png"), *options)

    def test_models_that_cannot_inpaint(self, image, tmp_path, capsys):
        tiny_sana().save_pretrained(tmp_path / "sana")
        options = ["--model", str(tmp_path / "sana"), *BOX, "--output", str(tmp_path / "out")]
        assert "SanaPipeline cannot inpaint" in refused(capsys, "repair", image, *options)
        assert not (tmp_path / "out").exists()
