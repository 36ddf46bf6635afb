"""`geopos evaluate`: its files, names, plans and the mistakes that it refuses in one line."""

import json
import shutil

import pytest
from commands import refused
from PIL import Image

from geopos_diffusers.cli.main import main

FILES = {"evaluation.json", "evaluation.txt", "evaluation.png", "report.html"}


@pytest.fixture
def folders(models, rendered_hands):
    return ["--images", *map(str, models), "--reference", str(rendered_hands)]


@pytest.fixture
def pair(tmp_path) -> list[str]:
    """Folders of one image each, with the same name, and a reference."""
    paths = [tmp_path / "first" / "images", tmp_path / "second" / "images", tmp_path / "hands"]
    for path in paths:
        path.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path / "a.png")
    return list(map(str, paths))


@pytest.mark.usefixtures("evaluation")
class TestReport:
    def test_of_several_models(self, folders, tmp_path, capfd):
        output = tmp_path / "out"
        assert main(["evaluate", *folders, "--output", str(output), "--seed", "3"]) == 0
        printed, errors = capfd.readouterr()
        assert "hand found" in printed
        assert "report.html" in printed
        assert "image" in errors  # the progress bar, and nothing of the detector's
        assert "W0000" not in errors
        assert {path.name for path in output.iterdir()} == FILES
        document = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
        assert [folder["name"] for folder in document["folders"]] == ["base", "lora"]
        assert document["seed"] == 3
        assert any(key.startswith("images/") for key in document["folders"][0]["quality"])
        assert (output / "evaluation.txt").read_text(encoding="utf-8") in printed

    def test_chosen_parts(self, folders, tmp_path):
        output = tmp_path / "out"
        chosen = ["--measures", "found", "good", "--names", "a <b>", "c", "--max-images", "5", "--no-quality"]
        assert main(["evaluate", *folders, *chosen, "--quiet", "--output", str(output)]) == 0
        document = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
        assert [measure["name"] for measure in document["measures"]] == ["found", "good"]
        assert [folder["name"] for folder in document["folders"]] == ["a <b>", "c"]
        assert [len(folder["images"]) for folder in document["folders"]] == [5, 5]
        assert document["folders"][0]["quality"] == {}
        assert len(document["comparisons"]) == 2

    def test_one_model_without_the_second_judge(self, models, rendered_hands, tmp_path):
        options = ["--images", str(models[1]), "--reference", str(rendered_hands), "--no-judge", "--no-kid", "--quiet"]
        assert main(["evaluate", *options, "--output", str(tmp_path / "out")]) == 0
        document = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
        assert document["comparisons"] == document["pairings"] == []
        assert all(row["judgement"] is None for row in document["folders"][0]["images"])
        assert {measure["judge"] for measure in document["measures"]} == {"detector"}
        assert document["folders"][0]["quality"] == {}

    def test_the_page_can_be_made_again(self, models, rendered_hands, tmp_path, capsys):
        output = str(tmp_path / "out")
        options = ["--images", str(models[1]), "--reference", str(rendered_hands), "--no-quality", "--quiet"]
        assert main(["evaluate", *options, "--output", output]) == 0
        page = (tmp_path / "out" / "report.html").read_bytes()
        (tmp_path / "out" / "report.html").unlink()
        capsys.readouterr()
        assert main(["evaluate", "--report-only", "--output", output]) == 0
        assert "report.html" in capsys.readouterr().out
        assert (tmp_path / "out" / "report.html").read_bytes() == page


class TestNames:
    def test_equal_ones_get_their_parents(self, pair, detector, tmp_path):
        first, second, reference = pair
        options = ["--images", first, second, "--reference", reference, "--no-quality", "--no-judge", "--quiet"]
        assert main(["evaluate", *options, "--output", str(tmp_path / "out")]) == 0
        document = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
        assert [folder["name"] for folder in document["folders"]] == ["first/images", "second/images"]

    @pytest.mark.parametrize(
        ("names", "message"),
        [(["one"], "1 names were given for 2 folders"), (["one", "one"], "2 folders are called 'one'")],
    )
    def test_refused(self, pair, capsys, tmp_path, names, message):
        first, second, reference = pair
        options = ["--images", first, second, "--reference", reference, "--output", str(tmp_path / "out")]
        assert message in refused(capsys, "evaluate", *options, "--names", *names)
        assert not (tmp_path / "out").exists()


class TestPlan:
    def test_needs_no_images(self, capsys):
        assert main(["evaluate", "--plan"]) == 0
        printed = capsys.readouterr().out
        assert "80% power" in printed
        assert "pairs that differ" in printed

    @pytest.mark.usefixtures("evaluation")
    def test_from_measured_rates(self, folders, document, tmp_path, capsys):
        assert main(["evaluate", "--plan", *folders, "--quiet", "--output", str(tmp_path / "out")]) == 0
        printed = capsys.readouterr().out.splitlines()
        line = next(line for line in printed if line.startswith("found "))
        row = next(row for row in document["comparisons"] if row["measure"] == "found")
        assert f"{document['folders'][0]['scores']['found']['value']:.1%}" in line
        assert f"{(row['wins'] + row['losses']) / row['pairs']:.1%}" in line
        assert not (tmp_path / "out").exists()


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ([], "--images and --reference missing: give folders, or --plan"),
            (["--reference", "{0}"], "--images missing"),
            (["--images", "{0}"], "--reference missing"),
            (["--images", "{0}", "--reference", "{2}", "--measures", "beauty"], "'beauty'; known are found, "),
            (["--images", "{0}", "--reference", "{2}", "--num-workers", "0"], "workers is 0; give 1 or more"),
            (["--images", "{0}", "--reference", "{2}", "--max-images", "0"], "is 0; give 1 or more"),
            (["--images", "{0}", "--reference", "nowhere"], "nowhere is not a folder"),
        ],
    )
    def test_refused(self, pair, capsys, tmp_path, options, message):
        given = [option.format(*pair) for option in options]
        assert message in refused(capsys, "evaluate", *given, "--output", str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_an_output_whose_picture_would_be_scored(self, pair, capsys):
        first, _, reference = pair
        options = ["--images", first, "--reference", reference, "--output", f"{first}/scores"]
        assert "choose another" in refused(capsys, "evaluate", *options)

    def test_no_report_to_make_again(self, tmp_path, capsys):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert "give the folder of a report" in refused(
            capsys, "evaluate", "--report-only", "--output", str(tmp_path / "out")
        )
