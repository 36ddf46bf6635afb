"""The options of what is trained: geometry weights, biases, LoRA, the whole model, each with its learning rate."""

# ruff: noqa: RUF009 - options are dataclass fields
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..errors import ConfigError
from ..patching.config import GeoConvConfig
from ..pipelines.loading import DEFAULT_MODEL
from ..training.arguments import option
from ..training.optimizers import SOURCES
from .training_options import TrainingArguments, optimisation_option

if TYPE_CHECKING:
    from torch import nn

PARTS = ("geoconv", "bias", "lora", "full")
# Peak learning rates: for each part the best of a sweep on the packaged model in 300 steps (docs/results/
# trained_parts.md). Large models and long runs take less. That of the whole UNet was not swept.
LEARNING_RATES = {"geoconv": 0.3, "taps": 0.3, "bias": 0.95, "lora": 1e-2, "full": 1e-4}
PART_RATES = {part: f"{part}_learning_rate" for part in ("geoconv", "bias", "lora")}
ATTENTION_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
EXCLUSIVE = (
    ("geoconv", "bias", "the geometry weights hold each layer's bias as their constant term; leave bias out"),
    ("bias", "full", "the whole model holds its biases; leave bias out"),
    ("lora", "full", "LoRA factors add nothing to a model that is trained whole; leave lora out"),
)

trained_option = partial(option, group="what is trained")


@dataclass(kw_only=True)
class PartArguments(TrainingArguments):
    """Which model is trained, and which of its parts at which rates.

    COMPONENTS: what the script can train, by its name in the pipeline. DEFAULT_RATES: peak learning rates by part,
    with "taps" for geometry weights of that basis. LORA_TARGETS: names or name endings of layers.
    """

    COMPONENTS: ClassVar[tuple[str, ...]] = ("unet",)
    DEFAULT_RATES: ClassVar[dict[str, float]] = LEARNING_RATES
    LORA_TARGETS: ClassVar[tuple[str, ...]] = ATTENTION_PROJECTIONS

    model: str = trained_option(
        DEFAULT_MODEL,
        "pipeline to fine-tune: a folder, a Hub id, or a packaged one",
        resume="fixed",
        common=True,
        at_least=1,
    )
    train: str = trained_option(
        "geoconv",
        "what is trained, joined by +: geoconv (geometry weights), bias (a bias for each of the layers that geoconv "
        "would patch), lora, full (the whole model)",
        resume="fixed",
        common=True,
    )
    encoding: str = trained_option(
        "product", "geometry channel: product, squares, sum, cartesian or cartesian_radius", resume="fixed"
    )
    basis: str | None = trained_option(
        None, "geometry weights: multilinear or taps; by default multilinear where there is one", resume="fixed"
    )
    shift_range: float = trained_option(
        0.25, "half the width of the random shift of the coordinates; 0 turns it off", resume="fixed"
    )
    normalization: str = trained_option("unit", "scale of the coordinates: unit, aspect or pixel", resume="fixed")
    target_modules: list[str] | str | None = trained_option(
        None,
        "layers to patch: names, name endings, or one regular expression; by default all kernels of 2+ taps",
        resume="fixed",
    )
    exclude_modules: list[str] | str | None = trained_option(
        None, "layers not to patch, given as target-modules is", resume="fixed"
    )
    components: list[str] | None = trained_option(
        None, "parts of the pipeline to patch; each script trains its own alone", resume="fixed"
    )
    lora_rank: int = trained_option(8, "rank of the LoRA factors", resume="fixed", at_least=1)
    lora_alpha: float | None = trained_option(
        None, "LoRA scale times its rank; by default the rank (scale 1)", resume="fixed", above=0
    )
    lora_target_modules: list[str] | None = trained_option(
        None, "layers that get LoRA: names or name endings; by default the attention projections", resume="fixed"
    )
    # Of the rates a resumed run compares what they amount to for each part, and of the schedule where it ends.
    learning_rate: float | None = optimisation_option(
        None,
        "peak learning rate of every part without one of its own; by default each part's best of a sweep",
        resume="free",
        common=True,
        above=0,
    )
    geoconv_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of the geometry weights", resume="free", above=0
    )
    bias_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of the biases", resume="free", above=0
    )
    lora_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of the LoRA factors", resume="free", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_modules", "exclude_modules"):
            setattr(self, name, names_or_expression(getattr(self, name)))
        if self.components is not None and (len(self.components) > 1 or self.components[0] not in self.COMPONENTS):
            raise ConfigError(
                f"this script trains the {' or '.join(self.COMPONENTS)} only; components is {self.components}"
            )
        check_parts(self.train, self.parts)
        if "bias" in self.parts and (self.encoding, self.basis) != ("product", None):
            raise ConfigError("encoding and basis are options of geoconv; train=bias has no coordinates")
        for part, name in PART_RATES.items():
            if part not in self.parts and getattr(self, name) is not None:
                raise ConfigError(f"{name} is given, but train={self.train} trains no {part}")
        if "lora" not in self.parts:
            self.check_unused(("lora_alpha", "lora_target_modules"), "train=lora")
            if "text_encoder" not in self.rated_parts:  # whose factors have this rank by default
                self.check_unused(("lora_rank",), "train=lora")
        self.geoconv_config()
        rates = {self.peak_learning_rate(part) for part in self.rated_parts}
        if SOURCES[self.optimizer].one_rate and len(rates) > 1:
            raise ConfigError(f"optimizer {self.optimizer} finds one rate for all parts; give learning_rate alone")

    @property
    def parts(self) -> tuple[str, ...]:
        """What is trained, of PARTS."""
        return tuple(self.train.split("+")) if isinstance(self.train, str) else ()

    @property
    def rated_parts(self) -> tuple[str, ...]:
        """What has a learning rate of its own: `parts`, and what a script trains beside them."""
        return self.parts

    @property
    def patches(self) -> bool:
        """Whether the model is patched: biases are trained as the constant term of a patched layer."""
        return "geoconv" in self.parts or "bias" in self.parts

    def peak_learning_rate(self, part: str) -> float:
        """A part's own learning rate, else that of all parts, else the default of the part and the optimizer.

        Raises:
            ConfigError: the optimizer has no default.
        """
        own = getattr(self, PART_RATES[part]) if part in PART_RATES else None
        if given := own or self.learning_rate:
            return given
        rate = SOURCES[self.optimizer].rate
        if rate is None:
            raise ConfigError(f"optimizer {self.optimizer} needs a learning_rate: the defaults are AdamW's")
        default = "taps" if part == "geoconv" and self.geoconv_config().basis == "taps" else part
        return self.DEFAULT_RATES[default] if rate == "swept" else rate

    def lora_targets(self, model: "nn.Module") -> list[str]:
        """Names or name endings of the model's layers that get LoRA."""
        return self.lora_target_modules or list(self.LORA_TARGETS)

    def trains_whole(self, name: str) -> bool:
        """Whether `full` trains a parameter of this name; what it does not train is frozen."""
        return True

    def geoconv_config(self, component: str | None = None) -> GeoConvConfig:
        """The surgery on a component of the pipeline; by default the script's own."""
        return GeoConvConfig(
            encoding="constant" if "bias" in self.parts else self.encoding,
            basis=self.basis,
            shift_range=self.shift_range,
            normalization=self.normalization,
            target_modules=as_tuple(self.target_modules),
            exclude_modules=as_tuple(self.exclude_modules),
            components=(component or self.COMPONENTS[0],),
        )


def check_parts(train: str, parts: tuple[str, ...]) -> None:
    """Refuse parts that do not exist, that are named twice, or of which one holds the other.

    Args:
        train: the option's value. parts: the same, split.

    Raises:
        ConfigError: they cannot be trained together.
    """
    if not parts or set(parts) - set(PARTS) or len(set(parts)) < len(parts):
        raise ConfigError(f"train must be one or more of {', '.join(PARTS)}, joined by +; got {train!r}")
    for first, second, reason in EXCLUSIVE:
        if first in parts and second in parts:
            raise ConfigError(f"train cannot be {train}: {reason}")


def names_or_expression(value: list[str] | str | None) -> list[str] | str | None:
    """A single value with a character that no layer name has is a regular expression."""
    if isinstance(value, list) and len(value) == 1 and re.search(r"[^\w.]", value[0]):
        return value[0]
    return value


def as_tuple(names: list[str] | str | None) -> tuple[str, ...] | str | None:
    return tuple(names) if isinstance(names, list) else names
