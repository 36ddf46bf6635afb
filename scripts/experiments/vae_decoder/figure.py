"""The figure of the decoders: gains in ring and centre, sweeps, and reconstructions."""

from pathlib import Path

from PIL import Image

from geopos_diffusers.files import atomic_path

from ..results import mean_score, select

REGIONS = {"ring": "C1", "centre": "C0"}


def draw(results: dict, pictures: dict[str, list[Image.Image]], target: Path) -> None:
    """Write the PNG. pictures: the same test images by decoder, and "original"."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.3))
    gains, sweeps = upper.subplots(1, 2)
    arms, intervals = list(results["variants"]), results["image_intervals"]
    for shift, (region, color) in zip((-0.18, 0.18), REGIONS.items(), strict=True):
        found = [intervals[f"{name} - untouched"][f"psnr_{region}"] for name in arms]
        heights = [one["value"] for one in found]
        reach = [[one["value"] - one["low"] for one in found], [one["high"] - one["value"] for one in found]]
        places = [place + shift for place in range(len(arms))]
        gains.bar(places, heights, 0.34, yerr=reach, color=color, label=region, capsize=2)
    gains.set_xticks(range(len(arms)), arms, fontsize=8)
    gains.set_ylabel("PSNR gain on test images [dB]")
    gains.legend(frameon=False)
    for name, arm in results["variants"].items():
        curve = {float(rate): loss for rate, loss in arm["sweep"].items() if loss is not None}
        sweeps.plot([*curve], [*curve.values()], marker="o", label=name)
    sweeps.set(xscale="log", xlabel="peak learning rate", ylabel="L1 of validation images")
    sweeps.legend(frameon=False, fontsize=8)
    rows = len(pictures["original"])
    panels = lower.subplots(rows, len(pictures), squeeze=False)
    for column, (name, images) in enumerate(pictures.items()):
        psnr = (
            ""
            if name == "original"
            else f"\n{mean_score(select(results['runs'], variant=name), 'psnr_image').value:.2f} dB"
        )
        panels[0, column].set_title(f"{name}{psnr}", fontsize=8)
        for row, image in enumerate(images):
            panels[row, column].imshow(image, interpolation="nearest")
            panels[row, column].axis("off")
    with atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
