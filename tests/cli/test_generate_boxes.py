"""`geopos generate` with boxes: every image in its own, one noise over a grid, what is written and refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import generate, refused
from PIL import Image
from tiny_models import tiny_stable_diffusion
from trained_models import trained_stable_diffusion

from geopos_diffusers import GeoConvConfig, geoconv_frames, load_geoconv_weights, save_geoconv_weights
from geopos_diffusers.boxes import check_box
from geopos_diffusers.cli.box_options import grid_places
from geopos_diffusers.errors import ConfigError, SurgeryError
from geopos_diffusers.images.box_drawing import COLOUR, draw_boxes
from geopos_diffusers.pipelines.generation import generate_images

MEAN = (0.25, 0.25, 0.75, 0.75)
PROMPTS = ("--prompt", "a hand", "--prompt", "two hands")


@pytest.fixture(scope="module")
def framed(tmp_path_factory) -> str:
    """An adapter of the tiny pipeline whose config says that it was trained with frames."""
    folder = tmp_path_factory.mktemp("framed") / "adapter"
    save_geoconv_weights(trained_stable_diffusion(GeoConvConfig(default_frame=MEAN), size=1.0), folder)
    return str(folder)


def pixels(folder: Path, index: int = 0) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{index:05d}.png")).astype(int)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


class TestBoxes:
    def test_one_box_for_all_images(self, model, framed, tmp_path):
        box = ["--box", "0", "0.1", "0.5", "0.6"]
        assert generate(model, tmp_path / "out", *PROMPTS, "--geoconv", framed, *box) == 0
        assert [row["box"] for row in rows(tmp_path / "out")] == [[0.0, 0.1, 0.5, 0.6]] * 2
        record = json.loads(Image.open(tmp_path / "out" / "00001.png").text["geopos"])
        assert record["box"] == [0.0, 0.1, 0.5, 0.6]
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, framed)
        with geoconv_frames(pipe, (0, 0.1, 0.5, 0.6)):
            images = [item.image for item in generate_images(pipe, ["a hand", "two hands"], seed=3, steps=2)]
        for index, image in enumerate(images):
            assert np.abs(pixels(tmp_path / "out", index) - np.asarray(image)).max() <= 1

    def test_a_box_for_each_prompt_in_every_batch(self, model, framed, tmp_path):
        """Five images over batches of two, going round two prompts and boxes."""
        (tmp_path / "boxes.jsonl").write_text('{"box": [0, 0, 0.5, 0.5], "text": "left"}\n\n0.5, 0.5, 1, 1\n')
        options = ["--geoconv", framed, "--num-images", "5", "--batch-size"]
        boxes = ["--boxes", str(tmp_path / "boxes.jsonl")]
        assert generate(model, tmp_path / "two", *PROMPTS, *boxes, *options, "2") == 0
        assert generate(model, tmp_path / "one", *PROMPTS, *boxes, *options, "1") == 0
        assert generate(model, tmp_path / "none", *PROMPTS, *options, "1") == 0
        expected = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]
        assert [row["box"] for row in rows(tmp_path / "two")] == [expected[index % 2] for index in range(5)]
        assert "box" not in rows(tmp_path / "none")[0]
        for index in range(5):
            assert np.abs(pixels(tmp_path / "two", index) - pixels(tmp_path / "one", index)).max() <= 1
            assert np.abs(pixels(tmp_path / "one", index) - pixels(tmp_path / "none", index)).max() > 8

    def test_a_null_is_no_box(self, model, framed, tmp_path):
        boxes = [[0.0, 0.1, 0.5, 0.6], [0.5, 0.4, 1.0, 0.9]]
        lines = [{"box": None, "boxes": boxes}, {"box": boxes[0], "boxes": None}]
        (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, lines)))
        options = ["--geoconv", framed, "--boxes", str(tmp_path / "boxes.jsonl")]
        assert generate(model, tmp_path / "out", *PROMPTS, *options) == 0
        assert [row.get("boxes", row.get("box")) for row in rows(tmp_path / "out")] == [boxes, boxes[0]]

    def test_several_boxes_in_each_image(self, model, framed, tmp_path):
        """On the command line for all images, or of a file, where images may have different numbers of them."""
        left, right = ["0", "0.1", "0.5", "0.6"], ["0.5", "0.4", "1", "0.9"]
        boxes = [[float(value) for value in box] for box in (left, right)]
        given = ["--box", *left, "--box", *right, "--draw-box"]
        assert generate(model, tmp_path / "all", *PROMPTS, "--geoconv", framed, *given) == 0
        assert [row["boxes"] for row in rows(tmp_path / "all")] == [boxes] * 2
        assert json.loads(Image.open(tmp_path / "all" / "00001.png").text["geopos"])["boxes"] == boxes
        assert json.loads((tmp_path / "all" / "settings.json").read_text())["box"] == boxes
        (tmp_path / "boxes.jsonl").write_text(json.dumps({"boxes": boxes}) + "\n" + json.dumps(boxes[0]))
        file = ["--boxes", str(tmp_path / "boxes.jsonl")]
        assert generate(model, tmp_path / "each", *PROMPTS, "--geoconv", framed, *file) == 0
        assert [row.get("boxes", row.get("box")) for row in rows(tmp_path / "each")] == [boxes, boxes[0]]
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, framed)
        with geoconv_frames(pipe, [boxes, [boxes[0]] * 2]):
            images = [item.image for item in generate_images(pipe, ["a hand", "two hands"], seed=3, steps=2)]
        assert np.abs(pixels(tmp_path / "all") - np.asarray(images[0])).max() <= 1
        for index, image in enumerate(images):
            assert np.abs(pixels(tmp_path / "each", index) - np.asarray(image)).max() <= 1
        assert np.abs(pixels(tmp_path / "all", 1) - pixels(tmp_path / "each", 1)).max() > 8

    def test_guidance_strengthens_boxes_too(self, model, framed, tmp_path):
        """Prompts and seeds in two batches; the settings tell."""
        box, guided = ["--box", "0", "0.1", "0.5", "0.6"], ["--guided-box", "--guidance-scale", "4"]
        common = [*PROMPTS, "--geoconv", framed, *box, "--num-images", "3", "--batch-size", "2"]
        assert generate(model, tmp_path / "guided", *common, *guided) == 0
        assert generate(model, tmp_path / "not", *common, *guided[1:]) == 0
        assert json.loads((tmp_path / "guided" / "settings.json").read_text())["guided_box"] is True
        assert "guided_box" not in json.loads((tmp_path / "not" / "settings.json").read_text())
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, framed)
        asked = (0.0, 0.1, 0.5, 0.6)
        options = {"num_images": 3, "seed": 3, "steps": 2, "guidance_scale": 4.0, "batch_size": 2}
        images = generate_images(pipe, ["a hand", "two hands"], boxes=[asked], guided_boxes=True, **options)
        for index, item in enumerate(images):
            assert np.abs(pixels(tmp_path / "guided", index) - np.asarray(item.image)).max() <= 1
            assert np.abs(pixels(tmp_path / "guided", index) - pixels(tmp_path / "not", index)).max() > 8

    def test_guided_boxes_need_guidance(self, framed):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, framed)
        message = "guided frames of 2 images are set and the model was called with 2 samples, not 4"
        with pytest.raises(ConfigError, match=message):
            list(generate_images(pipe, ["a"] * 2, boxes=[MEAN], guided_boxes=True, guidance_scale=1.0, steps=1))

    @pytest.mark.parametrize("scale", ["1", "0.5", "-2"])
    def test_guidance_that_guides_nothing_is_refused_before_the_model_is_loaded(self, model, tmp_path, capsys, scale):
        """An adapter that there is not would be missed with the model."""
        command = ["generate", "--model", model, *PROMPTS, "--geoconv", "nowhere", "--output", str(tmp_path / "out")]
        options = ["--box", "0", "0", "0.5", "1", "--guided-box", f"--guidance-scale={scale}"]
        line = refused(capsys, *command, *options)
        assert f"--guided-box needs a --guidance-scale above 1; got {scale}" in line

    def test_guided_boxes_need_boxes(self, framed):
        pipe = tiny_stable_diffusion()
        load_geoconv_weights(pipe, framed)
        with pytest.raises(ConfigError, match="guided_boxes needs boxes"):
            next(generate_images(pipe, ["a hand"], guided_boxes=True, steps=1))

    def test_the_mean_box_is_the_default(self, model, framed, tmp_path):
        box = ["--box", *map(str, MEAN)]
        assert generate(model, tmp_path / "given", *PROMPTS, "--geoconv", framed, *box) == 0
        assert generate(model, tmp_path / "default", *PROMPTS, "--geoconv", framed) == 0
        assert np.abs(pixels(tmp_path / "given") - pixels(tmp_path / "default")).max() <= 1

    def test_a_grid_has_one_noise(self, model, framed, tmp_path):
        """The base model's images show it: they are the same at all places."""
        options = ["--geoconv", framed, "--box-grid", "2", "--compare", "--draw-box"]
        assert generate(model, tmp_path / "out", *PROMPTS, *options) == 0
        found = rows(tmp_path / "out")
        assert [row["seed"] for row in found] == [3] * 4 + [4] * 4
        assert [row["text"] for row in found] == ["a hand"] * 4 + ["two hands"] * 4
        places = [[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], [0.0, 0.5, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]]
        assert [row["box"] for row in found] == places * 2
        for first, others in ((0, (1, 2, 3)), (4, (5, 6, 7))):
            for index in others:
                base = tmp_path / "out" / "base"
                assert np.abs(pixels(base, index) - pixels(base, first)).max() <= 1
                assert np.abs(pixels(tmp_path / "out", index) - pixels(tmp_path / "out", first)).max() > 8
        sheet = np.asarray(Image.open(tmp_path / "out" / "contact_sheet.png"))
        assert (sheet == COLOUR).all(axis=2).sum() > 16 * 4 * 90  # lines around half of each of 16 cells of 192 pixels

    def test_a_grid_for_several_seeds(self, model, framed, tmp_path):
        options = ["--geoconv", framed, "--box-grid", "2", "--num-images", "3", "--box", "0", "0", "0.2", "0.4"]
        assert generate(model, tmp_path / "out", *PROMPTS[:2], *options) == 0
        found = rows(tmp_path / "out")
        assert [row["seed"] for row in found] == [3] * 4 + [4] * 4 + [5] * 4
        assert found[3]["box"] == pytest.approx([0.8, 0.6, 1.0, 1.0])

    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    @pytest.mark.parametrize("size", [0.1, 1 / 3, 0.7, 1.0])
    def test_places_of_a_grid_are_valid(self, count, size):
        places = [check_box(box) for box in grid_places(count, size, 1 - size / 2)]
        assert len(places) == count**2
        centres = np.array([[(x0 + x1) / 2, (y0 + y1) / 2] for x0, y0, x1, y1 in places])
        assert np.allclose(centres.mean(0), 0.5)

    def test_generating_refuses_boxes_of_another_number(self):
        pipe = trained_stable_diffusion()
        with pytest.raises(ConfigError, match="2 boxes were given for 3 prompts"):
            list(generate_images(pipe, ["a"] * 3, boxes=[MEAN] * 2, steps=1))
        with pytest.raises(SurgeryError, match="not patched"):
            list(generate_images(tiny_stable_diffusion(), ["a"], boxes=[MEAN], steps=1))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--box", "0", "0", "1.5", "1"], "--box 0 0 1.5 1 reaches outside the image"),
            (["--box", "0.5", "0", "0.5", "1"], "--box 0.5 0 0.5 1 is empty or reversed"),
            (["--box", "0.5", "0.9", "0.7", "0.1"], "--box 0.5 0.9 0.7 0.1 is empty or reversed"),
            (["--box", "0", "0", "nan", "1"], "--box takes four numbers"),
            (["--box-grid", "0"], "--box-grid must be between 1 and 16; got 0"),
            (["--box-grid", "2", "--boxes", "x"], "give --boxes or --box-grid, not both"),
            (["--box", "0", "0", "1", "1", "--boxes", "x"], "give --boxes or --box, not both"),
            (["--boxes", "nowhere.txt"], "no file of boxes nowhere.txt"),
            (["--draw-box"], "--draw-box needs --box, --boxes or --box-grid"),
            (["--guided-box"], "--guided-box needs --box, --boxes or --box-grid"),
        ],
    )
    def test_of_options(self, model, framed, tmp_path, capsys, options, message):
        common = ["generate", "--model", model, *PROMPTS, "--geoconv", framed, "--output", str(tmp_path / "out")]
        assert message in refused(capsys, *common, *options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0 0 1 1\n", "holds 1 boxes for 2 prompts; give one for each"),
            ("", "holds 0 boxes for 2 prompts"),
            ("0 0 1 1\n0 0 1\n", "line 2: box takes four numbers"),
            ('{"box": null}\n', "line 1: box takes four numbers"),
            ('{"text": "a hand"}\n', "line 1: box takes four numbers"),
            ('{"box": "0011"}\n', "line 1: box takes four numbers"),
            ('{"box": [0, 0\n', "line 1: box takes four numbers"),
            ("[[0, 0, 1, 1], 2, 3, 4]\n", "line 1: box takes four numbers"),
            ("\n0 0 1 2\n", "line 2: box 0 0 1 2 reaches outside the image"),
        ],
    )
    def test_of_files(self, model, framed, tmp_path, capsys, text, message):
        (tmp_path / "boxes.txt").write_text(text)
        common = ["generate", "--model", model, *PROMPTS, "--geoconv", framed, "--output", str(tmp_path / "out")]
        assert message in refused(capsys, *common, "--boxes", str(tmp_path / "boxes.txt"))
        assert not (tmp_path / "out").exists()

    def test_of_models_without_frames(self, model, adapter, tmp_path, capsys):
        common = [
            "generate",
            "--model",
            model,
            *PROMPTS,
            "--output",
            str(tmp_path / "out"),
            "--box",
            "0",
            "0",
            "1",
            "1",
        ]
        assert "--box needs --geoconv" in refused(capsys, *common)
        assert f"{adapter} was trained without frames" in refused(capsys, *common, "--geoconv", adapter)
        assert not (tmp_path / "out").exists()


class TestDrawing:
    def test_lines_lie_at_the_edges_of_the_box(self):
        drawn = np.asarray(draw_boxes(Image.new("RGB", (32, 16)), [(0.25, 0.0, 0.5, 1.0)]))
        assert drawn.shape == (96, 192, 3)
        ys, xs = np.nonzero((drawn == COLOUR).all(axis=2))
        assert (xs.min(), xs.max(), ys.min(), ys.max()) == (48, 95, 0, 95)
        assert not drawn[10:-10, 60:90].any()

    def test_tiny_boxes_can_be_drawn(self):
        drawn = np.asarray(draw_boxes(Image.new("RGB", (64, 64)), [(0.5, 0.5, 0.501, 0.501), (0.999, 0.999, 1, 1)]))
        assert (drawn == COLOUR).all(axis=2).any()


def test_info_tells_of_frames(model, framed, capsys):
    from geopos_diffusers.cli.main import main

    assert main(["info", "--model", model, "--geoconv", framed]) == 0
    assert "trained with frames; where none are set: box 0.25 0.25 0.75 0.75" in capsys.readouterr().out
    assert main(["info", "--model", model, "--geoconv", framed, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["config"]["default_frame"] == list(MEAN)
    assert record["frames"] == {"unet": 0}
