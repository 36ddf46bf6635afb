"""The demo's verdict, its page, and the page in a browser; the whole demo at a tiny size in a slow test."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from experiments.demo import figures as drawing
from experiments.demo import run, scores, section
from experiments.demo.page import score_rows, write_page
from experiments.results import read_results
from PIL import Image

from geopos_diffusers.data.hands import render_hands
from geopos_diffusers.errors import MissingDependencyError
from geopos_diffusers.files import write_json, write_text
from geopos_diffusers.training.loss_log import LossLog

COUNT = 8
SCALES = {"base/images": 0.0, "geometry/scale-0.25": 0.25, "geometry/scale-0.5": 0.5, "geometry/scale-0.75": 0.75}
SHIFTS = {"base/images": 1, "bias/images": 2, "lora/images": 3}  # rows by which hands lie in another's box
HANDS = {"placement": "anywhere", "scale": (0.35, 0.8), "backgrounds": "plain", "poses": "canonical"}
NASTY = 'a hand <b>& "five" fingers'


def interval(value: float, half: float) -> dict:
    return {"value": value, "low": value - half, "high": value + half}


def figures(ratio: float, minus_bias: float, minus_lora: float, kid: float = 0.03) -> dict:
    """As much of a summary as the verdict needs; the intervals of differences are 0.01 to both sides."""
    return {
        "steps": 300,
        "parameters": {"geometry": 14240},
        "loss_ratio": {"geometry": interval(ratio, 0.02)},
        "loss_difference": {"bias": interval(minus_bias, 0.01), "lora": interval(minus_lora, 0.01)},
        "judged": {"iou": {name: interval(0.2, 0.01) for name in (*scores.ARM_NAMES, scores.RENDERED)}},
        "kid": {"base": interval(0.06, 0.01), "geometry": interval(kid, 0.01)},
    }


class TestVerdict:
    def test_names_what_the_geometry_beats(self):
        verdict = scores.verdict(figures(0.6, -0.05, 0.005))
        assert verdict.startswith("14,240 geometry weights, told the box and trained for 300 steps, lower the loss")
        assert "better than a bias alone (difference -0.050 [-0.060, -0.040])" in verdict
        assert "no better than LoRA" in verdict
        assert "are closer to rendered hands (KID-MobileNetV2-224 0.030 against 0.060)" in verdict

    @pytest.mark.parametrize(("minus_bias", "word"), [(-0.005, "no better"), (0.05, "worse")])
    def test_begins_with_a_control_that_is_as_good(self, minus_bias, word):
        verdict = scores.verdict(figures(0.6, minus_bias, -0.05))
        assert verdict.startswith(f"The geometry is {word} than a bias alone")

    @pytest.mark.parametrize(
        ("ratio", "words"), [(1.0, "do not change the loss"), (1.1, "raise the loss"), (0.9, "lower the loss")]
    )
    def test_says_what_happens_to_the_loss(self, ratio, words):
        assert words in scores.verdict(figures(ratio, -0.05, -0.05))

    @pytest.mark.parametrize(
        ("kid", "words"), [(0.06, "not measurably closer to"), (0.1, "farther from"), (0.02, "are closer to")]
    )
    def test_says_whether_pictures_are_closer(self, kid, words):
        assert f"{words} rendered hands" in scores.verdict(figures(0.6, -0.05, -0.05, kid))


def test_differences_are_paired():
    base = np.random.default_rng(0).uniform(0.01, 1.0, 200)
    difference = scores.loss_difference(base, 0.6 * base, 0.61 * base, seed=0)
    assert difference["value"] == pytest.approx(-0.01)
    assert difference["high"] - difference["low"] < 1e-6  # unpaired, it would be about 0.1 wide
    assert scores.loss_ratio(base, 0.6 * base, seed=0)["high"] == pytest.approx(0.6)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A finished demo of real files: rendered hands stand for drawn ones, scored by the real detector."""
    pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
    pytest.importorskip("mediapipe", reason="finding hands needs the extra geopos-diffusers[eval]")
    output = tmp_path_factory.mktemp("demo")
    draw_pictures(output)
    score_pictures(output)
    write_json(output / "places.json", run.places_of_hands(output, COUNT))
    losses = np.random.default_rng(0).uniform(0.05, 0.5, 64)
    arms = {"base": 1.0, "geometry": 0.6, "bias": 0.65, "lora": 0.62}
    write_json(output / "held_out.json", {name: (ratio * losses).tolist() for name, ratio in arms.items()})
    for name in ("geometry", "bias", "lora"):
        facts = {"steps": 5, "samples_per_step": 16, "images": COUNT, "trained_parameters": 14240}
        write_json(output / name / "train" / "summary.json", facts | {"learning_rate": {name: 0.1}})
        log = LossLog(output / name / "train")
        for step in range(1, 6):
            log.append(step=step, loss=1 / step)
    stages = {"geometry train": {"command": "geopos train --model '<none>'", "seconds": 1.5}}
    summary = scores.summarise(output, 0) | {"stages": stages, "total_seconds": 2.0}
    write_json(output / "summary.json", summary)
    write_page(output)
    return output


def draw_pictures(output: Path) -> None:
    """The geometry has each hand in its box; the others have another row's, and the scales are between."""
    drawn = render_hands(COUNT, 64, 3, views=("palm", "back"), max_tilt=12, max_rotation=15, **HANDS)
    hands, attributes = zip(*drawn, strict=True)
    rows = [{"file_name": f"{index:05d}.png", **one} for index, one in enumerate(attributes)]
    rows[0]["text"] = NASTY
    folders = {"reference": 1.0, "geometry/images": 1.0, "geometry/places": 1.0, "bias/images": 0.0, "lora/images": 0.0}
    for name, scale in {**folders, **SCALES}.items():
        folder, shift = output / name, SHIFTS.get(name, 1)
        folder.mkdir(parents=True)
        for index, row in enumerate(rows):
            Image.blend(hands[index - shift], hands[index], scale).save(folder / row["file_name"])
        write_text(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def score_pictures(output: Path) -> None:
    from geopos_diffusers.metrics.evaluation import evaluate_hands
    from geopos_diffusers.metrics.report import write_report

    folders = [output / name / "images" for name in scores.ARM_NAMES]
    try:
        evaluation = evaluate_hands(folders, output / "reference", names=list(scores.ARM_NAMES), progress=False)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    write_report(evaluation, output / "scores")


class PageReader(HTMLParser):
    """Texts in order, addresses, tags, and pictures without a text of their own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts, self.addresses, self.tags, self.without_alt = [], [], [], 0
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self._within = tag
        self.addresses += [given[name] for name in ("src", "href") if given.get(name)]
        self.without_alt += tag == "img" and not given.get("alt")

    def handle_data(self, data):
        if data.strip() and self._within not in ("title", "style", "script"):
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def page(demo) -> PageReader:
    return PageReader((demo / "index.html").read_text(encoding="utf-8"))


class TestPage:
    def test_begins_with_the_verdict(self, demo, page):
        verdict = json.loads((demo / "summary.json").read_text(encoding="utf-8"))["verdict"]
        assert page.texts[0] == verdict
        assert "better than a bias alone (difference -0.050" in verdict

    def test_is_one_small_file(self, demo, page):
        elsewhere = [address for address in page.addresses if not address.startswith("data:image/")]
        assert elsewhere == ["scores/report.html"]
        assert (demo / "scores" / "report.html").is_file()
        assert not {"link", "iframe"} & set(page.tags)
        assert (demo / "index.html").stat().st_size < 5e6

    def test_texts_are_escaped_and_pictures_described(self, page):
        assert NASTY in page.texts
        assert "b" not in page.tags
        assert page.without_alt == 0
        assert any("geopos train --model '<none>'" in text for text in page.texts)

    def test_table_has_every_arm_and_interval(self, demo):
        summary = json.loads((demo / "summary.json").read_text(encoding="utf-8"))
        rows = {row[0]: row[1:] for row in score_rows(summary)}
        assert {len(row) for row in rows.values()} == {5}
        assert rows["held-out loss, ratio to base"][1:4] == [
            f"{ratio:.3f} [{ratio:.3f}, {ratio:.3f}]" for ratio in (0.6, 0.65, 0.62)
        ]
        assert rows["geometry's ratio minus this"][0] == "-0.400 [-0.400, -0.400]"

    def test_places_are_measured(self, demo):
        summary = json.loads((demo / "summary.json").read_text(encoding="utf-8"))
        overlap = {name: value["value"] for name, value in summary["judged"]["iou"].items()}
        assert overlap["geometry"] == overlap["rendered"] > 0.75
        assert max(overlap[name] for name in ("base", "bias", "lora")) < 0.5
        assert all(value["low"] > 0.2 for value in summary["judged_difference"]["iou"].values())
        assert summary["judged"]["one_hand"]["geometry"]["value"] == 1

    def test_every_place_is_shown(self, page):
        assert f"One prompt, one noise, {COUNT} boxes" in page.texts

    def test_detector_grids_show_the_same_prompts(self, demo):
        asked = [
            [text.split(",")[0] for _, text in drawing.detector_pictures(demo, name, COUNT)]
            for name in ("base", "geometry")
        ]
        assert asked[0] == asked[1]
        assert len(asked[0]) == COUNT

    def test_comparison_is_written(self, demo):
        assert Image.open(demo / "comparison.png").width > 8 * 192


class TestInBrowser:
    @pytest.fixture(autouse=True)
    def opened(self, demo, browser):
        browser.get((demo / "index.html").resolve().as_uri())

    def test_first_line_is_the_verdict(self, demo, browser):
        verdict = json.loads((demo / "summary.json").read_text(encoding="utf-8"))["verdict"]
        assert browser.find_element("tag name", "body").text.splitlines()[0] == verdict

    def test_slider_changes_the_pictures_by_key(self, browser):
        slider = browser.find_element("id", "scale")
        pictures = browser.find_elements("css selector", "#strength img")
        shown, sources = [], []
        for _ in range(5):
            shown.append(browser.find_element("id", "shown").text)
            sources.append([picture.get_attribute("src") for picture in pictures])
            slider.send_keys("\ue012")  # the left arrow
        assert shown == ["1", "0.75", "0.5", "0.25", "0"]
        assert len(pictures) == COUNT
        assert all(len(set(frames)) == 5 for frames in zip(*sources, strict=True))

    def test_every_picture_can_be_shown(self, browser):
        broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert browser.execute_script(broken) == 0

    def test_page_fits_a_telephone(self, browser):
        screen = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        try:
            assert browser.execute_script("return window.innerWidth") == 360
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
            box = browser.find_element("class name", "box")
            widths = browser.execute_script("return [arguments[0].scrollWidth, arguments[0].clientWidth]", box)
            assert widths[0] > widths[1]  # the table is wider, and scrolls within its box
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_whole_demo_at_a_tiny_size(tmp_path):
    pytest.importorskip("anny", reason="rendering hands needs the extra geopos-diffusers[data]")
    pytest.importorskip("mediapipe", reason="finding hands needs the extra geopos-diffusers[eval]")
    sizes = ["--train-images", "32", "--max-train-steps", "2", "--num-images", "8", "--validation-images", "8"]
    results = tmp_path / "demo.json"
    assert run.main(["--output", str(tmp_path / "demo"), "--results", str(results), *sizes]) == 0
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text(encoding="utf-8"))
    assert summary["parameters"] == {"geometry": 14240, "bias": 3560, "lora": 18304}
    assert summary["drawn_images"] == 8
    assert {"render hands", "base draw", "geometry draw at all places", "score", "lora train"} <= set(summary["stages"])
    assert len(list((tmp_path / "demo" / "geometry" / "places").glob("0*.png"))) == run.GRID**2
    assert (tmp_path / "demo" / "index.html").is_file()
    kept = read_results(results, "demo")
    assert kept["summary"] == summary
    page = section.page(kept, results)
    assert page.startswith(f"# The demo\n\n{summary['verdict']}\n")
    assert "| weights trained | 0 | 14,240 | 3,560 | 18,304 | - |" in page
