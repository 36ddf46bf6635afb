import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from geopos_diffusers.errors import DataError
from geopos_diffusers.metrics import folder_scoring, image_scoring
from geopos_diffusers.metrics.evaluation import check_names, evaluate_hands, evaluate_scored
from geopos_diffusers.metrics.evaluation_cache import EvaluationCache
from geopos_diffusers.metrics.features import EXTRACTOR
from geopos_diffusers.metrics.folder_scoring import score_folders
from geopos_diffusers.metrics.hand_attributes import HandAttributes
from geopos_diffusers.metrics.image_folder import list_images
from geopos_diffusers.metrics.image_scoring import ScoringSettings
from geopos_diffusers.metrics.measures import MEASURES
from geopos_diffusers.metrics.report_document import evaluation_to_dict
from geopos_diffusers.metrics.report_table import format_table

# Everything here needs the detector and the features, even where a test does not name them.
pytestmark = pytest.mark.usefixtures("detector", "mobilenet")


@pytest.fixture(scope="module")
def drawn(rendered_hands, tmp_path_factory):
    """What a generator may leave: eight hands with prompts only, an image without a hand, a broken and a lost one."""
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
def cache(tmp_path_factory):
    with EvaluationCache(tmp_path_factory.mktemp("cache") / "scores.sqlite") as opened:
        yield opened


@pytest.fixture(scope="module")
def scored(drawn, rendered_hands, cache):
    folders = [("drawn", list_images(drawn)), ("reference", list_images(rendered_hands))]
    return score_folders(folders, ScoringSettings(), cache=cache, num_workers=1, progress=False)


@pytest.fixture(scope="module")
def evaluation(scored, cache):
    return evaluate_scored(scored[:1], scored[1], ScoringSettings(), cache=cache)


class TestScoreFolders:
    def test_unreadable_images_are_named(self, scored):
        assert [name for name, _ in scored[0].skipped] == ["broken.png", "lost.png"]
        assert len(scored[0].entries) == 9
        assert scored[1].skipped == ()

    def test_features_of_images_and_crops(self, scored):
        found = [index for index, row in enumerate(scored[0].entries) if row.hands]
        assert scored[0].features[EXTRACTOR].shape == (9, 1280)
        assert scored[0].crop_index.tolist() == found
        assert scored[0].crop_features[EXTRACTOR].shape == (len(found), 1280)

    def test_the_same_image_scores_the_same_in_both_folders(self, scored):
        first, second = scored[0].entries[0], scored[1].entries[0]
        assert first.sha256 == second.sha256
        assert (first.hands[0].landmarks == second.hands[0].landmarks).all()
        assert first.judgement.well_formed == second.judgement.well_formed

    def test_nothing_is_computed_twice(self, scored, drawn, rendered_hands, cache, monkeypatch):
        class Busy:
            def __init__(self, settings):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def score(self, tasks):
                names = [task.path.name for task in tasks]
                assert names == ["broken.png"], f"scored again: {names}"
                return ["cannot be read"]

        monkeypatch.setattr(folder_scoring, "ImageScorer", Busy)
        folders = [("drawn", list_images(drawn)), ("reference", list_images(rendered_hands))]
        again = score_folders(folders, ScoringSettings(), cache=cache, num_workers=1, progress=False)
        for one, other in zip(scored, again, strict=True):
            assert (one.features[EXTRACTOR] == other.features[EXTRACTOR]).all()
            assert [row.counted for row in one.entries] == [row.counted for row in other.entries]

    def test_a_part_that_is_missing_is_computed_alone(self, scored, rendered_hands, cache, tmp_path):
        """Another extractor, or a cache that lost a row, costs what is missing; the other parts stay."""
        settings = ScoringSettings()
        judgement = settings.components["judgement"]
        sha = scored[1].entries[0].sha256
        with cache._connection:
            cache._connection.execute("DELETE FROM entries WHERE component = ? AND key = ?", (judgement, sha))
        folder = list_images(rendered_hands)
        again = score_folders([("r", folder)], settings, cache=cache, num_workers=1, progress=False)[0]
        assert again.entries[0].judgement.well_formed == pytest.approx(
            scored[1].entries[0].judgement.well_formed, abs=1e-5
        )

    def test_hands_without_presence_are_not_taken_for_hands_with_it(self, monkeypatch):
        """Those that were kept before the package of the presence was installed must not stay in its place."""
        hands = ScoringSettings().components["hands"]
        assert ScoringSettings(presence=False).components["hands"] != hands
        monkeypatch.setattr(image_scoring, "presence_available", lambda: False)
        assert ScoringSettings().components["hands"] == ScoringSettings(presence=False).components["hands"]

    def test_processes_score_as_one_does(self, scored, rendered_hands, tmp_path, monkeypatch):
        monkeypatch.setattr(folder_scoring, "SMALLEST_FOR_WORKERS", 0)
        with EvaluationCache(tmp_path / "scores.sqlite") as fresh:
            (parallel,) = score_folders(
                [("r", list_images(rendered_hands))],
                ScoringSettings(extractors=(), judge=False),
                cache=fresh,
                num_workers=2,
                progress=False,
            )
        for one, other in zip(scored[1].entries, parallel.entries, strict=True):
            assert len(one.hands) == len(other.hands)
            for hand, same in zip(one.hands, other.hands, strict=True):
                np.testing.assert_allclose(hand.landmarks, same.landmarks, atol=1e-3)

    def test_none_readable(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"broken")
        with pytest.raises(DataError, match="none of its 1 images can be read"), EvaluationCache(None) as empty:
            score_folders(
                [("r", list_images(tmp_path))],
                ScoringSettings(extractors=()),
                cache=empty,
                num_workers=1,
                progress=False,
            )


class TestScores:
    def test_rates(self, evaluation):
        (drawn,) = evaluation.folders
        found = sum(row.detection is not None for row in drawn.scored.entries)
        assert found >= 6
        assert drawn.scores["found"].value == pytest.approx(found / 9)
        assert drawn.scores["found"].low <= found / 9 <= drawn.scores["found"].high
        assert drawn.reference_scores["found"].value > 0.8
        assert drawn.found_ratio.value < 1

    def test_counts(self, evaluation):
        (drawn,) = evaluation.folders
        assert drawn.fingers.confusion.sum() == 9
        assert drawn.fingers.confusion[:, 6].sum() == sum(row.detection is None for row in drawn.scored.entries)
        assert drawn.scores["count_right"].value > 0.6
        assert drawn.scores["found_and_right"].value < drawn.scores["count_right"].value
        assert drawn.scores["count_error"].value < 0.8

    def test_an_image_without_a_hand_counts_against_shares_of_all(self, evaluation):
        (drawn,) = evaluation.folders
        index = [row.source.name for row in drawn.scored.entries].index("empty.png")
        for name in ("found", "hands_right", "found_and_right", "good", "confidence"):
            assert drawn.values[name][index] == 0, name
        for name in ("score", "count_right", "count_error", "anatomy_faults", "joint_ratio_difference"):
            assert np.isnan(drawn.values[name][index]), name

    def test_key_points_of_rendered_hands(self, evaluation):
        """They are in the reference's metadata alone; the detector finds the joints of most to a tenth of the hand."""
        (drawn,) = evaluation.folders
        assert np.isnan(drawn.values["joint_error"]).all()
        errors = evaluation.reference.values["relative_joint_error"]
        assert 0 < np.nanmedian(errors) < 0.12

    def test_matching(self, evaluation):
        (drawn,) = evaluation.folders
        assert drawn.match.attributes == ("fingers",)
        assert any("weighted to agree with the images in fingers." in note for note in evaluation.notes)
        assert any("view, handedness" in note for note in evaluation.notes)

    def test_what_matches_and_what_does_not(self, scored, cache):
        """One image asks for what the reference does not have; the others lie in the reference too."""
        drawn, reference = scored
        raised = [one for one in reference.entries if one.source.attributes.fingers != 0]
        known = tuple(one for one in drawn.entries if one.source.attributes.fingers != 0)[:2]
        wanted = {one.source.attributes.fingers for one in known}
        strange = drawn.entries[-1]
        strange = replace(strange, source=replace(strange.source, attributes=HandAttributes(fingers=0)))
        plain = {"features": {}, "crop_features": {}}
        asked = replace(drawn, entries=(strange, *known), **plain)
        evaluation = evaluate_scored(
            [asked], replace(reference, entries=tuple(raised), **plain), ScoringSettings(extractors=()), cache=cache
        )
        document = evaluation_to_dict(evaluation)
        matching = document["folders"][0]["matching"]
        count = sum(one.source.attributes.fingers in wanted for one in raised)
        assert (matching["unmatched"], matching["reference_images"]) == (1, count)
        assert f"{len(raised)} of {reference.folder.available}, {count} match" in format_table(document)
        assert any("the scores of the images do not" in note for note in evaluation.notes)
        files = {one.sha256 for one in raised}
        copies = sum(one.sha256 in files for one in asked.entries)
        assert copies >= len(known)
        assert any(note.startswith(f"{copies} of 3 images are images of the reference") for note in evaluation.notes)

    def test_notes_name_what_was_skipped_and_what_is_too_few(self, evaluation):
        assert any("2 images of drawn could not be read" in note and "broken.png" in note for note in evaluation.notes)
        assert any("fewer than the usual" in note for note in evaluation.notes)

    def test_too_few_hands_for_a_distribution(self, evaluation):
        assert "anatomy_distance" not in evaluation.measures
        assert "anatomy_faults" in evaluation.measures

    def test_scores_of_sets(self, evaluation):
        quality = evaluation.folders[0].quality
        kid = quality[f"images/{EXTRACTOR}/kid"]
        assert kid.low < kid.value < kid.high
        assert f"crops/{EXTRACTOR}/kid" in quality
        assert evaluation.reference.quality[f"images/{EXTRACTOR}/kid"].value is not None
        assert quality["images/ms_ssim"].value is not None

    def test_judges_agree_on_fingers(self, evaluation):
        agreement = evaluation.reference.agreement
        assert agreement["fingers_kappa"].value > 0.4

    def test_reference_against_itself(self, evaluation, scored, cache):
        itself = evaluate_scored(scored[1:], scored[1], ScoringSettings(), cache=cache).folders[0]
        assert itself.match is None  # it is the reference
        copy = evaluate_scored(
            [scored[1].__class__(**{**vars(scored[1]), "name": "copy"})], scored[1], ScoringSettings(), cache=cache
        ).folders[0]
        assert copy.found_ratio.value == pytest.approx(1)
        assert copy.match.unmatched == ()
        for name, score in copy.scores.items():
            if score.value is not None:
                assert copy.reference_scores[name].value == pytest.approx(score.value), name

    def test_same_seed_same_scores(self, evaluation, scored, cache):
        again = evaluate_scored(scored[:1], scored[1], ScoringSettings(), cache=cache)
        assert again.folders[0].scores == evaluation.folders[0].scores
        assert again.folders[0].quality == evaluation.folders[0].quality

    def test_each_measure_has_a_value_for_each_image(self, evaluation):
        for name, measure in MEASURES.items():
            values = evaluation.folders[0].values[name]
            assert values.shape == (9,)
            if measure.kind == "share":
                assert set(values[~np.isnan(values)]) <= {0.0, 1.0}, name


class TestComparisons:
    def test_with_itself_nothing_differs(self, scored, cache):
        copy = scored[1].__class__(**{**vars(scored[1]), "name": "copy"})
        first = scored[1].__class__(**{**vars(scored[1]), "name": "first"})
        evaluation = evaluate_scored([first, copy], scored[1], ScoringSettings(), cache=cache)
        assert len(evaluation.comparisons) == len(evaluation.measures)
        for row in evaluation.comparisons:
            assert (row.wins, row.losses) == (0, 0)
            assert row.difference.value in (0, None)

    def test_a_folder_of_spoiled_copies_loses(self, rendered_hands, cache, tmp_path):
        for path in rendered_hands.glob("*.png"):
            with Image.open(path) as image:
                image.resize((6, 6)).resize((64, 64)).save(tmp_path / path.name)
        shutil.copy(rendered_hands / "metadata.jsonl", tmp_path)
        names = ["sharp", "spoiled"]
        folders = [
            (name, list_images(path))
            for name, path in zip((*names, "reference"), (rendered_hands, tmp_path, rendered_hands), strict=True)
        ]
        settings = ScoringSettings(extractors=(), judge=False)
        *models, reference = score_folders(folders, settings, cache=cache, num_workers=1, progress=False)
        evaluation = evaluate_scored(models, reference, settings, cache=cache)
        found = next(row for row in evaluation.comparisons if row.measure == "found")
        assert found.pairs == 12
        assert found.difference.high < 0
        assert found.losses > found.wins
        assert found.p < 0.05


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"match_on": ("colour",)}, "cannot match on 'colour'"),
            ({"measures": ("beauty",)}, "cannot compute the measure 'beauty'"),
            ({"num_workers": 0}, "number of workers is 0"),
            ({"max_images": 0}, "largest number of images is 0"),
            ({"task": "nowhere.task"}, "nowhere.task is not a file"),
        ],
    )
    def test_bad_ones(self, options, message, rendered_hands):
        with pytest.raises(DataError, match=message):
            evaluate_hands(rendered_hands, rendered_hands, progress=False, use_cache=False, **options)

    def test_names(self):
        assert check_names(["a/base", "b/lora"], None) == ["base", "lora"]
        assert check_names(["a/images", "b/images"], None) == ["a/images", "b/images"]
        assert check_names(["a", "b"], ["one", "two"]) == ["one", "two"]

    @pytest.mark.parametrize(
        ("paths", "names", "message"),
        [
            ([], None, "no folder of images"),
            (["a", "b"], ["one"], "1 names were given for 2 folders"),
            (["a", "b"], ["one", "one"], "2 folders are called 'one'"),
            (["a", "b"], ["one", " "], "name is empty"),
            (["a", "b"], ["reference", "one"], "as the reference is"),
        ],
    )
    def test_bad_names(self, paths, names, message):
        with pytest.raises(DataError, match=message):
            check_names(paths, names)
