"""Options of scripts/experiments/gan/run.py."""

from dataclasses import dataclass
from typing import Any

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import GeoConvConfig
from geopos_diffusers.training.arguments import (
    CONTINUED,
    OVERWRITE_HELP,
    check_arguments,
    fixed_settings,
    option,
    required,
)

from .network import SIZES, VARIANTS


@dataclass
class GanArguments:
    """Train DCGANs side by side, one run a variant and seed, and measure when they collapse.

    Raises:
        ConfigError: a value is out of its range, or two options do not fit.
    """

    train_data: str = required(
        "image folder with metadata.jsonl, or a Parquet file with image and text", resume="free", name="dataset"
    )
    output_dir: str = required(
        f"folder of the runs: one below it for each variant and seed; {CONTINUED}", resume="free", name="output"
    )
    data_name: str = option("images", "name of the data, in results and figures", resume="free")
    note: str = option("", "words for the page of results, such as how the settings were chosen", resume="free")
    limit: int | None = option(None, "use the first so many images only", resume="fixed", name="max_images", at_least=1)
    results: str | None = option(
        None,
        "write RESULTS.json and RESULTS-*.png of all finished runs asked for, such as docs/results/paper_gan_hands",
        resume="free",
    )
    publish_samples: bool = option(
        False, "put the film strip of samples beside the results (mind the data's licence)", resume="free"
    )
    results_only: bool = option(
        False,
        "train nothing, and write the results of the runs that are finished",
        resume="free",
        aliases=["finished_only"],
    )
    variants: list[str] = option(
        ["conv", "coord", "geo", "geo-no-shift"], f"what to compare, of {', '.join(VARIANTS)}", resume="free"
    )
    seeds: list[int] = option([0, 1, 2], "one run a variant and seed", resume="free", at_least=0)

    size: int = option(32, f"side of the images in pixels, {' or '.join(map(str, SIZES))}", resume="fixed")
    width: int = option(16, "channels of the networks at half the side", resume="fixed", at_least=1)
    latent_size: int = option(64, "numbers in a latent", resume="fixed", at_least=1)
    epochs: int = option(
        450,
        "passes over the data; a finished run goes on where more are asked for",
        resume="free",
        name="num_train_epochs",
        at_least=1,
    )
    stop_at_epoch: int | None = option(None, "end every run at this epoch, with a checkpoint", resume="free")
    # Batch normalisation needs two images.
    batch_size: int = option(64, "images a step, over all processes", resume="fixed", at_least=2)
    learning_rate: float = option(2e-4, "of Adam, for both networks", resume="fixed", above=0)
    beta1: float = option(0.5, "of Adam", resume="fixed", name="adam_beta1", at_least=0)

    encoding: str = option("product", "of the geometry channel of geo, as GeoConvConfig", resume="fixed")
    shift_range: float = option(0.25, "of the geometry channel of geo, as GeoConvConfig", resume="fixed")
    shift_scope: str = option("layer", "of the geometry channel of geo, as GeoConvConfig", resume="fixed")
    shift_unit: str = option("batch", "of the geometry channel of geo, as GeoConvConfig", resume="fixed")
    normalization: str = option("unit", "of the geometry channels, as GeoConvConfig", resume="fixed")
    border: str = option("zeros", "of the geometry channels, as GeoConvConfig", resume="fixed")

    evaluate_every: int = option(
        5,
        "epochs between evaluations of samples of fixed latents",
        resume="fixed",
        name="validation_epochs",
        at_least=1,
    )
    samples: int = option(1000, "samples of an evaluation", resume="fixed", at_least=16)
    bins: int = option(50, "k-means bins of the real images", resume="fixed", at_least=1)
    pairs: int = option(400, "pairs of samples for the mean MS-SSIM", resume="fixed", at_least=1)
    mobilenet_every: int = option(
        0,
        "epochs between evaluations by MobileNetV2's features too; 0 for never",
        resume="free",
        name="mobilenet_epochs",
        at_least=0,
    )
    checkpoint_every: int = option(
        50,
        "epochs between checkpoints, one of which is kept",
        resume="free",
        name="checkpointing_epochs",
        at_least=1,
    )
    report_to: str = option("none", "an accelerate tracker such as tensorboard, or none", resume="free")
    overwrite: bool = option(False, OVERWRITE_HELP, resume="free")

    def __post_init__(self) -> None:
        check_arguments(self)
        for variant in self.variants:
            if variant not in VARIANTS:
                raise ConfigError(f"variants must be of {', '.join(VARIANTS)}; got {variant!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds must be all different; got {self.seeds}")
        if self.size not in SIZES:
            raise ConfigError(f"size must be one of {', '.join(map(str, SIZES))}; got {self.size}")
        if self.mobilenet_every % self.evaluate_every:
            raise ConfigError(
                f"mobilenet_epochs is {self.mobilenet_every}; it must be 0 or a multiple of validation_epochs "
                f"({self.evaluate_every})"
            )
        if self.beta1 >= 1:
            raise ConfigError(f"adam_beta1 must be below 1; got {self.beta1}")
        if self.overwrite and self.results_only:
            raise ConfigError("overwrite discards the runs that results_only reports; give one of them")
        self.geometry()

    def geometry(self) -> GeoConvConfig:
        """The geometry channel of the geo variants."""
        names = ("encoding", "shift_range", "shift_scope", "shift_unit", "normalization", "border")
        return GeoConvConfig(**{name: getattr(self, name) for name in names})

    def settings(self) -> dict[str, Any]:
        """What a run is only continued under, and what its results say."""
        return fixed_settings(self)
