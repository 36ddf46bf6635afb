"""The run that all fine-tuning scripts share, from the command line to final/ and summary.json.

Its folder holds losses.jsonl, losses.png, logs/ of the trackers, checkpoint-*/ to continue from, final/ to load and
summary.json, beside what the task draws.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel

from ..files import atomic_directory, write_json
from ..optional_packages import require_package
from ..training.arguments import fixed_settings, parse_arguments
from ..training.checkpoints import TrainingState, check_settings, clear_output, saved_step
from ..training.loop import Outcome, Training, training_folder
from ..training.loop import train as run_training
from ..training.loss_log import read_losses
from ..training.optimizers import check_installed
from ..training.processes import end_run
from ..training.resuming import resume_point
from ..training.sharding import sharding_plugin
from ..training.tracking import build_accelerator, start_trackers
from .hub_upload import HubUpload, complete_card
from .loading import build_batches, order_settings
from .step_memory import describe_step_memory
from .task import Task

FINAL_LOSS_STEPS = 100


@dataclass
class Run:
    """A task that is ready to be trained.

    steps: optimizer steps in all. samples_per_step: images that all processes together use in one optimizer step.
    """

    task: Task
    state: TrainingState
    steps: int
    samples_per_step: int

    def facts(self) -> dict[str, Any]:
        """What the terminal, the model card and summary.json say about the run."""
        task, args, accelerator = self.task, self.task.args, self.task.accelerator
        count = None if args.streaming else len(task.data)
        return {
            "pipeline": type(task.pipe).__name__,
            "model": args.model,
            "train": args.train,
            "trained_parameters": sum(parameter.numel() for parameter in task.parameters.values()),
            f"{task.component}_parameters": task.base_parameters,
            "dataset": ", ".join(args.dataset),
            "images": count,
            **({} if task.held_out is None else {"validation_images": len(task.held_out)}),
            "skipped_images": task.data.skipped,
            "resolution": self.state.settings["resolution"],
            **task.facts(),
            **({} if task.frames is None else {"default_frame": list(task.frames.default)}),
            "steps": self.steps,
            "samples_per_step": self.samples_per_step,
            "epochs": count and round(self.steps * self.samples_per_step / count, 2),
            "learning_rate": {part: args.peak_learning_rate(part) for part in args.rated_parts},
            "seed": args.seed,
            "processes": accelerator.num_processes,
            "device": accelerator.device.type,
            "mixed_precision": accelerator.mixed_precision,
        }

    def save(self, folder: Path) -> None:
        self.task.save(folder, self.facts())


def finetune(task_class: type[Task], argv: Sequence[str] | None = None) -> None:
    """Parse the options of `task_class` and run it, within the lock on its folder."""
    args: Any = parse_arguments(task_class.ARGUMENTS, argv)
    accelerator = build_accelerator(
        args.output_dir, args.mixed_precision, args.gradient_accumulation_steps, args.report_to
    )
    logging.basicConfig(level=logging.WARNING if accelerator.is_main_process else logging.ERROR)
    writes = accelerator.is_main_process and not args.dry_run
    with training_folder(args.output_dir, accelerator) if writes else nullcontext():
        run_task(task_class(args, accelerator))


def run_task(task: Task) -> None:
    """The whole run."""
    args, accelerator = task.args, task.accelerator
    checkpoint = resume_point(args.output_dir, args.resume_from_checkpoint, args.overwrite)
    check_packages(task)
    if checkpoint is not None:
        check_settings(checkpoint, known_settings(args, accelerator))
    upload = None
    if args.push_to_hub and accelerator.is_main_process and not args.dry_run:
        upload = HubUpload(args.output_dir, args.hub_model_id, args.hub_private)
    task.prepare_evaluations(continued=checkpoint is not None)
    run = build_run(task)
    if checkpoint is not None:
        check_settings(checkpoint, run.state.settings)
    if accelerator.is_main_process:
        for name, value in run.facts().items():
            print(f"{name:20} {value}")
    if args.dry_run:
        memory = describe_step_memory(task, run.state, build_loader(run, 0))
        if accelerator.is_main_process:
            print(f"{'memory of a step':20} {memory}")
        return
    if checkpoint is None and accelerator.is_main_process:
        clear_output(args.output_dir)
    train(run, checkpoint, upload)


def check_packages(task: Task) -> None:
    """Raise MissingDependencyError if an option needs a package that is not installed."""
    check_installed(task.args.optimizer)
    if "lora" in task.args.parts:
        require_package("peft", "train", "train=lora")
    if task.args.streaming or not all(Path(dataset).is_dir() for dataset in task.args.dataset):
        require_package("datasets", "train", "a Parquet file or data set of the Hub")
    task.check_packages()


def build_run(task: Task) -> Run:
    """Load the pipeline and the data, patch, freeze, and prepare what is trained."""
    args, accelerator = task.args, task.accelerator
    set_seed(args.seed)
    task.build()
    task.data = task.load_data()
    task.hold_out()
    task.prepare_frames()
    samples = samples_per_step(args, accelerator)
    steps = args.max_train_steps or math.ceil((args.num_train_epochs or 0) * len(task.data) / samples)
    settings = {
        **known_settings(args, accelerator),
        "resolution": task.data.resolution,
        "data": task.data.fingerprint(),
        **order_settings(task.data, args, accelerator),
        "lr_schedule_steps": args.schedule_steps(steps),
        **task.settings(),
    }
    parameters, optimizer = task.prepare()
    ema = EMAModel(parameters.values(), decay=args.ema_decay) if args.use_ema else None
    counters = {} if task.best is None else task.best.counters
    sharded = None if sharding_plugin(accelerator) is None else task.model
    state = TrainingState(accelerator, parameters, optimizer, ema, settings, counters=counters, model=sharded)
    return Run(task, state, steps, samples)


def samples_per_step(args: Any, accelerator: Accelerator) -> int:
    """Images that all processes together use in one optimizer step."""
    return args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes


def known_settings(args: Any, accelerator: Accelerator) -> dict[str, Any]:
    """What a continued run must share with its beginning, as far as it is known before anything is loaded."""
    settings = {
        **fixed_settings(args),
        "samples_per_step": samples_per_step(args, accelerator),
        "mixed_precision": accelerator.mixed_precision,
        "training_rates": {part: args.peak_learning_rate(part) for part in args.rated_parts},
        "lr_schedule_steps": args.schedule_steps(args.max_train_steps),
    }
    if args.resolution is None:  # the model's
        del settings["resolution"]
    if settings["lr_schedule_steps"] is None and args.lr_scheduler != "constant":  # depends on the number of images
        del settings["lr_schedule_steps"]
    return settings


def train(run: Run, checkpoint: Path | None, upload: HubUpload | None) -> None:
    """Train from `checkpoint`, or from the beginning, to the end, and write final/ and summary.json."""
    task, args, accelerator = run.task, run.task.args, run.task.accelerator
    task.prepare_data()
    # From here on every process draws noise, timesteps and shifts of its own.
    set_seed(args.seed, device_specific=True)
    first_step = saved_step(checkpoint) if checkpoint else 0
    start_trackers(accelerator, "finetune", asdict(args), first_step)
    validations = task.validations(run.save)
    if task.frames is not None:
        validations = [replace(one, run=partial(task.frames.unset, one.run)) for one in validations]
    training = Training(
        name="fine-tuning",
        folder=Path(args.output_dir),
        state=run.state,
        steps=run.steps,
        step=task.step(
            run.state,
            batches=partial(build_loader, run),
            learning_rate=partial(learning_rate, run),
            max_grad_norm=args.max_grad_norm,
        ),
        save_parts=run.save,
        checkpoint_every=args.checkpointing_steps,
        checkpoints_limit=args.checkpoints_total_limit,
        validations=validations,
        log_every=args.log_every,
        stopping=task.should_stop,
    )
    if accelerator.is_main_process:
        task.begin(first_step)
    outcome = run_training(training, checkpoint)
    del training  # with its hold on the wrapped model; see end_run
    finish(run, outcome, upload)


def learning_rate(run: Run, group: dict[str, Any], step: int) -> float:
    return group["peak"] * run.task.args.learning_rate_factor(step, run.steps)


def build_loader(run: Run, first_step: int) -> Iterable[Any]:
    task = run.task
    batches = build_batches(task.data, task.args, task.accelerator, first_step, run.steps)
    for number, (name, data) in enumerate(task.companions().items(), 1):
        args = copy(task.args)
        args.seed += number  # an order of their own
        batches = joined(batches, name, build_batches(data, args, task.accelerator, first_step, run.steps))
    return batches


def joined(batches: Iterable[Any], name: str, others: Iterable[Any]) -> Iterator[Any]:
    """Each batch with one of `others` under a name."""
    for batch, other in zip(batches, others, strict=False):
        yield {**batch, name: other}


def finish(run: Run, outcome: Outcome, upload: HubUpload | None) -> None:
    """Write final/ and summary.json, and upload the one."""
    task, folder = run.task, Path(run.task.args.output_dir)
    writes = task.accelerator.is_main_process
    with run.state.averaged():
        found = task.finish() if writes else {}
        with atomic_directory(folder / "final") if writes else nullcontext() as final:
            if final is not None:
                run.save(final)
                if upload is not None:
                    complete_card(final, folder, run.facts(), None if task.best is None else task.best.best)
    if writes:
        last = [line["loss"] for line in read_losses(folder / "losses.jsonl")[-FINAL_LOSS_STEPS:]]
        summary = {
            **run.facts(),
            "steps": outcome.step,
            "first_step": outcome.first_step,
            "seconds": round(outcome.seconds, 3),
            "final_loss_mean": sum(last) / len(last) if last else None,
            "final_loss_steps": len(last),
            "settings": asdict(task.args),
            **found,
        }
        write_json(folder / "summary.json", summary)
        print(f"{outcome.step:,} steps; {outcome.seconds:.1f} s; the trained weights are in {folder / 'final'}")
        if upload is not None:
            print(f"uploaded to {upload.send()}")
    task.release()
    end_run(task.accelerator)
