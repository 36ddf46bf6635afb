"""What the page of the frames says where a run draws no hand."""

from experiments.frames.more_boxes_section import seed_differences
from experiments.frames.score_cells import COLUMNS, row
from experiments.frames.section import followers, hands_beside_image_coordinates


def run(variant, seed, place, fingers):
    known = {"correlation_x": place, "iou": place, "fingers": fingers, "found": 0.0 if place is None else 1.0}
    return {"variant": variant, "seed": seed, "steps": 300, "scores": {name: None for name in COLUMNS} | known}


RUNS = [
    *(run("frames, whole", seed, 0.9, 0.5) for seed in (1, 2, 3)),
    *(run("box channel, whole", seed, place, 0.25) for seed, place in ((1, None), (2, 0.95), (3, 0.97))),
    *(run("box tokens, whole", seed, None, None) for seed in (1, 2, 3)),
]


def test_an_arm_with_a_failed_run_is_named_with_how_many_are_known():
    said = followers(RUNS, 300)
    assert "frames, whole (0.90); box channel, whole (0.96, 2 of 3 runs) follow the box" in said
    assert "box tokens" not in said  # nothing is known of it


def test_cells_say_of_how_many_seeds_they_are():
    cells = dict(zip(["arm", "seeds", *COLUMNS], row("box channel, whole", RUNS[3:6]), strict=True))
    assert cells["seeds"] == "3"
    assert cells["correlation_x"].startswith("0.960 [")
    assert cells["correlation_x"].endswith("] (n = 2)")
    assert cells["found"].startswith("0.667 [")
    assert "n =" not in cells["found"]
    assert cells["kid"] == "-"


def test_differences_are_of_the_seeds_that_both_have():
    line = seed_differences(RUNS, ["frames, whole", "box channel, whole"]).splitlines()[-1]
    name, overlap, found, mediapipe, fingers = (cell.strip() for cell in line.split("|")[1:6])
    assert name == "box channel, whole"
    assert overlap.startswith("-0.060 [")
    assert (found[:6], fingers[:6], mediapipe) == ("+0.333", "+0.250", "")


def test_hands_beside_those_with_image_coordinates():
    assert hands_beside_image_coordinates(RUNS, 300) == ""
    for fingers, reached in ((0.75, "is not reached"), (0.25, "is reached")):
        more = [*RUNS, run("image coordinates, whole", 1, 0.1, fingers)]
        said = hands_beside_image_coordinates(more, 300)
        assert f"1.000 and 0.500 with frames, 1.000 and {fingers:.3f} with these (one seed)" in said
        assert said.endswith(f"{reached}.")
        assert hands_beside_image_coordinates(more, 1000) == ""
