"""One training of a comparison of plain convolutions, CoordConv and GeoConv: what it trains, and its name."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn

from ..config import GeoConvConfig, GeoPosConfig
from ..errors import ConfigError
from .kinds import kind_config, set_kind
from .position_network import PositionNetwork


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network, what it learns from and its seed.

    data: name of the training data. widths: channels of the convolutions. geometry: of kind "geo".

    Raises:
        ConfigError: an unknown kind.
    """

    data: str
    head: str
    widths: tuple[int, ...]
    kind: str
    seed: int
    geometry: GeoPosConfig = field(default_factory=GeoPosConfig)

    def __post_init__(self) -> None:
        kind_config(self.kind)

    def network(self, outputs: int, size: int) -> nn.Module:
        """The network with the weights that the seed gives. Its convolutions have the kind's coordinate channels."""
        network = PositionNetwork(self.widths, outputs, self.head, size)
        return set_kind(network, self.kind, GeoConvConfig(**asdict(self.geometry)), self.seed)

    def record(self) -> dict[str, Any]:
        """What the trial is, JSON-ready. Options of the geometry channel are there for kind "geo" only."""
        values = {name: getattr(self, name) for name in ("data", "head", "kind", "seed")}
        values["widths"] = list(self.widths)
        if self.kind == "geo":
            unused = {"reference_size", "shift_distribution", "shift_at_inference"}
            values |= {
                option.name: getattr(self.geometry, option.name)
                for option in fields(GeoPosConfig)
                if option.name not in unused
            }
        return values

    def name(self, settings: dict[str, Any]) -> str:
        """A folder name of its own for every trial and every `settings` that it is trained under."""
        text = json.dumps([self.record(), settings], sort_keys=True)
        return f"{self.kind}-seed{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


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


def match_parameters(trial: Trial, outputs: int, size: int) -> Trial:
    """`trial` with its last convolution as wide as gives it the parameters that CoordConv has at the same widths."""

    def count(kind: str, widths: tuple[int, ...]) -> int:
        with torch.device("meta"):
            network = PositionNetwork(widths, outputs, trial.head, size)
        total = count_parameters(network)
        axes = {"conv": 0, "coord": 2, "geo": trial.geometry.channels(2)}[kind]
        return total + axes * 9 * sum(widths)

    widths = match_last_width(trial.widths, count("coord", trial.widths), lambda widths: count(trial.kind, widths))
    values = {option.name: getattr(trial, option.name) for option in fields(trial)}
    return Trial(**values | {"widths": widths})
