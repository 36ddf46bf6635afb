"""The page docs/results/frames.md, from the results file of the experiment.

python -m scripts.experiments.frames.section --results docs/results
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from geopos_diffusers.files import write_text

from ..page import markdown_table
from ..results import Run, mean_score, read_results, select
from ..verdict import LEAST_SEEDS
from .arms import ARMS, GUIDED, STRONG, TRAINED, WINDOWED
from .conditions_section import generalisation
from .more_boxes_section import IMAGE_COORDINATES, differences, failures, in_more_boxes, precisions, with_falling_rates
from .run import REFERENCE, reference_of
from .score_cells import COLUMNS, RENDERED, known_runs, rendered_row, row, score_cell, seeds_of, sweep_cell

FOLLOWS, IGNORES = 0.8, 0.2  # correlations
SHOWN = ("frames, whole", "frames alone", "box channel, whole", "place words, whole", "no control")  # in the picture
AIM = {"correlation_x": 0.95, "correlation_y": 0.95, "iou": 0.6}
AIMING = {
    REFERENCE: "",
    GUIDED.format(REFERENCE): " Guided,",
    STRONG: " Guided at scale 4,",
    WINDOWED: "",
    GUIDED.format(WINDOWED): " Guided,",
}
MORE_BOXES, FALLING = "frames_500.json", "frames_cosine.json"


def aim(runs: list[Run], steps: int) -> str:
    """Whether frames with the whole UNet reach what was aimed at; empty where it was not measured."""
    said = []
    for name, how in AIMING.items():
        own = select(runs, variant=name, steps=steps)
        if not own or any(run["scores"][score] is None for run in own for score in AIM):
            continue
        values = {score: mean_score(own, score).value for score in AIM}
        reached = all(values[score] >= least for score, least in AIM.items())
        x, y, overlap = values.values()
        said.append(
            f"{how or f'After {steps} steps of 16 images,'} frames with the whole UNet have correlations of\n{x:.3f} "
            f"and {y:.3f} and a median IoU of {overlap:.3f} ({seeds_of(own)}): the aim, 0.95 on both axes and 0.6, is "
            f"{'' if reached else 'not '}reached."
        )
    return "".join(said)


def hands_beside_image_coordinates(runs: list[Run], steps: int, reference: str = REFERENCE) -> str:
    """Whether hands in frames are as good as with coordinates of the image; empty where either was not measured."""
    arms = [select(runs, variant=name, steps=steps) for name in (reference, IMAGE_COORDINATES)]
    if not all(arms):
        return ""
    values = {score: [mean_score(own, score).value for own in arms] for score in ("found", "fingers")}
    (found, other_found), (right, other_right) = values.values()
    reached = all(ours >= theirs for ours, theirs in values.values())
    return (
        " Hands are to be found as often, and to have the right number of fingers as often, as with coordinates of the "
        f"image after as many steps: {found:.3f} and {right:.3f} with frames, {other_found:.3f} and {other_right:.3f} "
        f"with these ({seeds_of(arms[1])}), so this aim is {'' if reached else 'not '}reached."
    )


def followers(runs: list[Run], steps: int) -> str:
    """Which arms that are told the box put hands where it is, by the correlation across."""
    measured = {name: select(runs, variant=name, steps=steps) for name, arm in ARMS.items() if arm.told}
    known = {name: known_runs(own, "correlation_x") for name, own in measured.items()}
    values = {name: mean_score(own, "correlation_x").value for name, own in known.items() if own}

    def shown(name: str) -> str:
        few, every = len(known[name]), len(measured[name])
        return f"{name} ({values[name]:.2f}{'' if few == every else f', {few} of {every} runs'})"

    groups = (
        ("follow the box", [name for name, value in values.items() if value >= FOLLOWS]),
        ("follow it a little", [name for name, value in values.items() if FOLLOWS > value > IGNORES]),
        ("do not follow it", [name for name, value in values.items() if value <= IGNORES]),
    )
    said = [f"{'; '.join(map(shown, names))} {verb}" for verb, names in groups if names]
    return f"Of the arms that are told the box (correlation across after {steps} steps): {'. '.join(said)}."


def rates(settings: dict[str, Any]) -> str:
    if not settings["sweep_steps"]:
        return "the rates were not swept"
    return (
        f"each arm has the best rate of a sweep of\n{settings['sweep_steps']} steps: arms that are told the box by the "
        "correlation with the places\nof validation boxes (1 - its mean over both axes stands in the last table), the "
        "others by the held-out loss"
    )


def arms_table(variants: dict[str, Any]) -> str:
    rows = []
    for name, arm in variants.items():
        options = arm["options"].replace("{rate}", "RATE").replace("{beside}", f"{arm.get('beside', 0):g}")
        rows.append([name, f"{arm['parameters']:,}", f"{arm['rate']:g}", sweep_cell(arm["sweep"], 3), f"`{options}`"])
    return markdown_table(["arm", "parameters", "rate", "sweep", "options of geopos train"], rows)


def page(
    results: dict[str, Any],
    more: dict[str, Any] | None = None,
    falling: dict[str, Any] | None = None,
    beyond: str = "",
) -> str:
    """more: results in more boxes. falling: with rates that fall to zero. beyond: what `generalisation` returns."""
    runs, settings, variants = results["runs"], results["settings"], results["variants"]
    steps = sorted({run["steps"] for run in runs})
    seeds = sorted({run["seed"] for run in runs})
    compared = results["image_differences"]["steps"]
    missing = [name for name in TRAINED if name not in variants]
    tables = []
    for number in reversed(steps):
        rows = [row(name, select(runs, variant=name, steps=number)) for name in variants]
        rows = [one for one in rows if one[1] != "0"]
        if number == steps[-1]:
            rows.append(rendered_row(results["rendered"]))
        tables.append(f"**{number} steps**\n\n{markdown_table(['arm', 'seeds', *COLUMNS.values()], rows)}")
    few = " So few seeds of the training are suggestive, not conclusive." if len(seeds) < LEAST_SEEDS else ""
    lacking = f" Not run yet: {'; '.join(missing)}." if missing else ""
    shown = [name for name in SHOWN if select(runs, variant=name, steps=compared)]
    tail, commands = "\n\n".join(tables), "\n".join(results["commands"])
    most = runs if more is None else more["runs"]
    last = max(run["steps"] for run in most)
    aimed = aim(most, last) + hands_beside_image_coordinates(most, last)
    if falling is not None:
        fallen, end = falling["runs"], max(run["steps"] for run in falling["runs"])
        aimed = (
            "**A term inside the box alone, rates that fall to zero.** "
            f"{aim(fallen, end)}{hands_beside_image_coordinates(fallen, end, reference_of(falling['settings']))}\n\n"
            f"**Coordinates that go on outside the box, constant rates.** {aimed}"
        )
    return f"""# Frames: does the hand go where the box is?

{aimed}

{followers(runs, compared)}

The packaged model has only seen hands in the middle of the image. Here it learns
{settings["train_images"]:,} rendered hands of all places and sizes (0.35 to 0.8 of the side), in poses and colours that
it knows, from captions that do not say where. Each arm draws the captions and boxes of
{settings["test_images"]} other renders, each from its own noise, in {settings["inference_steps"]} steps at guidance
{settings["guidance_scale"]:g}. The rate is constant, with a moving average of the weights; {rates(settings)}.
Seeds of the trainings: {", ".join(map(str, seeds))}.{few}{lacking}
{precisions(runs)} {results["date"]}, one core of a processor that was busy with other work.{failures(runs)}

```bash
{commands}
python -m scripts.experiments.frames.section --results docs/results
```

{tail}

![The same captions, noise and boxes in each arm](frames.png)

*The first test rows after {compared} steps, with the boxes asked for. `python -m scripts.experiments.frames.figure
--output runs/frames --steps {compared} --arms {shlex.join(shown)} --picture docs/results/frames.png`*

The place, the fingers and how well formed a hand is are judged by the package's second judge of hands, which is not
MediaPipe: that finds few small hands at 64 pixels. Of the rendered hands themselves the judge gives the last row of
the first table, which no arm can pass. IoU is the boxes' overlap; centre errors are shares of the image's side. Both,
the correlations, the fingers and how well formed a hand is are of the images in which the judge finds one. An
independent look, without a network, is the silhouette that differs from the plain background: the middle of its upper
part and its upper edge correlate with the box's by, after {compared} steps:

{silhouettes(runs, variants, compared, results["rendered"])}

## Better hands?

The same noise, captions and boxes after {compared} steps: how much more often frames draw the right number of fingers,
and how much more probable it is that the hand is well formed, with 95% intervals over the images (bootstrap, paired).
They say what other images would give, not other seeds of the training. Here an image without a hand counts, with 0.

{differences(results["image_differences"], REFERENCE)}
{in_more_boxes(more) if more else ""}{with_falling_rates(falling) if falling else ""}{beyond}
## The arms

{arms_table(variants)}

"image coordinates" patches the same layers and counts from the image. "box channel" draws the box as one more channel
of the UNet's input, "box tokens" gives the cross-attention one token more, of Fourier features of the box. "place
words" says which ninth of the image the middle of the box lies in, before the caption. The model's vocabulary knows
left and right; it reads the other places letter by letter. "Guided" arms draw with the weights of the arm of the same
name or, where those above were trained in another precision, of trainings with the same seeds. Their guidance also
compares boxes: its unconditional half is told of the mean box of the training images.
"""


def silhouettes(runs: list[Run], variants: dict[str, Any], steps: int, rendered: dict[str, float]) -> str:
    names = ("silhouette_x", "silhouette_top")
    rows = []
    for name in variants:
        own = select(runs, variant=name, steps=steps)
        if own:
            rows.append([name, *(score_cell(own, score) for score in names)])
    rows.append([RENDERED, *(f"{rendered[score]:.3f}" for score in names)])
    return markdown_table(["arm", "middle across", "upper edge"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, help="folder of frames.json, and of the page")
    folder = Path(parser.parse_args().results)
    more, falling = (
        read_results(folder / name, "frames") if (folder / name).is_file() else None for name in (MORE_BOXES, FALLING)
    )
    text = page(read_results(folder / "frames.json", "frames"), more, falling, generalisation(folder))
    write_text(folder / "frames.md", text)


if __name__ == "__main__":
    sys.exit(main())
