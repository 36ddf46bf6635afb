"""What the page says of fewer arms in more boxes: after more steps, and with rates that fall to zero."""

import shlex
from collections.abc import Iterable
from typing import Any

from ..arms_page import difference, estimate_cell
from ..page import markdown_table
from ..results import Run, select
from ..statistics import Estimate, mean_estimate
from .arms import ARMS, LIMITED, OWN_RATE, WINDOWED
from .run import REFERENCE, reference_of
from .score_cells import COLUMNS, MORE_COLUMNS, known_runs, rendered_row, row, score_cell, sweep_cell

LEAST_FOUND = 0.5  # of a run that has not failed
IMAGE_COORDINATES = "image coordinates, whole"
PICTURED = (WINDOWED, LIMITED, OWN_RATE, IMAGE_COORDINATES)
COMPARED = ("iou", "found", "mediapipe_found", "fingers", "well_formed")


def differences(found: dict[str, Any], reference: str) -> str:
    """Over the images, as a results file holds them."""
    rows = [
        [name, *(f"{one[score]['value']:+.3f} [{one[score]['low']:+.3f}, {one[score]['high']:+.3f}]" for score in one)]
        for name, one in found["arms"].items()
    ]
    return markdown_table(
        [f"{reference} minus", "fingers right, of all", "well formed, of all", "mean IoU, of all"], rows
    )


def seed_differences(runs: list[Run], names: Iterable[str], reference: str = REFERENCE) -> str:
    """Of the reference and each of the other arms, over the seeds that both have."""
    headings = {score: COLUMNS[score] for score in COMPARED}
    headings |= {score: head for score, head in MORE_COLUMNS.items() if known_runs(runs, score)}
    known = {score: known_runs(runs, score) for score in headings}
    rows = [
        [name, *(estimate_cell(difference(own, reference, name, score), "+.3f") for score, own in known.items())]
        for name in names
        if name != reference
    ]
    return markdown_table([f"{reference} minus", *headings.values()], rows)


def failures(runs: list[Run]) -> str:
    """Which runs draw hardly any hand; empty without such. They count in the means of what is known of them."""
    failed = [
        f"{run['variant']}, seed {run['seed']}, {run['steps']} steps ({run['scores']['found']:.2f})"
        for run in runs
        if run["scores"]["found"] < LEAST_FOUND
    ]
    return f"\nFailed, a hand being found in less than half of the images: {'; '.join(failed)}." if failed else ""


def precisions(runs: list[Run]) -> str:
    """Which arms were trained in which precision."""
    names = {"no": "float32", "bf16": "bfloat16"}
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(names[run["mixed_precision"]], {}).setdefault(run["variant"], []).append(run)
    said = []
    for name, arms in groups.items():
        shown = []
        for arm, own in arms.items():
            which = "; ".join(f"seed {run['seed']} at {run['steps']} steps" for run in own)
            both = all(arm in others for others in groups.values()) and len(groups) > 1
            shown.append(f"{arm} ({which})" if both else arm)
        said.append(f"Trained in {name}: {'; '.join(shown)}.")
    return " ".join(said)


def in_more_boxes(results: dict[str, Any]) -> str:
    """Fewer arms after more steps, in more boxes."""
    settings, steps = results["settings"], max(run["steps"] for run in results["runs"])
    runs = select(results["runs"], steps=steps)
    rows = [row(name, select(runs, variant=name)) for name in results["variants"]]
    rows.append(rendered_row(results["rendered"]))
    commands = "\n".join(results["commands"])
    return f"""
## After {steps} steps, in {settings["test_images"]} boxes

The same training, for longer, at the rates of the last table. "Scale 4" draws the guided arm with guidance 4 instead of
{settings["guidance_scale"]:g}. {precisions(runs)} {results["date"]}.{failures(runs)}

```bash
{commands}
```

{markdown_table(["arm", "seeds", *COLUMNS.values()], rows)}

{compared(results, runs, REFERENCE)}
"""


def compared(results: dict[str, Any], runs: list[Run], reference: str) -> str:
    """The reference beside the other arms, over the images and over the seeds."""
    return f"""Differences in the same boxes and noise, with 95% intervals over the images:

{differences(results["image_differences"], reference)}

With 95% intervals over the seeds of the training (Student's t, paired), of so few seeds suggestive:

{seed_differences(runs, results["variants"], reference)}"""


def with_falling_rates(results: dict[str, Any]) -> str:
    """Ways to keep the term to the box, and controls, at rates that fall to zero and that the held-out loss chose."""
    runs, settings, variants = results["runs"], results["settings"], results["variants"]
    reference, steps = reference_of(settings), max(run["steps"] for run in results["runs"])
    rows = [
        [*row(name, own), *(score_cell(own, score) for score in MORE_COLUMNS), estimate_cell(losses(own))]
        for name in variants
        if (own := select(runs, variant=name))
    ]
    more = [results["rendered"][score] for score in MORE_COLUMNS]
    rows.append([*rendered_row(results["rendered"]), *(f"{value:.3f}" for value in more), ""])
    heads = ["arm", "seeds", *COLUMNS.values(), *MORE_COLUMNS.values(), "held-out loss"]
    commands = "\n".join(results["commands"])
    shown = [name for name in PICTURED if name in variants]
    return f"""
## With rates that fall to zero, in {settings["test_images"]} boxes

Above, coordinates go on outside the box: far from a small one they are large, and so is what they add. The rate at
which hands soonest follow their boxes then costs quality, and stays constant. In "limited" arms coordinates end at the
edges of the box (`--frame-limit 1`); in "windowed" arms the term is added inside the box alone (`--frame-window`). Here
the rates of all arms fall to zero over {steps} steps (cosine), and each arm has the rate of the least held-out loss:

{falling_rates(variants)}

The rates of image coordinates and of the UNet beside them, in all arms, are of the last table (150 steps,
constant). {box_channel(variants)}

Small hands are harder, and an arm that is not told of the box may draw others. "One hand" is the
share of images in which the judge finds a hand and the silhouette has one part. "Mean size" is the root of the area of
the drawn hands' boxes, as a share of the image's side. "At the asked sizes" is what a share would be if the sizes were
those asked for (direct standardisation over four groups of sizes).
{precisions(runs)} {results["date"]}.{failures(runs)}

```bash
{commands}
```

{markdown_table(heads, rows)}

![The same captions and noise in each arm](frames_cosine.png)

*The first test rows, with the boxes asked for. `python -m scripts.experiments.frames.figure --output runs/limited
--steps {steps} --arms {shlex.join(shown)} --picture docs/results/frames_cosine.png`*

{compared(results, runs, reference)}
"""


def box_channel(variants: dict[str, Any]) -> str:
    """What the control is that knows as much; that it is missing, where it is."""
    if OWN_RATE not in variants:
        return "Not run yet: a box channel, the control that knows as much as frames do."
    return (
        '"Box channel at its own rate" trains the UNet as the other arms do, and the new channel alone at the rate of '
        "this table, as frames train the geometry weights alone at theirs."
    )


def falling_rates(variants: dict[str, Any]) -> str:
    """The rates of the arms that are trained, and the losses they were chosen by."""
    rows = [
        [name, f"{arm['rate']:g}", sweep_cell(arm["sweep"], 4)]
        for name, arm in variants.items()
        if ARMS[name].weights_of is None
    ]
    return markdown_table(["arm", "rate", "held-out loss by rate"], rows)


def losses(runs: list[Run]) -> Estimate:
    """The mean of the held-out losses over the seeds."""
    return mean_estimate([run["held_out_loss"] for run in runs])
