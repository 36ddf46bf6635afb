"""The rows of the paper's open question Q3, from the study's results."""

from experiments.study.claims import build_sections
from experiments.study.comparisons import primary_comparisons


def test_a_row_for_each_pair_that_was_run(folder, tasks):
    sections = {section.title: section for section in build_sections(folder)}
    assert sections.keys() == {tasks["poses"].title, tasks["handedness"].title}
    poses = sections[tasks["poses"].title]
    comparisons = primary_comparisons(tasks["poses"])
    assert [judged.verdict for judged in poses.judgements()] == [one.verdict for one in comparisons]
    assert [judged.p for judged in poses.judgements()] == [one.p for one in comparisons]
    first = poses.claims[0]
    assert (first.id, first.seeds) == ("Q3", 5)
    assert first.headline.claim == "a pretrained diffusion model, geometry: better than bias"
    assert first.headline.place == "poses, difference of loss ratio"
    (few,) = sections[tasks["handedness"].title].judgements()
    assert few.verdict == "suggestive, n = 3"


def test_nothing_without_results(tmp_path):
    assert build_sections(tmp_path) == []
