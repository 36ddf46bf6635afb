"""A training whose data and noise are functions of the seed and the step: a loss module with AdamW, data in memory."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from ..files import write_json
from .checkpoints import TrainingState
from .data_order import DataOrder
from .gradient_step import GradientStep
from .loop import Training, Validation, train, training_folder
from .resuming import resume_point


@dataclass
class Stage:
    """One training: `loss` (its forward returns scalars by name, "loss" among them), and how to feed and watch it.

    learning_rate(step): the rate of an optimizer step, counted from 0.
    draw_batch(indices, step, generator): the whole batch of a step, by argument name of `loss`, on the CPU.
    validate(folder, step): scalars to log; draws samples into `folder`. Called with the averaged weights in place.
    save_parts(folder): writes the trained models.
    short: one of many trainings of seconds each. No progress bar, printed line or curve of its own, and one fused call
        of the optimizer for all parameters, which matters where a step takes milliseconds.
    buffers: what else the forward pass changes; see `TrainingState`.
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
    buffers: dict[str, Tensor] = field(default_factory=dict)


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
) -> dict[str, Any]:
    """Run a stage from its last checkpoint to its end and leave the averaged weights in its models.

    Args:
        train_count: number of samples, which are seen in the order of `DataOrder`.
        settings: what a checkpoint is only continued under, JSON-ready.

    Returns:
        The stage's summary: steps, whether it is finished, seconds, last validation values.

    Raises:
        ConfigError: another run is at work in the stage's folder.
        DivergedError: a loss is infinite or not a number.
    """
    folder = Path(options.output_dir) / stage.name
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
    state = TrainingState(accelerator, parameters, optimizer, ema, settings, stage.buffers)
    share = slice(accelerator.process_index, None, accelerator.num_processes)

    def batches(first: int) -> Iterator[dict[str, Tensor]]:
        order = iter(DataOrder(train_count, first * stage.batch_size, stage.steps * stage.batch_size, options.seed))
        for step in range(first, stage.steps):
            generator = step_generator(options.seed, stage.number, step)
            batch = stage.draw_batch(list(islice(order, stage.batch_size)), step, generator)
            yield {name: value[share].to(accelerator.device) for name, value in batch.items()}

    def losses(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        with accelerator.autocast():
            return loss_module(**batch)

    training = Training(
        name=stage.name,
        folder=folder,
        state=state,
        steps=stage.steps,
        step=GradientStep(
            state, loss_module, losses, batches, lambda _, step: stage.learning_rate(step), options.max_grad_norm
        ),
        save_parts=stage.save_parts,
        checkpoint_every=options.checkpoint_every,
        checkpoints_limit=1,
        validations=[Validation(lambda step: stage.validate(folder, step), options.sample_every)],
        stop_at=options.stop_at_step,
        quiet=stage.short,
        clocks={"seconds": time.perf_counter},
        tracker_prefix=f"{stage.name}/",
    )
    with training_folder(folder, accelerator):
        outcome = train(training, resume_point(folder))
        if ema is not None:
            ema.copy_to(parameters.values())
        accelerator.free_memory()
        if outcome.first_step == outcome.step and (folder / "summary.json").is_file():
            return json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        summary: dict[str, Any] = {"steps": outcome.step, "finished": outcome.step == stage.steps}
        summary |= {"seconds": round(outcome.times["seconds"], 1), **outcome.scores}
        if accelerator.is_main_process:
            write_json(folder / "summary.json", summary)
        return summary
