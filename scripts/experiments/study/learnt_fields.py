"""What geometry weights add to a layer's output: fields a + b x + c y + d x y over its pixels, and their energy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.patched_model import geometry_layers
from geopos_diffusers.patching.response import multilinear_grid
from geopos_diffusers.patching.taps import Axis, axis_powers

from .encoded_images import EncodedImages

TERMS = ("constant", "x", "y", "product")  # in the order of the coefficients
RELATIVE, ALL = "relative RMS", "all layers"


@dataclass(frozen=True)
class LearntField:
    """One layer's fields.

    coefficients: [filters, 4] of TERMS. y, x: coordinates of the output pixels, [H] and [W].
    output: mean square of what the convolution gives without the field, over images, filters and pixels.
    """

    coefficients: Tensor
    y: Tensor
    x: Tensor
    output: float

    def values(self) -> Tensor:
        """[filters, H, W]."""
        rows, columns = (torch.stack([torch.ones_like(axis), axis], 1) for axis in (self.y, self.x))
        return torch.einsum("fpq,hp,wq->fhw", self.coefficients.view(-1, 2, 2), rows, columns)

    def energies(self) -> Tensor:
        """[4] parts of the fields' mean square over filters and pixels; they sum up to it.

        1, x, y and xy are orthogonal over the pixels of a grid whose coordinates have the mean 0. Those of a strided
        layer have another one, so each field is first written in coordinates counted from the mean, which leaves it as
        it is. "constant" is then the square of the field's mean: all that a bias can do.
        """
        a, b, c, d = self.coefficients.unbind(1)
        x, y = self.x.mean(), self.y.mean()
        x_square, y_square = self.x.var(correction=0), self.y.var(correction=0)
        centred = torch.stack([a + b * x + c * y + d * x * y, b + d * y, c + d * x, d])
        return centred.square().mean(1) * torch.stack([torch.ones_like(x), x_square, y_square, x_square * y_square])

    def relative(self) -> float:
        """RMS of the fields by that of the convolution's own output."""
        return (self.energies().sum() / self.output).sqrt().item()


def layer_coordinates(layer: Any, given: torch.Size, gives: torch.Size) -> tuple[Tensor, Tensor]:
    """Coordinates [H] and [W] of a GeoConv2d's output pixels, vertical ones first, without shift and frame.

    Args:
        given, gives: shapes of its input and output.
    """
    like = torch.empty(0, dtype=torch.float64)
    axes = (Axis(index, given[index - 2], gives[index - 2], max(given[-2:])) for index in range(2))
    y, x = (axis_powers(layer, axis, layer.geo_config, like).coordinates[:, 1] for axis in axes)
    return y, x


def check_basis(model: nn.Module) -> None:
    """
    Raises:
        ConfigError: geometry weights that are not coefficients of 1, x, y and xy.
    """
    for name, layer in geometry_layers(model).items():
        found = (layer.geo_config.encoding, layer.geo_config.basis)
        if found != ("product", "multilinear"):
            raise ConfigError(f"{name} must have the product encoding in the multilinear basis; it has {found}")


def measure_fields(images: EncodedImages) -> dict[str, LearntField]:
    """The fields of the patched model's layers, in the order of their calls for these images at middle noise."""
    layers = geometry_layers(images.model)
    coordinates: dict[str, tuple[Tensor, Tensor]] = {}
    squares: dict[str, list[float]] = {name: [] for name in layers}

    def observe(name: str, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        coordinates[name] = layer_coordinates(layer, inputs[0].shape, output.shape)
        own = output.double() - LearntField(coefficients[name], *coordinates[name], 1.0).values()
        squares[name] += own.square().flatten(1).mean(1).tolist()

    coefficients = {
        name: multilinear_grid(layer.geo_weight.detach().double(), 2).flatten(1) for name, layer in layers.items()
    }
    handles = [
        layer.register_forward_hook(lambda *call, name=name: observe(name, *call)) for name, layer in layers.items()
    ]
    try:
        images.run_at_middle_noise()
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: LearntField(coefficients[name], *coordinates[name], sum(squares[name]) / len(squares[name]))
        for name in coordinates
    }


def energy_scores(fields: Mapping[str, LearntField]) -> dict[str, float]:
    """Shares of each layer's energy by term, and its relative RMS.

    Those of "all layers" are of the sum of the energies, each as a share of the layer's own output's.

    A field that is 0 has no shares, so they are left out.
    """
    scores: dict[str, float] = {}
    total = torch.zeros(len(TERMS), dtype=torch.float64)
    for name, field in fields.items():
        energies = field.energies()
        total += energies / field.output
        scores |= _shares(name, energies) | {f"{name} {RELATIVE}": field.relative()}
    return scores | _shares(ALL, total) | {f"{ALL} {RELATIVE}": (total.sum() / len(fields)).sqrt().item()}


def _shares(name: str, energies: Tensor) -> dict[str, float]:
    if not energies.any():
        return {}
    return {f"{name} {term}": (part / energies.sum()).item() for term, part in zip(TERMS, energies, strict=True)}
