"""Claim C5 of the paper: parameters, and the time of a training step, of plain convolutions, CoordConv and GeoConv.

    python -m scripts.experiments.cost.run --results docs/results/paper_cost.json

The networks of the paper's experiments at their own sizes and a wider one, three ways, and CoordConv as it is usually
written, by concatenating coordinates to the input. Variants take turns, a few steps each, so that whatever else the
machine does falls on all of them; times are ratios to the plain network within a round.
"""

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from geopos_diffusers.command_line import Parser
from geopos_diffusers.metrics.bootstrap import Interval, bootstrap_interval
from geopos_diffusers.patching.config import GeoPosConfig
from geopos_diffusers.patching.targets import CONVOLUTIONS
from geopos_diffusers.training.processes import run_script

from ..arms_page import estimate_cell
from ..baselines.concatenation import ConcatenatingConv
from ..baselines.kinds import parameter_count, set_kind
from ..baselines.position_network import PositionNetwork
from ..depth.loss import scale_invariant_log_loss
from ..depth.network import DepthNetwork
from ..gan.network import build_discriminator, build_generator, stage_widths
from ..gan.training import GanRun, train_step
from ..results import write_results
from ..vae.network import Vae, negative_elbo
from .section import CONCATENATED, COORD, GEO

NAMES = {"conv": "convolution", "coord": COORD, "geo": GEO, "coord-concat": CONCATENATED}  # in results
VARIANTS = ("conv", "coord", "coord-concat", "geo")
Step = Callable[[], object]
OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3, fused=True)


@dataclass(frozen=True)
class Setting:
    """What is measured: the network of an experiment, its images and its training step.

    build(widths, size): plain networks. make_step(networks, size, batch): a training step of theirs.
    """

    widths: tuple[int, ...]
    size: int
    batch: int
    build: Callable[[tuple[int, ...], int], list[nn.Module]]
    make_step: Callable[[list[nn.Module], int, int], Step]


def set_variant(network: nn.Module, variant: str) -> nn.Module:
    if variant != "coord-concat":
        return set_kind(network, variant).train()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, CONVOLUTIONS):
            network.set_submodule(name, ConcatenatingConv(layer, GeoPosConfig(encoding="cartesian", shift_range=0)))
    return network.train()


def build_position_network(widths: tuple[int, ...], size: int) -> list[nn.Module]:
    return [PositionNetwork(widths, 2, "average", size)]


def position_step(networks: list[nn.Module], size: int, batch: int) -> Step:
    images, targets = torch.rand(batch, 1, size, size), torch.rand(batch, 2)
    return loss_step(networks[0], lambda network: nn.functional.mse_loss(network(images), targets))


def build_vae(widths: tuple[int, ...], size: int) -> list[nn.Module]:
    return [Vae(widths, 64, size)]


def vae_step(networks: list[nn.Module], size: int, batch: int) -> Step:
    images = torch.rand(batch, 3, size, size)
    return loss_step(networks[0], lambda network: negative_elbo(network(images), images, 0.02)["loss"])


def build_depth_network(widths: tuple[int, ...], size: int) -> list[nn.Module]:
    return [DepthNetwork(widths)]


def depth_step(networks: list[nn.Module], size: int, batch: int) -> Step:
    images, depth = torch.rand(batch, 3, size, size), torch.rand(batch, 1, size, size) + 1
    return loss_step(networks[0], lambda network: scale_invariant_log_loss(network(images), depth))


def loss_step(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Step:
    optimizer = OPTIMIZER(network.parameters())

    def step() -> None:
        loss(network).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def build_gan(widths: tuple[int, ...], size: int) -> list[nn.Module]:
    networks = [build(widths, 64) for build in (build_generator, build_discriminator)]
    return [network.to(memory_format=torch.channels_last) for network in networks]  # as they are trained


def gan_step(networks: list[nn.Module], size: int, batch: int) -> Step:
    optimizers = tuple(OPTIMIZER(network.parameters()) for network in networks)
    run = GanRun(None, Accelerator(cpu=True), "conv", 0, Path(), *networks, optimizers)
    images, latents = torch.rand(batch, 3, size, size), torch.randn(batch, 64)
    return lambda: train_step(run, images, latents)


SETTINGS = {
    "centre of mass": Setting((8, 16, 32, 32), 32, 16, build_position_network, position_step),
    "positional bias": Setting((8, 16, 32), 56, 16, build_position_network, position_step),
    "VAE": Setting((16, 32, 64, 128), 64, 16, build_vae, vae_step),
    "GAN": Setting(stage_widths(32, 16), 32, 64, build_gan, gan_step),
    "depth": Setting((8, 16, 32, 64, 64), 64, 16, build_depth_network, depth_step),
    "wide": Setting((64, 128, 256), 64, 16, build_position_network, position_step),
}


def measure(setting: Setting, rounds: int, steps: int, label: str) -> dict:
    """Parameters, seconds a step and their ratio to the plain network by variant; CPU time, so that waiting is out."""
    networks, run = {}, {}
    for variant in VARIANTS:
        plain = setting.build(setting.widths, setting.size)
        networks[variant] = [set_variant(network, variant) for network in plain]
        run[variant] = setting.make_step(networks[variant], setting.size, setting.batch)
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
            "parameters": sum(parameter_count(network) for network in networks[variant]),
            "seconds": statistics.median(times[variant]),
            "ratio": interval.value,
            "low": interval.low,
            "high": interval.high,
        }
    return results


def kernel_taps(networks: list[nn.Module]) -> int:
    """Weights a coordinate channel: the taps of a kernel, summed over all filters of plain networks."""
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, CONVOLUTIONS)]
    return sum(layer.out_channels * math.prod(layer.kernel_size) for layer in layers)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, aliases=["--output"], help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10, help="steps of a variant in a round")
    parser.add_argument("--networks", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), help="what to measure")
    args = parser.parse_args()
    torch.manual_seed(0)
    began = time.process_time()
    networks, runs = [], []
    for name, setting in SETTINGS.items():
        if name not in args.networks:
            continue
        variants = measure(setting, args.rounds, args.steps, name)
        widths, size, batch = list(setting.widths), setting.size, setting.batch
        taps = kernel_taps(setting.build(setting.widths, setting.size))
        networks.append({"name": name, "widths": widths, "size": size, "batch": batch, "kernel_taps": taps})
        runs += [{"variant": NAMES[variant], "network": name, **values} for variant, values in variants.items()]
        for variant, values in variants.items():
            print(
                f"{name}: {variant} {values['parameters']:,} parameters, {1e3 * values['seconds']:.2f} ms, "
                f"{estimate_cell(Interval(values['ratio'], values['low'], values['high']))}"
            )
    settings = {"rounds": args.rounds, "steps": args.steps}
    seconds = round(time.process_time() - began, 1)
    write_results(args.results, "cost", runs, settings, cpu_seconds=seconds, networks=networks)


if __name__ == "__main__":
    run_script(main)
