"""study.html in a browser."""

import pytest
from experiments.statistics import difference_estimate
from study_cases import LOSSES, values


class TestInBrowser:
    @pytest.fixture(autouse=True)
    def opened(self, folder, browser):
        browser.get((folder / "study.html").resolve().as_uri())
        yield
        assert browser.get_log("browser") == []

    def choose(self, browser, name, value):
        from selenium.webdriver.support.ui import Select

        Select(browser.find_element("id", name)).select_by_value(value)

    def plotted(self, browser):
        """Texts of the forest plot by arm."""
        found = browser.find_elements("css selector", "#forest g.row")
        return {row.get_attribute("data-arm"): row.find_element("css selector", ".value").text for row in found}

    def table(self, browser):
        found = browser.find_elements("css selector", "#values tbody tr")
        cells = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in found]
        return {row[0]: row[1:] for row in cells}

    def test_means(self, browser):
        assert browser.title == "Does geometry help a pretrained diffusion model?"
        self.choose(browser, "task", "poses")
        self.choose(browser, "measure", "loss")
        shown = self.plotted(browser)
        assert list(shown) == ["base", *LOSSES]
        assert shown["base"] == "1.000"
        error = values("geometry").std(ddof=1) / 5**0.5 * 2.776445
        low, high = values("geometry").mean() - error, values("geometry").mean() + error
        assert shown["geometry"] == f"{values('geometry').mean():.3f} [{low:.3f}, {high:.3f}]"
        assert self.table(browser)["geometry"][0] == "5"
        line = browser.find_element("css selector", "#forest line.zero")
        assert line.get_attribute("data-value") == "1"
        circles = {
            name: float(browser.find_element("css selector", f'g[data-arm="{name}"] circle').get_attribute("cx"))
            for name in ("whole UNet", "geometry", "bias", "base")
        }
        assert list(circles.values()) == sorted(circles.values())
        assert circles["base"] == pytest.approx(float(line.get_attribute("x1")))

    def test_differences_from_a_reference(self, browser):
        self.choose(browser, "task", "poses")
        self.choose(browser, "reference", "bias")
        estimate = difference_estimate(values("geometry"), values("bias"))
        shown = self.plotted(browser)
        assert "bias" not in shown
        assert shown["geometry"] == f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
        assert self.table(browser)["geometry"][1:] == [
            f"{estimate.value:.3f}",
            f"[{estimate.low:.3f}, {estimate.high:.3f}]",
        ]
        self.choose(browser, "reference", "base")
        assert self.plotted(browser)["geometry"].startswith(f"{values('geometry').mean() - 1:.3f} [")

    def test_another_task_and_measure(self, browser):
        self.choose(browser, "task", "handedness")
        self.choose(browser, "measure", "handedness_right")
        shown = self.plotted(browser)
        assert list(shown) == ["base", "bias", "geometry"]
        assert shown["bias"].startswith(f"{values('bias', 3).mean():.3f} [")
        self.choose(browser, "measure", "found")
        assert "held-out images" in self.plotted(browser)
        assert "higher is better" in browser.find_element("id", "shown").text

    def test_gallery(self, browser):
        self.choose(browser, "task", "poses")
        pictures = browser.find_elements("css selector", "#gallery img")
        assert [one.get_attribute("src").rsplit("/", 1)[1] for one in pictures] == ["poses.png", "poses-bands.png"]
        assert all(one.get_attribute("alt") for one in pictures)
        sizes = "return [...document.querySelectorAll('#gallery img')].map((one) => one.complete && one.naturalWidth)"
        for _ in range(50):
            if all(found := browser.execute_script(sizes)):
                break
        assert found[0] == 40
        assert found[1] > 400

    def test_by_keyboard(self, browser):
        from selenium.webdriver.common.keys import Keys

        body = browser.find_element("tag name", "body")
        body.send_keys(Keys.TAB)
        for _ in range(5):
            focused = browser.switch_to.active_element
            if focused.get_attribute("id") == "task":
                break
            focused.send_keys(Keys.TAB)
        assert browser.switch_to.active_element.get_attribute("id") == "task"
        browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
        assert list(self.plotted(browser)) == ["base", "bias", "geometry"]
        labels = browser.execute_script(
            "return [...document.querySelectorAll('select')].map((box) => box.labels.length)"
        )
        assert labels == [1, 1, 1]
