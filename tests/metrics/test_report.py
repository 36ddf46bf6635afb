"""The files of a report: what evaluation.json holds, and the table and the sheet that are made of it."""

import json
from copy import deepcopy

import jsonschema
import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics.measures import MEASURES
from geopos_diffusers.metrics.report import rewrite_report, write_report, write_views
from geopos_diffusers.metrics.report_document import document_text, evaluation_to_dict, load_schema, read_document
from geopos_diffusers.metrics.report_sheet import MISSING, RIGHT, annotated_sheet
from geopos_diffusers.metrics.report_table import WIDTH, format_table

FILES = {"evaluation.json", "evaluation.txt", "evaluation.png", "report.html"}


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(load_schema())
    return jsonschema.Draft202012Validator(load_schema())


class TestDocument:
    def test_fits_its_schema(self, document, validator):
        validator.validate(document)
        assert document["format_version"] == 2

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda d: d.update(format_version=1),
            lambda d: d.pop("comparisons"),
            lambda d: d.update(comment="more"),
            lambda d: d["folders"].clear(),
            lambda d: d["folders"][1]["images"][0].pop("values"),
            lambda d: d["folders"][1]["images"][0].update(sha256="00"),
            lambda d: d["folders"][1]["images"][0]["hands"][0]["landmarks"].pop(),
            lambda d: d["folders"][1]["images"][0]["expected"].update(fingers=6),
            lambda d: d["folders"][1]["scores"]["found"].update(value="0.5"),
            lambda d: d["folders"][1]["images"][0]["judgement"].update(keypoints=[[0.0, 0.0]]),
            lambda d: d["comparisons"][0].update(p=1.5),
            lambda d: d["comparisons"][0].pop("p_holm"),
            lambda d: d["pairings"][0].update(how="by eye"),
            lambda d: d["measures"][0].update(kind="rate"),
        ],
    )
    def test_a_wrong_document_does_not_fit(self, document, validator, spoil):
        spoil(document)
        assert not validator.is_valid(document)

    def test_every_image_with_every_value(self, document, evaluation):
        for folder, scored in zip(document["folders"], evaluation.folders, strict=True):
            assert [row["file_name"] for row in folder["images"]] == [row.source.name for row in scored.scored.entries]
            for index, (row, entry) in enumerate(zip(folder["images"], scored.scored.entries, strict=True)):
                assert (row["prompt"], row["seed"], row["sha256"]) == (
                    entry.source.text,
                    entry.source.seed,
                    entry.sha256,
                )
                assert len(row["hands"]) == len(entry.hands)
                for hand, found in zip(row["hands"], entry.hands, strict=True):
                    np.testing.assert_allclose(hand["landmarks"], found.landmarks, atol=0.006)
                    np.testing.assert_allclose(hand["world_landmarks"], found.world_landmarks, atol=6e-6)
                assert set(row["values"]) == set(evaluation.measures)
                for name, value in row["values"].items():
                    expected = scored.values[name][index]
                    assert (value is None) == bool(np.isnan(expected))
                    assert value is None or value == pytest.approx(expected, abs=1e-6)

    def test_scores_are_means_of_the_values(self, document):
        folder = document["folders"][1]
        for name, score in folder["scores"].items():
            known = [row["values"][name] for row in folder["images"] if row["values"][name] is not None]
            assert (score["value"] is None) == (not known)
            if known:
                assert score["value"] == pytest.approx(np.mean(known), abs=1e-5)
                assert score["low"] <= score["value"] + 1e-9
                assert score["high"] >= score["value"] - 1e-9

    def test_unknown_is_null_and_never_nan(self, document):
        assert json.loads(document_text(document), parse_constant=refuse) == document
        without = [row for row in document["folders"][0]["images"] if not row["hands"]]
        assert without
        assert without[0]["values"]["joint_ratio_difference"] is None

    def test_images_of_one_prompt_and_seed_are_paired(self, document):
        pairing = document["pairings"][0]
        assert (pairing["how"], pairing["other"]) == ("prompt and seed", "lora")
        base, lora = (folder["images"] for folder in document["folders"])
        assert len(pairing["other_images"]) == 9
        for first, second in zip(pairing["baseline_images"], pairing["other_images"], strict=True):
            assert (base[first]["prompt"], base[first]["seed"]) == (lora[second]["prompt"], lora[second]["seed"])

    def test_comparisons_are_of_the_values(self, document):
        found = next(row for row in document["comparisons"] if row["measure"] == "found")
        base, lora = ([row["values"]["found"] for row in folder["images"]] for folder in document["folders"])
        wins = sum(first < second for first, second in zip(base, lora[:9], strict=True))
        assert (found["pairs"], found["wins"], found["losses"]) == (9, wins, 0)
        assert wins >= 2
        assert found["difference"]["value"] == pytest.approx(np.mean(lora[:9]) - np.mean(base), abs=1e-6)

    def test_skipped_files_are_named(self, document):
        assert [row["file_name"] for row in document["folders"][0]["skipped"]] == ["broken.png"]
        assert any("broken.png" in note for note in document["notes"])

    def test_the_same_evaluation_gives_the_same_document(self, evaluation, document):
        again = evaluation_to_dict(evaluation)
        assert {**again, "date": ""} == {**document, "date": ""}

    def test_an_image_is_one_line(self, document):
        lines = document_text(document).splitlines()
        images = sum(len(folder["images"]) for folder in (*document["folders"], document["reference"]))
        assert sum('"sha256"' in line for line in lines) == images


class TestReadDocument:
    @pytest.mark.parametrize(
        ("text", "message"),
        [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "format_version None"), ("{}", "format_version None")],
    )
    def test_refuses(self, tmp_path, text, message):
        if text is not None:
            (tmp_path / "evaluation.json").write_text(text)
        with pytest.raises(DataError, match=message):
            rewrite_report(tmp_path)

    def test_an_earlier_format(self, tmp_path):
        (tmp_path / "evaluation.json").write_text('{"format_version": 1}')
        with pytest.raises(DataError, match="format_version 1; this version reads 2: evaluate again"):
            read_document(tmp_path / "evaluation.json")


class TestFiles:
    def test_all_are_written_and_made_again(self, evaluation, tmp_path, validator):
        paths = write_report(evaluation, tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == set(paths) == FILES
        validator.validate(json.loads(paths["evaluation.json"].read_text(encoding="utf-8")))
        before = {name: path.read_bytes() for name, path in paths.items()}
        for name in FILES - {"evaluation.json"}:
            paths[name].unlink()
        assert set(rewrite_report(tmp_path / "out")) == FILES - {"evaluation.json"}
        assert {name: path.read_bytes() for name, path in paths.items()} == before

    def test_texts_that_utf8_cannot_hold(self, document, tmp_path):
        row = document["folders"][0]["images"][0]
        row["prompt"], row["file_name"] = "half \ud83d of a pair", "\udcff.png"
        document["notes"].append("skipped: \udcff.png")
        assert json.loads(document_text(document).encode("utf-8"), parse_constant=refuse) == document
        paths = write_views(document, tmp_path)
        assert "skipped: ?.png" in paths["evaluation.txt"].read_text(encoding="utf-8")
        assert "half \\ud83d of a pair" in paths["report.html"].read_text(encoding="utf-8")


class TestTable:
    def test_every_measure_of_every_model(self, document):
        table = format_table(document)
        for measure in document["measures"]:
            assert MEASURES[measure["name"]].title in table
        for text in ("base", "lora", "reference for base", "9 of 10 (1 skipped)", "asked for \\ counted", "no hand"):
            assert text in table
        score = document["folders"][1]["scores"]["found"]
        assert f"{100 * score['value']:.1f}% [{100 * score['low']:.1f}, {100 * score['high']:.1f}]" in table

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_is_narrow(self, document, count):
        folders = [deepcopy(document["folders"][index % 2]) for index in range(count)]
        for index, folder in enumerate(folders):
            folder["name"] = f"a model with a name {index}"
        table = format_table({**document, "folders": folders, "comparisons": [], "pairings": []})
        assert max(len(line) for line in table.splitlines() if not line.startswith("- ")) <= WIDTH
        assert all(folder["name"] in table for folder in folders)

    def test_marks(self, document):
        row = next(row for row in document["comparisons"] if row["measure"] == "found")
        for p, p_holm, mark in ((0.5, 1.0, "]"), (0.01, 0.3, "] (*)"), (0.001, 0.01, "] *")):
            row.update(p=p, p_holm=p_holm)
            line = next(line for line in format_table(document).splitlines() if line.startswith("hand found"))
            cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
            assert cells[2].endswith(mark)

    def test_a_measure_that_fails_a_control_is_marked(self, document):
        document["measures"][0]["warning"] = "rises under blur"
        table = format_table(document)
        assert f"{document['measures'][0]['title']} !" in table
        assert f"! {document['measures'][0]['title']}: rises under blur" in table

    def test_one_reference_where_it_is_matched_alike(self, document):
        assert "reference for lora" in format_table(document)
        base, lora = document["folders"]
        lora["reference_scores"] = base["reference_scores"]
        table = format_table(document)
        assert "reference, matched" in table
        assert "reference for" not in table

    def test_scores_of_small_sets_are_marked(self, document):
        table = format_table(document)
        assert "images: KID, MobileNetV2-224 ~" in table
        assert "~ fewer images than the usual 100 or 1,000 or 10,000; compare only" in table
        for row in document["quality_measures"]:
            row["fewest_images"] = 10_000
        assert "~" not in format_table(document)


class TestSheet:
    def test_shows_failures_of_each_model(self, document):
        both = annotated_sheet(document)
        alone = annotated_sheet({**document, "folders": document["folders"][:1]})
        assert both.height > alone.height
        for sheet in (both, alone):
            colors = {color for _, color in sheet.getcolors(maxcolors=1 << 24)}
            assert {MISSING, RIGHT} <= colors

    def test_an_image_that_is_gone(self, document, tmp_path):
        document["folders"][0]["path"] = str(tmp_path / "moved")
        assert isinstance(annotated_sheet(document), Image.Image)
