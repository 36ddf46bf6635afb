"""report.html: what it is made of, which images it shows, and the page in a browser."""

import json
import time
from html.parser import HTMLParser

import pytest
from report_cases import NASTY_FILE, NASTY_PROMPT, enlarged

from geopos_diffusers.metrics.report_page import build_page, page_data
from geopos_diffusers.metrics.report_thumbnails import choose_images, make_thumbnails, ranking_measures

LARGE = 5000  # images of each of two models


class PageReader(HTMLParser):
    """Tags, addresses, and the text of the element with the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.addresses, self.data, self._in_data = [], [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        self._in_data = given.get("id") == "data"

    def handle_endtag(self, tag):
        self._in_data = False

    def handle_data(self, data):
        if self._in_data:
            self.data += data


class TestPage:
    def test_one_file_without_a_network(self, document):
        reader = PageReader(build_page(document))
        assert all(address.startswith("data:") for address in reader.addresses)
        assert "iframe" not in reader.tags
        assert reader.tags.count("script") == 2
        assert "default-src 'none'" in build_page(document)

    def test_markup_of_others_is_data(self, document):
        reader = PageReader(build_page(document))
        assert "<" not in reader.data
        assert "\u2028" not in reader.data
        data = json.loads(reader.data)
        assert data == page_data(document)
        assert NASTY_PROMPT in data["texts"]
        assert NASTY_FILE in data["sets"][1]["file"]

    def test_values_of_every_image(self, document):
        data = page_data(document)
        assert [part["name"] for part in data["sets"]] == ["base", "lora", "reference"]
        for part, folder in zip(data["sets"], [*document["folders"], document["reference"]], strict=True):
            assert part["file"] == [row["file_name"] for row in folder["images"]]
            assert part["hands"] == [len(row["hands"]) for row in folder["images"]]
            assert [None if text is None else data["texts"][text] for text in part["text"]] == [
                row["prompt"] for row in folder["images"]
            ]
            for measure in document["measures"]:
                for value, row in zip(part["values"][measure["name"]], folder["images"], strict=True):
                    assert value == pytest.approx(row["values"][measure["name"]], abs=0.5 * 10 ** -measure["digits"])

    def test_pairs_share_a_group(self, document):
        data = page_data(document)
        base, lora = data["sets"][:2]
        for index, group in enumerate(base["group"]):
            assert lora["text"][lora["group"].index(group)] == base["text"][index]
        assert lora["group"].count(None) == 1


class TestThumbnails:
    def test_all_of_a_small_report(self, document):
        chosen = choose_images(document)
        assert len(chosen.images) == 9 + 10 + 12
        assert chosen.sentence == "All 31 images are shown."
        made, missing = make_thumbnails(document, chosen)
        assert (len(made), missing) == (31, 0)
        hands = made[1, 0]["hands"]
        assert [len(points) for points in hands] == [42] * len(document["folders"][1]["images"][0]["hands"])
        assert made[1, 0]["src"].startswith("data:image/jpeg;base64,/9j/")

    def test_the_extremes_and_pairs_of_a_large_one(self, document):
        large = enlarged(document, 400)
        name = ranking_measures(large)[0]["name"]
        for place, folder in enumerate(large["folders"]):
            for index, row in enumerate(folder["images"]):
                if row["values"][name] is not None:
                    row["values"] = {**row["values"], name: (index * 37 % 400) / 400 + place}
        chosen = choose_images(large, limit=120)
        assert len(chosen.images) == len(set(chosen.images)) == 120
        assert chosen == choose_images(large, limit=120)
        assert chosen.images != choose_images({**large, "seed": 1}, limit=120).images
        for place, folder in enumerate(large["folders"]):
            values = [(row["values"][name], index) for index, row in enumerate(folder["images"])]
            known = sorted(pair for pair in values if pair[0] is not None)
            for _, index in (*known[:2], *known[-2:]):
                assert (place, index) in chosen.images
        shown = set(chosen.images)
        assert sum((0, index) in shown and (1, index) in shown for index in range(400)) >= 20
        assert chosen.sentence.startswith("120 of 812 images are shown")

    def test_files_that_are_gone_are_counted(self, document, tmp_path):
        document["folders"][0]["path"] = str(tmp_path)
        assert page_data(document)["selection"].endswith("9 of these files can no longer be read.")


@pytest.fixture(scope="module")
def page_file(evaluation, tmp_path_factory):
    from geopos_diffusers.metrics.report_document import evaluation_to_dict

    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build_page(evaluation_to_dict(evaluation)), encoding="utf-8")
    return path


def texts(browser, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements("css selector", selector)]


def choose(browser, section: str, label: str, option: str) -> None:
    """Choose an option of the list with a label in a section."""
    from selenium.webdriver.support.ui import Select

    for control in browser.find_elements("css selector", f"#{section} label"):
        if control.text.startswith(label):
            Select(control.find_element("tag name", "select")).select_by_visible_text(option)


class TestInBrowser:
    @pytest.fixture(autouse=True)
    def opened(self, page_file, browser):
        browser.get(page_file.resolve().as_uri())
        yield
        # An alert of the page would have raised UnexpectedAlertPresentException in the test.
        assert browser.get_log("browser") == []

    def test_shows_texts_of_others_as_they_are(self, browser):
        assert browser.title == "Hands: base, lora"
        shown = browser.execute_script(
            "return [...document.querySelectorAll('#prompts tbody th')].map((cell) => cell.textContent)"
        )
        assert NASTY_PROMPT in shown
        files = browser.execute_script(
            "return [...document.querySelectorAll('#images tbody th')].map((cell) => cell.textContent)"
        )
        assert NASTY_FILE in files
        assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0

    def test_sorts_by_a_heading(self, browser):
        selector = "#images tbody td:nth-child(6)"
        header = browser.find_element("css selector", "#images thead th:nth-child(6)")
        assert header.text.startswith("asked")
        header.find_element("tag name", "button").click()
        assert header.get_attribute("aria-sort") == "descending"
        counts = [int(text) for text in texts(browser, selector)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > counts[-1]
        header.find_element("tag name", "button").send_keys("\ue007")  # the enter key
        assert header.get_attribute("aria-sort") == "ascending"
        counts = [int(text) for text in texts(browser, selector)]
        assert counts == sorted(counts)

    def test_models_are_sorted_by_a_measure(self, browser, page_file):
        table = "#models table[aria-label='Detector (MediaPipe)']"
        assert texts(browser, f"{table} tbody th") == [
            "base",
            "lora",
            "reference, matched to base",
            "reference, matched to lora",
        ]
        for clicks in (1, 2):
            browser.find_element("css selector", f"{table} thead th:nth-child(2) button").click()
            values = [float(text.split("%")[0]) for text in texts(browser, f"{table} tbody td:nth-child(2)")]
            assert values == sorted(values, reverse=clicks == 1)
        assert values[0] < values[-1]

    def test_filters_by_text(self, browser):
        field = browser.find_element("css selector", "#images input[type=search]")
        field.send_keys("NUMBER 7")
        assert len(texts(browser, "#images tbody tr")) == 2
        assert all("number 7" in text for text in texts(browser, "#images tbody td.wide"))
        field.clear()
        field.send_keys("there is no such prompt")
        assert texts(browser, "#images .pager span") == ["nothing to show"]

    def test_pages(self, browser):
        pager = "#images .pager"
        assert texts(browser, f"{pager} span") == ["1 to 25 of 31"]
        first = texts(browser, "#images tbody th")
        browser.find_element("css selector", f"{pager} button:nth-child(2)").click()
        assert texts(browser, f"{pager} span") == ["26 to 31 of 31"]
        second = texts(browser, "#images tbody th")
        assert len(second) == 6
        browser.find_element("css selector", f"{pager} button:nth-child(1)").click()
        assert texts(browser, "#images tbody th") == first

    def test_differences_are_those_of_the_document(self, browser, document):
        rows = len(document["comparisons"])
        assert len(texts(browser, "#differences tbody tr")) == min(20, rows)
        browser.find_element("css selector", "#differences input[type=search]").send_keys("hand found")
        row = next(row for row in document["comparisons"] if row["measure"] == "found")
        cells = texts(browser, "#differences tbody tr:first-child td")
        assert cells[1].startswith(f"+{100 * row['difference']['value']:.1f} points")
        assert cells[2:6] == [str(row[name]) for name in ("wins", "losses", "ties", "pairs")]

    def test_prompts_by_measure(self, browser):
        choose(browser, "prompts", "Measure", "hand found")
        browser.find_element("css selector", "#prompts input[type=search]").send_keys("number 0")
        cells = texts(browser, "#prompts tbody tr td")
        assert cells[:2] == ["2", "0.0%"]  # the base's picture without a hand

    def test_side_by_side(self, browser):
        assert len(texts(browser, "#same .group")) == 9
        for group in browser.find_elements("css selector", "#same .group"):
            assert [name.text for name in group.find_elements("tag name", "strong")] == ["base", "lora"]
        choose(browser, "same", "Measure", "hand found")
        choose(browser, "same", "Order", "largest gain first")
        first = browser.find_element("css selector", "#same .group")
        assert "hand found: 0.0%" in first.text
        assert "hand found: 100.0%" in first.text

    def test_gallery(self, browser, document):
        choose(browser, "gallery", "Images", "lora")
        choose(browser, "gallery", "Measure", "joint ratio difference")
        for view, falls in (("worst first", True), ("best first", False)):
            choose(browser, "gallery", "Show", view)
            shown = [float(text.split(": ")[1].split("\n")[0]) for text in texts(browser, "#gallery figcaption")]
            assert shown == sorted(shown, reverse=falls)
            assert len(shown) == sum(bool(row["hands"]) for row in document["folders"][1]["images"])
        choose(browser, "gallery", "Images", "base")
        choose(browser, "gallery", "Show", "no hand found")
        assert len(texts(browser, "#gallery figure")) == sum(
            not row["hands"] for row in document["folders"][0]["images"]
        )

    def test_landmarks_can_be_hidden(self, browser):
        lines = browser.find_elements("css selector", "#gallery svg polyline")
        assert len(lines) >= 5
        assert lines[0].is_displayed()
        browser.find_element("css selector", "#gallery input[type=checkbox]").click()
        assert not lines[0].is_displayed()

    def test_a_picture_opens_larger_by_key(self, browser):
        browser.find_element("css selector", "#gallery button.picture").send_keys("\ue007")
        dialog = browser.find_element("css selector", "dialog")
        assert "hands found" in dialog.text
        browser.switch_to.active_element.send_keys("\ue00c")  # escape
        assert browser.find_elements("css selector", "dialog[open]") == []

    def test_every_picture_can_be_shown(self, browser):
        broken = "return [...document.images].filter((image) => !image.complete || !image.naturalWidth).length"
        assert browser.execute_script(broken) == 0
        assert browser.execute_script("return document.images.length") > 20

    def test_fits_a_telephone(self, browser):
        screen = {"width": 400, "height": 800, "deviceScaleFactor": 2, "mobile": True}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        try:
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_ten_thousand_images(document, browser, tmp_path):
    """Real rows repeated: what a page of this size weighs, and that it opens, sorts and filters within seconds."""
    path = tmp_path / "report.html"
    started = time.perf_counter()
    path.write_text(build_page(enlarged(document, LARGE)), encoding="utf-8")
    browser.get(path.as_uri())
    assert texts(browser, "#images .pager span") == [f"1 to 25 of {2 * LARGE + 12:,}"]
    browser.find_element("css selector", "#images thead th:nth-child(5) button").click()
    browser.find_element("css selector", "#images input[type=search]").send_keys("(4321)")
    assert len(texts(browser, "#images tbody tr")) == 2
    assert time.perf_counter() - started < 60
    assert path.stat().st_size < 25e6
    assert browser.execute_script("return data.thumbs.length") <= 600
    assert browser.get_log("browser") == []
