"""One training of a comparison of plain convolutions, CoordConv and GeoConv: what it trains, and its name."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import GeoConvConfig, GeoPosConfig

from .kinds import kind_config, parameter_count, set_kind

KIND_NAMES = {
    "conv": "convolution",
    "coord": "CoordConv",
    "geo": "GeoConv",
    "geo-multilinear": "GeoConv, multilinear",
}
# Options of the geometry channel that comparisons vary, beside the kind's basis.
_VARIED = ("encoding", "normalization", "shift_range", "shift_scope", "shift_unit", "border")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What an experiment trains; experiments add fields of their own, such as a head or the size of the latents.

    data: name of the training data. widths: channels of the convolutions. geometry: of the kinds of GeoConv.
    learning_rate: the peak; None for that of the comparison's options. matched: whether the last width was changed to
    give the network as many parameters as CoordConv has.

    Raises:
        ConfigError: an unknown kind.
    """

    data: str
    widths: tuple[int, ...]
    kind: str
    seed: int
    geometry: GeoPosConfig = field(default_factory=GeoPosConfig)
    learning_rate: float | None = None
    matched: bool = False

    def __post_init__(self) -> None:
        kind_config(self.kind)

    def config(self) -> GeoConvConfig:
        """The geometry channel as the surgery takes it."""
        return GeoConvConfig(**asdict(self.geometry))

    @property
    def variant(self) -> str:
        """What is compared, by name: "convolution", "GeoConv, no shift", "GeoConv, multilinear, matched"."""
        return variant_name(self.kind, self.geometry, self.matched)

    @property
    def is_geoconv(self) -> bool:
        return self.kind.startswith("geo")

    def record(self) -> dict[str, Any]:
        """What the trial is, JSON-ready. Options of the geometry channel are there for GeoConv only."""
        left_out = ("geometry", "matched")
        values = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in left_out}
        values |= {"variant": self.variant, "widths": list(self.widths)}
        if self.is_geoconv:
            options = kind_config(self.kind, self.config())
            values |= {"basis": options.basis} | {name: getattr(options, name) for name in _VARIED}
        return values

    def name(self, settings: dict[str, Any]) -> str:
        """A folder name of its own for every trial and every `settings` that it is trained under."""
        text = json.dumps([self.record(), settings], sort_keys=True)
        return f"{self.kind}-seed{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def variant_name(kind: str, geometry: GeoPosConfig | None = None, matched: bool = False) -> str:
    """The kind's name, then what differs from the default geometry channel of GeoConv, then "matched"."""
    changes = []
    if geometry is not None and kind.startswith("geo"):
        default = GeoPosConfig()
        changed = [name for name in _VARIED if getattr(geometry, name) != getattr(default, name)]
        changes = [_describe_option(name, getattr(geometry, name)) for name in changed]
    return ", ".join([KIND_NAMES[kind], *changes, *(["matched"] if matched else [])])


def _describe_option(name: str, value: Any) -> str:
    if name == "shift_range":
        return f"shift {value:g}" if value else "no shift"
    return value if name == "encoding" else f"{name.replace('_', ' ')} {value}"


# A trial's network, of plain convolutions.
Build = Callable[[Trial], nn.Module]


def trial_network(trial: Trial, build: Build) -> nn.Module:
    """The network with the coordinate channels of the trial's kind and the weights that its seed gives."""
    return set_kind(build(trial), trial.kind, trial.config(), trial.seed)


def match_last_width(widths: Sequence[int], target: int, count: Callable[[tuple[int, ...]], int]) -> tuple[int, ...]:
    """`widths` with the last one changed so that `count(widths)`, the parameters, comes nearest to `target`.

    Raises:
        ConfigError: even twice the last width has too few parameters.
    """
    candidates = [(*widths[:-1], last) for last in range(1, 2 * widths[-1] + 1)]
    counts = [count(candidate) for candidate in candidates]
    if counts[-1] < target:
        raise ConfigError(f"no last width up to {2 * widths[-1]} gives {target} parameters; the most is {counts[-1]}")
    return min(zip(candidates, counts, strict=True), key=lambda pair: abs(pair[1] - target))[0]


def match_parameters(trial: Trial, build: Build) -> Trial:
    """`trial` with its last convolution as wide as gives it the parameters that CoordConv has at the same widths."""

    def count(kind: str, widths: tuple[int, ...]) -> int:
        with torch.device("meta"):
            network = build(replace(trial, widths=widths))
        return parameter_count(network, kind, trial.config())

    widths = match_last_width(trial.widths, count("coord", trial.widths), lambda widths: count(trial.kind, widths))
    return replace(trial, widths=widths, matched=True)
