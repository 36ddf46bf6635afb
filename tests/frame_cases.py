"""Layers with a geometry term in every encoding, and frames to count their coordinates in."""

import pytest
import torch
from torch import nn

from geopos_diffusers import GeoPosConfig

ENCODINGS = [
    {"encoding": "product", "basis": "multilinear"},
    {"encoding": "cartesian", "basis": "multilinear"},
    *({"encoding": name} for name in ("product", "squares", "sum", "cartesian", "cartesian_radius")),
    {"encoding": "product", "border": "extrapolate"},
]
in_every_encoding = pytest.mark.parametrize("options", ENCODINGS, ids=lambda options: "-".join(options.values()))


def layer(cls, options: dict, **layout) -> nn.Module:
    torch.manual_seed(0)
    layout = {"kernel_size": 3, "padding": 1} | layout
    config = GeoPosConfig(shift_unit="sample", **options)
    return cls(4, 6, **layout, config=config).double().eval().requires_grad_(False)


def draw_frames(samples: int, axes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    centre, half = torch.rand(2, samples, axes, generator=generator, dtype=torch.float64)
    return torch.stack([2 * centre - 1, 0.2 + half], 1)
