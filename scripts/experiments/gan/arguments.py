"""Options of scripts/experiments/gan/run.py."""

from dataclasses import asdict, dataclass, field
from typing import Any

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import GeoConvConfig
from geopos_diffusers.training.arguments import option

from .network import SIZES, VARIANTS

# Settings that change what is written or when, and not what is learnt: a run may be continued under other values.
FREE_SETTINGS = (
    *(
        "train_data",
        "data_name",
        "note",
        "output_dir",
        "results",
        "publish_samples",
        "results_only",
        "variants",
        "seeds",
    ),
    *("epochs", "stop_at_epoch", "checkpoint_every", "mobilenet_every", "report_to"),
)


@dataclass
class GanArguments:
    """Everything that a set of runs needs; a checkpoint is only continued under the same values."""

    train_data: str = field(
        metadata={"help": "image folder with metadata.jsonl, or a Parquet file with image and text"}
    )
    output_dir: str = field(metadata={"help": "folder of the runs: one below it for each variant and seed"})
    data_name: str = option("images", "name of the data, in results and figures")
    note: str = option("", "words for the page of results, such as how the settings were chosen")
    limit: int | None = option(None, "use the first so many images only")
    results: str | None = option(
        None,
        "write RESULTS.json and RESULTS-*.png of all finished runs asked for, such as docs/results/paper_gan_hands",
    )
    publish_samples: bool = option(False, "put the film strip of samples beside the results (mind the data's licence)")
    results_only: bool = option(False, "train nothing; write the results of the runs that are there")
    variants: list[str] = field(
        default_factory=lambda: ["conv", "coord", "geo", "geo-no-shift"],
        metadata={"help": f"what to compare, of {', '.join(VARIANTS)}"},
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "one run a variant and seed"})

    size: int = option(32, f"side of the images in pixels, {' or '.join(map(str, SIZES))}")
    width: int = option(16, "channels of the networks at half the side")
    latent_size: int = option(64, "numbers in a latent")
    epochs: int = option(450, "passes over the data; a finished run goes on where more are asked for")
    stop_at_epoch: int | None = option(None, "end every run at this epoch, with a checkpoint")
    batch_size: int = option(64, "images a step, over all processes")
    learning_rate: float = option(2e-4, "of Adam, for both networks")
    beta1: float = option(0.5, "of Adam")

    encoding: str = option("product", "of the geometry channel of geo, as GeoConvConfig")
    shift_range: float = option(0.25, "of the geometry channel of geo, as GeoConvConfig")
    shift_scope: str = option("layer", "of the geometry channel of geo, as GeoConvConfig")
    shift_unit: str = option("batch", "of the geometry channel of geo, as GeoConvConfig")
    normalization: str = option("unit", "of the geometry channels, as GeoConvConfig")
    border: str = option("zeros", "of the geometry channels, as GeoConvConfig")

    evaluate_every: int = option(5, "epochs between evaluations of samples of fixed latents")
    samples: int = option(1000, "samples of an evaluation")
    bins: int = option(50, "k-means bins of the real images")
    pairs: int = option(400, "pairs of samples for the mean MS-SSIM")
    mobilenet_every: int = option(0, "epochs between evaluations by MobileNetV2's features too; 0 for never")
    checkpoint_every: int = option(50, "epochs between checkpoints, one of which is kept")
    report_to: str = option("none", "an accelerate tracker such as tensorboard, or none")

    def __post_init__(self) -> None:
        for variant in self.variants:
            if variant not in VARIANTS:
                raise ConfigError(f"variants must be of {', '.join(VARIANTS)}; got {variant!r}")
        if not self.variants or not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"variants and seeds need values, seeds all different and >= 0; got {self.seeds}")
        if self.size not in SIZES:
            raise ConfigError(f"size must be one of {', '.join(map(str, SIZES))}; got {self.size}")
        for name in ("width", "latent_size", "epochs", "evaluate_every", "bins", "pairs", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size is {self.batch_size}; batch normalisation needs at least 2 images")
        if self.samples < 16:
            raise ConfigError(f"samples is {self.samples}; at least 16 are needed")
        if self.mobilenet_every < 0 or self.mobilenet_every % self.evaluate_every:
            raise ConfigError(
                f"mobilenet_every is {self.mobilenet_every}; it must be 0 or a multiple of evaluate_every "
                f"({self.evaluate_every})"
            )
        if not self.learning_rate > 0 or not 0 <= self.beta1 < 1:
            raise ConfigError(f"learning_rate {self.learning_rate} must be above 0, beta1 {self.beta1} in [0, 1)")
        self.geometry()

    def geometry(self) -> GeoConvConfig:
        """The geometry channel of the geo variants."""
        names = ("encoding", "shift_range", "shift_scope", "shift_unit", "normalization", "border")
        return GeoConvConfig(**{name: getattr(self, name) for name in names})

    def settings(self) -> dict[str, Any]:
        """What a run is only continued under, and what its results say."""
        return {name: value for name, value in asdict(self).items() if name not in FREE_SETTINGS}
