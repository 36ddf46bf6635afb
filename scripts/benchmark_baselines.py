"""Claim C5 of the paper: parameters, and the time of a training step, of plain convolutions, CoordConv and GeoConv.

    python scripts/benchmark_baselines.py --output docs/results/paper_cost.json

The networks of the centre-of-mass and positional-bias experiments and a wider one, three ways, and CoordConv as it is
usually written, by concatenating coordinates to the input. Variants take turns, a few steps each, so that whatever else
the machine does falls on all of them; times are ratios to the plain network within a round.
"""

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from geopos_diffusers.baselines.kinds import parameter_count, set_kind
from geopos_diffusers.baselines.position_network import PositionNetwork
from geopos_diffusers.config import GeoPosConfig
from geopos_diffusers.encoding import geopos_channels
from geopos_diffusers.files import write_json
from geopos_diffusers.metrics.bootstrap import bootstrap_interval
from geopos_diffusers.training.processes import run_script

VARIANTS = ("conv", "coord", "coord-concat", "geo")
# name: widths, side of the images in pixels, images a step
NETWORKS = {
    "centre of mass": ((8, 16, 32, 32), 32, 16),
    "positional bias": ((8, 16, 32), 56, 16),
    "wide": ((64, 128, 256), 64, 16),
}


def build(variant: str, widths: tuple[int, ...], size: int) -> nn.Module:
    network = PositionNetwork(widths, 2, "average", size)
    if variant == "coord-concat":
        for name, layer in list(network.convolutions.named_children()):
            if isinstance(layer, nn.Conv2d):
                setattr(network.convolutions, name, ConcatenatingConv(layer))
        return network.train()
    return set_kind(network, variant).train()


class ConcatenatingConv(nn.Module):
    """CoordConv as in its paper (arXiv 1807.03247): x and y are appended to the input [B, C, H, W]."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(conv.in_channels + 2, conv.out_channels, 3, stride=2, padding=1)
        self.config = GeoPosConfig(encoding="cartesian")

    def forward(self, images: Tensor) -> Tensor:
        coordinates = geopos_channels(images.shape[2:], self.config, device=images.device)
        return self.conv(torch.cat([images, coordinates.expand(len(images), -1, -1, -1)], dim=1))


def training_step(network: nn.Module, size: int, batch: int) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, fused=True)
    images, targets = torch.rand(batch, 1, size, size), torch.rand(batch, 2)

    def step() -> None:
        nn.functional.mse_loss(network(images), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(widths: tuple[int, ...], size: int, batch: int, rounds: int, steps: int, label: str) -> dict:
    """Parameters, seconds a step and their ratio to the plain network by variant; CPU time, so that waiting is out."""
    networks = {variant: build(variant, widths, size) for variant in VARIANTS}
    run = {variant: training_step(network, size, batch) for variant, network in networks.items()}
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    order = random.Random(0)
    for number in tqdm(range(rounds + 1), desc=label):
        for variant in order.sample(VARIANTS, len(VARIANTS)):
            began = time.process_time()
            for _ in range(steps):
                run[variant]()
            if number:  # the first round warms up
                times[variant].append((time.process_time() - began) / steps)
    results = {}
    for variant in VARIANTS:
        ratios = np.array(times[variant]) / np.array(times["conv"])
        interval = bootstrap_interval(np.median, ratios, seed=0)
        results[variant] = {
            "parameters": parameter_count(networks[variant]),
            "seconds": statistics.median(times[variant]),
            "ratio": interval.value,
            "low": interval.low,
            "high": interval.high,
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10, help="steps of a variant in a round")
    args = parser.parse_args()
    torch.manual_seed(0)
    began = time.process_time()
    networks = []
    for name, (widths, size, batch) in NETWORKS.items():
        variants = measure(widths, size, batch, args.rounds, args.steps, name)
        networks.append({"name": name, "widths": list(widths), "size": size, "batch": batch, "variants": variants})
        for variant, values in variants.items():
            print(
                f"{name}: {variant} {values['parameters']:,} parameters, {1e3 * values['seconds']:.2f} ms, "
                f"{values['ratio']:.3f} [{values['low']:.3f}, {values['high']:.3f}]"
            )
    write_json(
        args.output,
        {
            "format_version": 1,
            "experiment": "cost",
            "command": f"python scripts/benchmark_baselines.py --output {args.output} "
            f"--rounds {args.rounds} --steps {args.steps}",
            "date": date.today().isoformat(),
            "machine": {
                "threads": torch.get_num_threads(),
                "processor": platform.machine(),
                "torch": torch.__version__,
                "device": "cpu",
            },
            "cpu_seconds": round(time.process_time() - began, 1),
            "networks": networks,
        },
    )


if __name__ == "__main__":
    run_script(main)
