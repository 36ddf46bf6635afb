"""The figure of a task's loss ratios by noise level."""

from pathlib import Path

from geopos_diffusers.files import atomic_path

from ..results import mean_score
from .measuring import BANDS
from .task_results import TaskResults

SCORES = [f"loss band {band}" for band in range(BANDS)]


def draw_bands(task: TaskResults) -> Path | None:
    """Write TASK-bands.png beside the results. None where no arm was measured by noise level.

    Points are means over the seeds, bars their 95% intervals.
    """
    from matplotlib.figure import Figure

    arms = [name for name in task.trained if all(task.known_runs(name, score) for score in SCORES)]
    if not arms:
        return None
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(arms):
        means = [mean_score(task.known_runs(name, score), score) for score in SCORES]
        reach = [0.0 if one.low is None else one.value - one.low for one in means]
        shift = 0.4 * ((number + 0.5) / len(arms) - 0.5)  # apart, so that the bars can be told from each other
        axes.errorbar(
            [band + shift for band in range(BANDS)],
            [one.value for one in means],
            reach,
            color=f"C{number % 10}",
            linestyle="-" if number < 10 else "--",
            marker="o",
            markersize=3,
            capsize=2,
            label=name,
        )
    axes.axhline(1, color="0.4", linewidth=1, label="base")
    axes.set_xticks(range(BANDS), ["least noise", *(f"band {band}" for band in range(1, BANDS - 1)), "most noise"])
    axes.set(ylabel="loss as a ratio to the base's", title=task.title)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    target = task.file.with_name(f"{task.name}-bands.png")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
    return target
