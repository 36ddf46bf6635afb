"""The part of the study's page on what geometry weights do in a denoiser."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..arms_page import estimate_cell
from ..page import markdown_table
from ..results import Run, commands_of, mean_score, paired, scores, select
from ..statistics import Estimate, difference_estimate, mean_estimate
from ..verdict import comparison_texts
from .ablations import ALONE, DROPPED, KEPT_TERMS, WHOLE
from .learnt_fields import ALL, RELATIVE, TERMS
from .mechanism_results import BASE, ENERGY, ONE_LAYER, POSITION, REMOVAL, SHIFT, first_words
from .tasks import TASKS


def mechanism_section(results: Mapping[str, Any], pictures: str = "study/mechanism") -> str:
    """Markdown of the results of `mechanism`: statements and tables for each task.

    Args:
        pictures: the results file's path from the page, without its ending.
    """
    settings, runs = results["settings"], results["runs"]
    commands = "\n".join(commands_of(results))
    tasks = dict.fromkeys(run["task"] for run in runs if run["variant"] == REMOVAL)
    return f"""Adapters of the arm "geometry" are taken apart. Loss: denoising loss on at most {settings["test_images"]}
test images, with the same noise for all, as a ratio to that of the base. Energy: mean square of what the geometry
weights add to a layer's output, over its filters and pixels; "{RELATIVE}": its root, by that of the convolution's own
output at the middle noise level. A layer that is dropped has no geometry weights; "alone" it is the only one that has
some. Place: R^2 of a ridge regression of a pixel's coordinate from the features after a block of the UNet, at the
middle noise level, fitted on one half of at most {settings["probe_images"]} test images and scored on the other; images
of twice the size are the same ones, enlarged. A learnt field depends on the place alone, so that features hold the
place is what geometry does by construction; whether the model uses it shows in the losses with other terms and with
shifted coordinates. In brackets: 95% intervals (Student's t over seeds). Comparisons are paired by seed and corrected
by Holm's method within a task.

```bash
{commands}
```

""" + "\n\n".join(task_part(task, select(runs, task=task), pictures) for task in tasks)


def task_part(task: str, runs: Sequence[Run], pictures: str) -> str:
    parts = {name: select(runs, variant=name) for name in (BASE, ENERGY, REMOVAL, ONE_LAYER, SHIFT, POSITION)}
    lines = [
        *energy_statements(parts[ENERGY]),
        *removal_statements(parts[REMOVAL]),
        *layer_statements(parts[ONE_LAYER]),
        *place_statements(parts[BASE], parts[POSITION]),
    ]
    return f"""### {TASKS[task].title}

{chr(10).join(f"- {line}" for line in lines)}

{loss_table(parts[REMOVAL], parts[SHIFT])}

{layer_table(parts[ENERGY], parts[ONE_LAYER])}

{place_table(parts[BASE], parts[POSITION])}

![Learnt fields of the layers where they are largest beside the layer's output]({pictures}-{task}.png)

![Loss with one layer dropped or alone, and R^2 of the place by block]({pictures}-{task}-layers.png)"""


def energy_statements(runs: Sequence[Run]) -> list[str]:
    shares = ", ".join(f"{term} {estimate_cell(mean_score(runs, f'{ALL} {term}'), '.2f')}" for term in TERMS)
    size = estimate_cell(mean_score(runs, f"{ALL} {RELATIVE}"), ".2f")
    return [
        f"Shares of the fields' energy in all layers: {shares}.",
        f"The fields' RMS is {size} of that of the convolutions' own outputs.",
    ]


def removal_statements(runs: Sequence[Run]) -> list[str]:
    """What paired differences of the whole adapter's loss from those of its parts show."""
    others = [name for name in KEPT_TERMS if name != WHOLE]
    found = [difference_estimate(*paired(scores(runs, WHOLE), scores(runs, name))) for name in others]
    texts = comparison_texts(found, others)
    return [
        f"Loss of the {WHOLE}: {text}; difference {estimate_cell(estimate, '+.4f')}."
        for estimate, text in zip(found, texts, strict=True)
    ]


def layer_statements(runs: Sequence[Run]) -> list[str]:
    layers = first_words(runs, f" {DROPPED}")
    dropped = {name: mean_score(runs, f"{name} {DROPPED}") for name in layers}
    alone = {name: mean_score(runs, f"{name} {ALONE}") for name in layers}
    worst, best = max(layers, key=lambda name: dropped[name].value), min(layers, key=lambda name: alone[name].value)
    return [
        f"The loss ratio rises most without {worst}: by {estimate_cell(dropped[worst], '.4f')}.",
        f"It falls most with {best} alone: by {estimate_cell(negative(alone[best]), '.4f')}.",
    ]


def negative(estimate: Estimate) -> Estimate:
    """The estimate of -x from that of x."""
    if estimate.low is None:
        return Estimate(-estimate.value, None, None, None, estimate.count)
    return Estimate(-estimate.value, -estimate.high, -estimate.low, estimate.p, estimate.count)


def place_statements(base: Sequence[Run], patched: Sequence[Run]) -> list[str]:
    """R^2 averaged over the blocks and both axes, for each size."""
    lines = []
    for size in place_sizes(base):
        names = [f"{block} {size} {axis}" for block in place_blocks(base, size) for axis in "xy"]
        before, after = (
            mean_estimate([sum(run["scores"][name] for name in names) / len(names) for run in runs])
            for runs in (base, patched)
        )
        values = f"{estimate_cell(before, '.2f')} in the base and {estimate_cell(after, '.2f')} with geometry"
        lines.append(f"Mean R^2 of the place over the blocks at {size}: {values}.")
    return lines


def place_sizes(base: Sequence[Run]) -> list[str]:
    """Such as "64 px"."""
    return [*dict.fromkeys(name.split(" ", 1)[1] for name in first_words(base, " x"))]


def place_blocks(base: Sequence[Run], size: str) -> list[str]:
    return first_words(base, f" {size} x")


def loss_table(removal: Sequence[Run], shifted: Sequence[Run]) -> str:
    rows = [[f"kept: {name}", estimate_cell(mean_score(removal, name), ".4f")] for name in KEPT_TERMS]
    shifts = first_words(shifted, "")
    rows += [[f"coordinates shifted: {name}", estimate_cell(mean_score(shifted, name), ".4f")] for name in shifts]
    return markdown_table(["adapter", "loss ratio"], rows)


def layer_table(energy: Sequence[Run], one_layer: Sequence[Run]) -> str:
    rows = [
        [
            name,
            *(mean_cell(energy, f"{name} {measure}", ".2f") for measure in (RELATIVE, *TERMS)),
            *(mean_cell(one_layer, f"{name} {part}", "+.4f") for part in (DROPPED, ALONE)),
        ]
        for name in first_words(one_layer, f" {DROPPED}")
    ]
    return markdown_table(["layer", RELATIVE, *TERMS, "loss ratio when dropped, change", "alone, change"], rows)


def place_table(base: Sequence[Run], patched: Sequence[Run]) -> str:
    rows = []
    for size in place_sizes(base):
        for block in place_blocks(base, size):
            cells = [mean_cell(runs, f"{block} {size} {axis}", ".2f") for axis in "xy" for runs in (base, patched)]
            rows.append([block, size, *cells])
    heads = [f"R^2 of {axis}, {kind}" for axis in "xy" for kind in ("base", "with geometry")]
    return markdown_table(["after", "images", *heads], rows)


def mean_cell(runs: Sequence[Run], name: str, style: str) -> str:
    """The mean over seeds with its interval, of the runs that have the score."""
    return estimate_cell(mean_score([run for run in runs if name in run["scores"]], name), style)
