"""A training from its last checkpoint to its end: the loop that scripts share, continued exactly after a stop."""

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from ..files import write_json
from ..folder_lock import locked_folder
from .checkpoints import TrainingState, list_checkpoints, load_checkpoint, remove_unfinished, save_checkpoint
from .data_order import DataOrder
from .loss_log import LossLog, draw_loss_curve, read_losses


@dataclass
class Stage:
    """One training: `loss` (its forward returns scalars by name, "loss" among them), and how to feed and watch it.

    learning_rate(step): the rate of an optimizer step, counted from 0.
    draw_batch(indices, step, generator): the whole batch of a step, by argument name of `loss`, on the CPU.
    validate(folder, step): scalars to log; draws samples into `folder`. Called with the averaged weights in place.
    save_parts(folder): writes the trained models.
    short: one of many trainings of seconds each. No progress bar, printed line or curve of its own, and one fused call
        of the optimizer for all parameters, which matters where a step takes milliseconds.
    """

    name: str
    number: int
    loss: nn.Module
    steps: int
    batch_size: int
    learning_rate: Callable[[int], float]
    draw_batch: Callable[[list[int], int, torch.Generator], dict[str, Tensor]]
    validate: Callable[[Path, int], dict[str, float]]
    save_parts: Callable[[Path], None]
    short: bool = False


class LoopOptions(Protocol):
    """What `train_stage` reads of a script's arguments.

    The run's folder and seed; steps between checkpoints and between validations; the step to stop at, or None; AdamW's
    weight decay; the decay of the moving average of the weights, or None for none; and the norm that gradients are
    clipped to.
    """

    output_dir: str
    seed: int
    checkpoint_every: int
    sample_every: int
    stop_at_step: int | None
    weight_decay: float
    ema_decay: float | None
    max_grad_norm: float


def step_generator(seed: int, stage: int, step: int) -> torch.Generator:
    """All random numbers of a step come from here, on the CPU: the same on any device and after any resume."""
    return torch.Generator().manual_seed((seed * 1_000_003 + stage) * 1_000_003 + step)


def train_stage(
    stage: Stage, options: LoopOptions, accelerator: Accelerator, train_count: int, settings: dict[str, Any]
) -> dict:
    """Run a stage from its last checkpoint to its end and leave the averaged weights in its models.

    Args:
        train_count: number of samples, which are seen in the order of `DataOrder`.
        settings: what a checkpoint is only continued under, JSON-ready.

    Returns:
        The stage's summary: steps, whether it is finished, seconds, last validation values.

    Raises:
        ConfigError: another run is at work in the stage's folder.
    """
    folder = Path(options.output_dir) / stage.name
    with locked_folder(folder) if accelerator.is_main_process else nullcontext():
        return _train_in(folder, stage, options, accelerator, train_count, settings)


def _train_in(
    folder: Path,
    stage: Stage,
    options: LoopOptions,
    accelerator: Accelerator,
    train_count: int,
    settings: dict[str, Any],
) -> dict:
    parameters = {name: value for name, value in stage.loss.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(),
        stage.learning_rate(0),
        betas=(0.9, 0.99),
        weight_decay=options.weight_decay,
        fused=stage.short or None,
    )
    loss_module, optimizer = accelerator.prepare(stage.loss, optimizer)
    ema = EMAModel(parameters.values(), decay=options.ema_decay, foreach=True) if options.ema_decay else None
    state = TrainingState(accelerator, parameters, optimizer, ema, settings)

    if accelerator.is_main_process:
        remove_unfinished(folder)
    checkpoints = list_checkpoints(folder)
    start = load_checkpoint(state, checkpoints[-1]) if checkpoints else 0
    lines = read_losses(folder / "losses.jsonl")
    seconds = next((line["seconds"] for line in reversed(lines) if line["step"] == start), 0.0)
    log = LossLog(folder, start) if accelerator.is_main_process else None
    stop = stage.steps if options.stop_at_step is None else max(start, min(stage.steps, options.stop_at_step))
    began, scores = time.perf_counter() - seconds, {}

    order = iter(DataOrder(train_count, start * stage.batch_size, stop * stage.batch_size, options.seed))
    hidden = stage.short or not accelerator.is_main_process
    progress = tqdm(range(start, stop), initial=start, total=stage.steps, desc=stage.name, disable=hidden)
    for step in progress:
        rate = stage.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = step_generator(options.seed, stage.number, step)
        batch = stage.draw_batch(list(islice(order, stage.batch_size)), step, generator)
        share = slice(accelerator.process_index, None, accelerator.num_processes)
        with accelerator.autocast():
            losses = loss_module(**{name: value[share].to(accelerator.device) for name, value in batch.items()})
        if stage.short and accelerator.scaler is None:
            losses["loss"].backward()  # accelerate's looks on the disk for an optional package, every time
        else:
            accelerator.backward(losses["loss"])
        grad_norm = accelerator.clip_grad_norm_(parameters.values(), options.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.step(parameters.values())

        values = {name: accelerator.reduce(value.detach(), "mean").item() for name, value in losses.items()}
        values |= {"learning_rate": rate, "grad_norm": float(grad_norm)}
        accelerator.log({f"{stage.name}/{name}": value for name, value in values.items()}, step=step + 1)
        if log is not None:
            log.append(step=step + 1, seconds=round(time.perf_counter() - began, 2), **values)
        progress.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        last = step + 1 == stop
        if accelerator.is_main_process and (last or (step + 1) % options.sample_every == 0):
            with state.averaged():
                scores = stage.validate(folder, step + 1)
            accelerator.log({f"{stage.name}/{name}": value for name, value in scores.items()}, step=step + 1)
            if not stage.short:
                tqdm.write(f"{stage.name} step {step + 1}: " + ", ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        if last or (step + 1) % options.checkpoint_every == 0:
            save_checkpoint(state, step + 1, folder, stage.save_parts, limit=1)

    if accelerator.is_main_process and not stage.short and (losses := read_losses(folder / "losses.jsonl")):
        draw_loss_curve(losses, folder / "losses.png")
    if ema is not None:
        ema.copy_to(parameters.values())
    accelerator.free_memory()
    if start == stop and (folder / "summary.json").is_file():
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    seconds = round(time.perf_counter() - began, 1)
    summary = {"steps": stop, "finished": stop == stage.steps, "seconds": seconds, **scores}
    if accelerator.is_main_process:
        write_json(folder / "summary.json", summary)
    return summary
