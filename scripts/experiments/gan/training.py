"""One run of the GAN experiment, from its last checkpoint to its end."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from geopos_diffusers.files import atomic_path, write_json
from geopos_diffusers.training.checkpoints import TrainingState
from geopos_diffusers.training.data_order import DataOrder
from geopos_diffusers.training.gradient_step import backward
from geopos_diffusers.training.loop import Training, train, training_folder
from geopos_diffusers.training.resuming import discard_run, resume_point
from geopos_diffusers.training.stage import step_generator

from ..baselines.kinds import parameter_count
from .arguments import GanArguments
from .loss import discriminator_loss, generator_loss
from .network import VARIANTS, build_dcgan

SHEET = 16  # samples in the grid that each evaluation writes, four in a row
EVALUATION_BATCH = 250
LATENT_SEED = 20240103  # of the fixed latents: the same ones in every run
# Scores of samples [N, 3, S, S] on the CPU at an epoch, by name.
Scores = Callable[[Tensor, int], dict[str, float]]


@dataclass
class GanRun:
    """What one run trains and where it writes."""

    args: GanArguments
    accelerator: Accelerator
    variant: str
    seed: int
    folder: Path
    generator: nn.Module
    discriminator: nn.Module
    optimizers: tuple[Any, Any]  # of the generator, of the discriminator

    def state(self) -> TrainingState:
        """What checkpoints hold: both networks with their running means, both optimizers."""
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        parameters = {f"{part}.{name}": value for part in parts for name, value in parts[part].named_parameters()}
        buffers = {f"{part}.{name}": value for part in parts for name, value in parts[part].named_buffers()}
        settings = {**self.args.settings(), "variant": self.variant, "seed": self.seed}
        return TrainingState(self.accelerator, parameters, self.optimizers, None, settings, buffers)


def run_folder(output_dir: str, variant: str, seed: int) -> Path:
    return Path(output_dir) / f"{variant}-seed{seed}"


def epoch_end(epoch: int, images: int, batch_size: int) -> int:
    """The step at which `epoch` passes over the images are over; batches run across the ends of epochs."""
    return epoch * images // batch_size


def build_run(args: GanArguments, accelerator: Accelerator, variant: str, seed: int) -> GanRun:
    set_seed(seed)  # of the shifts, which are drawn from torch's global generator
    networks = build_dcgan(variant, args.size, args.width, args.latent_size, args.geometry(), seed)
    # A sixth faster on a CPU with this order of the axes in memory.
    generator, discriminator = (
        network.to(accelerator.device, memory_format=torch.channels_last) for network in networks
    )
    # Gradients are averaged over processes by `step_network`, so only the optimizers are prepared: torch's wrapper for
    # several processes does not allow for a network that runs twice before its gradients.
    optimizers = accelerator.prepare(
        *(torch.optim.Adam(network.parameters(), args.learning_rate, (args.beta1, 0.999)) for network in networks)
    )
    folder = run_folder(args.output_dir, variant, seed)
    return GanRun(args, accelerator, variant, seed, folder, generator, discriminator, tuple(optimizers))


def train_gan(
    args: GanArguments, accelerator: Accelerator, variant: str, seed: int, images: Tensor, scores: Scores
) -> dict[str, Any]:
    """Train a variant from its last checkpoint on and write its log, sample grids and checkpoints into its folder.

    Args:
        images: all training images [N, 3, S, S] in [-1, 1], on the CPU.
        scores: called on the main process alone.

    Returns:
        The run's summary: variant, seed, epochs, finished, seconds, parameters.

    Raises:
        ConfigError: another run is at work in its folder.
        DivergedError: a loss is infinite or not a number.
    """
    if args.overwrite:
        if accelerator.is_main_process:
            discard_run(run_folder(args.output_dir, variant, seed))
        accelerator.wait_for_everyone()
    run = build_run(args, accelerator, variant, seed)

    def train_and_score(index: int) -> dict[str, float]:
        epoch = index + 1
        values = train_epoch(run, epoch, images)
        if accelerator.is_main_process and (epoch % args.evaluate_every == 0 or epoch == args.epochs):
            values |= evaluate(run, epoch, scores)
        return values | {"epoch": epoch}

    training = Training(
        name=f"{variant} seed {seed}",
        folder=run.folder,
        state=run.state(),
        steps=args.epochs,
        step=train_and_score,
        save_parts=lambda folder: save_generator(run, folder),
        checkpoint_every=args.checkpoint_every,
        checkpoints_limit=1,
        log_every=1,
        stop_at=args.stop_at_epoch,
        unit="epoch",
        logged_step=lambda epoch: epoch_end(epoch, len(images), args.batch_size),
        clocks={"seconds": time.perf_counter, "cpu_seconds": time.process_time},
        tracker_prefix=f"{run.folder.name}/",
    )
    with training_folder(run.folder, accelerator):
        outcome = train(training, resume_point(run.folder))
        summary = {"variant": variant, "seed": seed, "epochs": outcome.step, "finished": outcome.step >= args.epochs}
        summary["parameters"] = {name: parameter_count(getattr(run, name)) for name in ("generator", "discriminator")}
        summary |= outcome.times
        if accelerator.is_main_process:
            write_json(run.folder / "summary.json", summary)
    accelerator.free_memory()
    return summary


def train_epoch(run: GanRun, epoch: int, images: Tensor) -> dict[str, float]:
    """Train for one pass over the images. Returns the mean losses of its steps."""
    args, accelerator = run.args, run.accelerator
    first, last = (epoch_end(number, len(images), args.batch_size) for number in (epoch - 1, epoch))
    order = iter(DataOrder(len(images), first * args.batch_size, last * args.batch_size, run.seed))
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    sums = {"discriminator_loss": torch.zeros((), device=accelerator.device)}
    sums["generator_loss"] = sums["discriminator_loss"].clone()
    run.generator.train()
    run.discriminator.train()
    for step in range(first, last):
        latents = torch.randn(args.batch_size, args.latent_size, generator=step_generator(run.seed, 0, step))[share]
        real = images[list(islice(order, args.batch_size))][share]
        losses = train_step(run, real.to(accelerator.device), latents.to(accelerator.device))
        for name, value in losses.items():
            sums[f"{name}_loss"] += value
    return {name: accelerator.reduce(value, "mean").item() / (last - first) for name, value in sums.items()}


def train_step(run: GanRun, real: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """One step of the discriminator, then one of the generator against it, on the same samples."""
    fake = run.generator(latents)
    # Two passes: real and generated images are normalised by their own statistics, as in DCGAN.
    losses = {"discriminator": discriminator_loss(run.discriminator(real), run.discriminator(fake.detach()))}
    step_network(run.accelerator, run.discriminator, run.optimizers[1], losses["discriminator"])
    run.discriminator.requires_grad_(False)  # its weights' gradients would be thrown away
    losses["generator"] = generator_loss(run.discriminator(fake))
    step_network(run.accelerator, run.generator, run.optimizers[0], losses["generator"])
    run.discriminator.requires_grad_(True)
    return {name: value.detach() for name, value in losses.items()}


def step_network(accelerator: Accelerator, network: nn.Module, optimizer: Any, loss: Tensor) -> None:
    backward(accelerator, loss)
    if accelerator.num_processes > 1:
        for parameter in network.parameters():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")
    optimizer.step()
    optimizer.zero_grad()


def evaluate(run: GanRun, epoch: int, scores: Scores) -> dict[str, float]:
    """Scores of samples of the fixed latents, whose first ones are written as a grid.

    At the end of a run that trained with random shifts, also those of samples drawn with shifts, as "shifted_...".
    """
    samples = draw_samples(run)
    write_sheet(samples[:SHEET], run.folder / f"samples-{epoch:05d}.png")
    values = scores(samples, epoch)
    variant = VARIANTS[run.variant]
    if epoch == run.args.epochs and variant.kind == "geo" and variant.shift:
        shifted = scores(draw_samples(run, shifted=True), epoch)
        values |= {f"shifted_{name}": value for name, value in shifted.items()}
    return values


@torch.no_grad()
def draw_samples(run: GanRun, shifted: bool = False) -> Tensor:
    """Images [N, 3, S, S] of the fixed latents on the CPU, normalised by the running means.

    Args:
        shifted: GeoConvs draw their random shifts, one a batch, as in training. torch's random state stays as it was.
    """
    latents = torch.randn(
        run.args.samples, run.args.latent_size, generator=torch.Generator().manual_seed(LATENT_SEED)
    ).to(run.accelerator.device)
    run.generator.eval()
    if not shifted:
        return torch.cat([run.generator(part).cpu() for part in latents.split(EVALUATION_BATCH)])
    for layer in run.generator:
        layer.train(getattr(layer, "geo_weight", None) is not None)
    device = run.accelerator.device
    with torch.random.fork_rng([] if device.type == "cpu" else [device]):
        torch.manual_seed(LATENT_SEED)
        # A patched model draws shifts only in calls that record gradients, or whose input asks for them.
        parts = [part.requires_grad_() for part in latents.split(run.args.batch_size)]
        return torch.cat([run.generator(part).cpu() for part in parts])


def write_sheet(samples: Tensor, target: Path, columns: int = 4) -> None:
    """A PNG of samples [N, 3, S, S] in [-1, 1], `columns` in a row without gaps."""
    rows = [torch.cat(list(part), dim=2) for part in samples.split(columns) if len(part) == columns]
    pixels = ((torch.cat(rows, dim=1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    with atomic_path(target) as temporary:
        Image.fromarray(pixels.numpy()).save(temporary, format="PNG")


def save_generator(run: GanRun, folder: Path) -> None:
    values = {name: value.contiguous() for name, value in run.generator.state_dict().items()}
    save_file(values, folder / "generator.safetensors")
