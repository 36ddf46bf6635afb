import json
import shutil

import pytest
from PIL import Image

from geopos_diffusers.cli.main import main
from geopos_diffusers.errors import DataError
from geopos_diffusers.images.contact_sheet import DEFAULT_CELL
from geopos_diffusers.metrics.evaluation import KID_NAME, compare_folders, evaluate_hands
from geopos_diffusers.metrics.report import SHEET_AT_LEAST, annotated_sheet, format_table, report_to_dict, write_report

# Everything here needs the detector, even where a test does not name it.
pytestmark = pytest.mark.usefixtures("detector")


@pytest.fixture(scope="module")
def drawn(rendered_hands, tmp_path_factory):
    """What a generator may leave: eight hands with prompts only, a picture without a hand, a broken and a lost one."""
    folder = tmp_path_factory.mktemp("drawn")
    rows = [json.loads(line) for line in (rendered_hands / "metadata.jsonl").read_text().splitlines()][:8]
    for row in rows:
        shutil.copy(rendered_hands / row["file_name"], folder)
    Image.new("RGB", (64, 64), (30, 90, 160)).save(folder / "empty.png")
    (folder / "broken.png").write_bytes(b"\x89PNG broken")
    prompts = [{"file_name": row["file_name"], "text": f"a hand, {row['fingers']} fingers raised"} for row in rows]
    prompts += [{"file_name": name, "text": "an open hand"} for name in ("empty.png", "broken.png", "lost.png")]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in prompts))
    return folder


@pytest.fixture(scope="module")
def report(drawn, rendered_hands, mobilenet):
    return evaluate_hands(drawn, rendered_hands, progress=False)


class TestEvaluateHands:
    def test_rates(self, report):
        found = sum(row.detection is not None for row in report.images.entries)
        assert len(report.images.entries) == 9
        assert report.image_scores.found.value == pytest.approx(found / 9)
        assert found >= 6
        assert report.image_scores.found.low <= found / 9 <= report.image_scores.found.high
        assert report.reference_scores.found.value > 0.8
        assert report.found_ratio.value < 1

    def test_unreadable_pictures_are_named(self, report):
        assert [name for name, _ in report.images.skipped] == ["broken.png", "lost.png"]
        assert any("2 of the images could not be read" in note and "broken.png" in note for note in report.notes)

    def test_counts(self, report):
        scores = report.image_scores
        assert scores.confusion.sum() == 9
        assert scores.confusion[:, 6].sum() == sum(row.detection is None for row in report.images.entries)
        assert scores.count_right.value > 0.6
        assert scores.found_and_right.value < scores.count_right.value
        assert scores.count_error.value < 0.8

    def test_matching(self, report):
        assert report.match.attributes == ("fingers",)
        assert "weighted to agree with the images in fingers." in report.notes[0]
        assert "view, handedness" in report.notes[1]

    def test_kid(self, report):
        assert report.kid.low < report.kid.value < report.kid.high
        assert report.kid_floor is not None

    def test_reference_against_itself(self, report):
        itself = compare_folders(report.reference, report.reference)
        assert itself.found_ratio.value == pytest.approx(1)
        assert itself.match.unmatched == ()
        assert itself.reference_scores.found.value == pytest.approx(itself.image_scores.found.value)

    def test_unknown_attribute(self, drawn, rendered_hands):
        with pytest.raises(DataError, match="cannot match on 'colour'"):
            evaluate_hands(drawn, rendered_hands, match_on=("colour",))

    def test_none_readable(self, tmp_path, rendered_hands):
        (tmp_path / "a.png").write_bytes(b"broken")
        with pytest.raises(DataError, match="none of its 1 images can be read"):
            evaluate_hands(tmp_path, rendered_hands, with_kid=False, progress=False)


class TestReport:
    def test_files(self, report, tmp_path):
        paths = write_report(report, tmp_path / "out")
        record = json.loads(paths["evaluation.json"].read_text())
        assert record[KID_NAME]["value"] == report.kid.value
        assert record["images"]["found"]["value"] == report.image_scores.found.value
        assert len(record["pictures"]) == 9
        assert record["settings"]["seed"] == 0
        assert record["versions"]["mediapipe"]
        assert paths["evaluation.txt"].read_text().startswith(" ")
        assert Image.open(paths["evaluation.png"]).width > DEFAULT_CELL

    def test_table(self, report):
        table = format_table(report)
        assert max(len(line) for line in table.splitlines() if not line.startswith("- ")) <= 100
        for row in ("hand found", KID_NAME, "finger count right, if found", "fingers asked for", "no hand"):
            assert row in table

    def test_same_seed_same_report(self, report):
        again = compare_folders(report.images, report.reference)
        first, second = (report_to_dict(value) for value in (report, again))
        first.pop("date")
        second.pop("date")
        assert first == second

    def test_sheet_shows_failures(self, report):
        sheet = annotated_sheet(report.images, seed=0, limit=5)
        red = (205, 20, 30)
        assert red in {color for _, color in sheet.getcolors(maxcolors=1 << 24)}
        assert SHEET_AT_LEAST <= 5


class TestCommand:
    def test_scores(self, drawn, rendered_hands, tmp_path, capfd):
        arguments = ["--images", str(drawn), "--reference", str(rendered_hands), "--output", str(tmp_path / "out")]
        assert main(["evaluate", *arguments, "--no-kid", "--max-images", "4"]) == 0
        output, errors = capfd.readouterr()
        assert "hand found" in output
        assert "evaluation.json" in output
        assert "image" in errors  # the progress bar, and nothing of the detector's
        assert "W0000" not in errors
        assert KID_NAME not in output
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "evaluation.json",
            "evaluation.txt",
            "evaluation.png",
        }

    def test_empty_folder(self, rendered_hands, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        arguments = ["--images", str(tmp_path / "empty"), "--reference", str(rendered_hands)]
        assert main(["evaluate", *arguments, "--output", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert not (tmp_path / "out").exists()
