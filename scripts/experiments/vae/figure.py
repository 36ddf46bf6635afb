"""The figure of the VAEs' loss curves."""

from pathlib import Path

import numpy as np
from scipy.stats import t as student_t

from geopos_diffusers.files import atomic_path

from ..results import Run
from ..statistics import UPPER_TAIL

COLORS = {"convolution": "C7", "CoordConv": "C1", "GeoConv": "C0", "GeoConv, no shift": "C2"}


def reach(curves: np.ndarray) -> np.ndarray:
    """Half widths [P] of the 95% intervals of the mean over runs [S, P], point by point; 0 of a single run."""
    count = len(curves)
    if count < 2:
        return np.zeros(curves.shape[1])
    return student_t.ppf(UPPER_TAIL, count - 1) * curves.std(0, ddof=1) / count**0.5


def draw_curves(by_size: dict[int, dict[str, list[Run]]], target: Path) -> None:
    """A row for the training and one for the test loss, a column a latent size, a line with a band a variant.

    Args:
        by_size: the runs of each variant by latent size.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 3.6 * len(by_size), 6), layout="constrained")
    panels = figure.subplots(2, len(by_size), sharex=True, sharey="row", squeeze=False)
    for column, (latent_size, variants) in enumerate(by_size.items()):
        for line, (curve, label) in enumerate((("train_loss", "training loss"), ("test", "test loss"))):
            axes = panels[line, column]
            for name, color in COLORS.items():
                runs = variants.get(name, [])
                if runs:
                    values = np.array([run["curves"][curve] for run in runs])
                    steps = runs[0]["curves"]["step"]
                    mean, half = values.mean(0), reach(values)
                    axes.plot(steps, mean, color=color, linewidth=1.4, label=name)
                    axes.fill_between(steps, mean - half, mean + half, color=color, alpha=0.25, linewidth=0)
            axes.set_yscale("log")
            axes.grid(alpha=0.25, which="both")
            if not column:
                axes.set_ylabel(f"{label} [nats an image]")
        panels[0, column].set_title(f"latents of {latent_size}")
        panels[1, column].set_xlabel("step")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
