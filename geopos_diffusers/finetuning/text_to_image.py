"""Fine-tune a text-to-image pipeline: geometry weights, biases, LoRA, several of them, or the whole UNet.

    geopos train --config configs/finetune_hands.yaml --dataset D --output O

Every option of `--help` can stand in the YAML file; the command line wins. The run's folder then holds losses.jsonl,
losses.png, validation-*.png, logs/ of the trackers, checkpoint-*/ to continue from, final/ to load, and summary.json;
with --evaluate-every also evaluation/ and best/.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from ..files import atomic_directory, write_json
from ..pipelines.generation import generate_images
from ..training.arguments import parse_arguments
from ..training.checkpoints import check_settings, clear_output, saved_step
from ..training.data_order import DataOrder
from ..training.gradient_step import GradientStep
from ..training.interruption import ignore_ctrl_c
from ..training.learning_rate import learning_rate_factor
from ..training.loop import Outcome, Training, Validation, training_folder
from ..training.loop import train as run_training
from ..training.loss_log import read_losses
from ..training.processes import end_run, run_script
from ..training.resuming import resume_point
from ..training.tracking import build_accelerator, start_trackers
from .arguments import FinetuningArguments
from .image_text_data import ImageTextData
from .latents import encode_all, encode_or_read
from .run import Run, build_run, check_packages, denoising_loss, known_settings, schedule_steps
from .trained_parts import save_trained_parts
from .validation import generating, report_validation_images, sampling_options

FINAL_LOSS_STEPS = 100


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(FinetuningArguments, argv)
    accelerator = build_accelerator(
        args.output_dir, args.mixed_precision, args.gradient_accumulation_steps, args.report_to
    )
    logging.basicConfig(level=logging.WARNING if accelerator.is_main_process else logging.ERROR)
    writes = accelerator.is_main_process and not args.dry_run
    with training_folder(args.output_dir, accelerator) if writes else nullcontext():
        finetune(args, accelerator)


def finetune(args: FinetuningArguments, accelerator: Accelerator) -> None:
    """The whole run, within the lock on its folder."""
    checkpoint = resume_point(args.output_dir, args.resume_from_checkpoint, args.overwrite)
    check_packages(args)
    if checkpoint is not None:
        check_settings(checkpoint, known_settings(args, accelerator))
    evaluation = None
    if args.evaluate_every is not None:
        from .evaluation import HandEvaluation  # with `metrics`, which other runs do not need

        evaluation = HandEvaluation(args)
        if accelerator.is_main_process and not args.dry_run:
            evaluation.prepare(continued=checkpoint is not None)
    run = build_run(args, accelerator)
    run.evaluation = evaluation
    if checkpoint is not None:
        check_settings(checkpoint, run.state.settings)
    if accelerator.is_main_process:
        for name, value in run.facts().items():
            print(f"{name:20} {value}")
    if args.dry_run:
        return
    if checkpoint is None and accelerator.is_main_process:
        clear_output(args.output_dir)
    train(run, checkpoint)


def train(run: Run, checkpoint: Path | None) -> None:
    """Train from `checkpoint`, or from the beginning, to the end, and write final/ and summary.json."""
    args, accelerator = run.args, run.accelerator
    if args.cache_latents:
        encode = encode_all if args.latents_folder is None else partial(encode_or_read, folder=args.latents_folder)
        run.data = encode(
            cast(ImageTextData, run.data), run.pipe.vae, accelerator, args.train_batch_size, args.num_workers
        )
    # From here on every process draws noise, timesteps and shifts of its own.
    set_seed(args.seed, device_specific=True)
    start_trackers(accelerator, "finetune", asdict(args), saved_step(checkpoint) if checkpoint else 0)
    training = Training(
        name="fine-tuning",
        folder=Path(args.output_dir),
        state=run.state,
        steps=run.steps,
        step=GradientStep(
            run.state,
            run.unet,
            losses=lambda batch: {"loss": denoising_loss(run, batch)},
            batches=partial(build_loader, run),
            learning_rate=partial(learning_rate, run),
            max_grad_norm=args.max_grad_norm,
        ),
        save_parts=partial(save_parts, run),
        checkpoint_every=args.checkpointing_steps,
        checkpoints_limit=args.checkpoints_total_limit,
        validations=validations(run),
    )
    if run.evaluation is not None and accelerator.is_main_process:
        run.evaluation.begin(saved_step(checkpoint) if checkpoint else 0)
    outcome = run_training(training, checkpoint)
    del training  # with its hold on run.unet; see end_run
    finish(run, outcome)


def learning_rate(run: Run, group: dict[str, Any], step: int) -> float:
    args = run.args
    length = schedule_steps(args, run.steps) or run.steps
    return group["peak"] * learning_rate_factor(args.lr_scheduler, step, args.lr_warmup_steps, length)


def build_loader(run: Run, first_step: int) -> DataLoader:
    """Batches of all processes in turn, from `first_step` to the end of the run. The shuffling is DataOrder's."""
    start, stop = first_step * run.samples_per_step, run.steps * run.samples_per_step
    loader = DataLoader(
        run.data,
        run.args.train_batch_size,
        sampler=DataOrder(len(run.data), start, stop, run.args.seed),
        num_workers=run.args.num_workers,
        worker_init_fn=ignore_ctrl_c,
        # Of its own, since starting to iterate would otherwise draw from the training's random numbers.
        generator=torch.Generator(),
    )
    return run.accelerator.prepare(loader)


def validations(run: Run) -> list[Validation]:
    """Grids of the validation prompts, and scores of hands."""
    args, found = run.args, []
    if args.validation_prompts:
        found.append(Validation(partial(validate, run, args.validation_prompts), args.validation_steps, first=True))
    if run.evaluation is not None:
        save, resolution = partial(save_parts, run), run.state.settings["resolution"]
        evaluate = partial(run.evaluation.evaluate, run.pipe, run.accelerator, resolution, save)
        found.append(Validation(evaluate, args.evaluate_every, first=True))
    return found


def validate(run: Run, prompts: Sequence[str], step: int) -> dict[str, float]:
    """Draw the validation prompts. Returns no scores."""
    options = sampling_options(run.args, run.state.settings["resolution"])
    with generating(run.pipe, run.accelerator):
        images = [item.image for item in generate_images(run.pipe, prompts, batch_size=1, **options)]
    report_validation_images(images, prompts, run.accelerator, run.args.output_dir, step)
    return {}


def save_parts(run: Run, folder: Path) -> None:
    card = {"Base model": run.args.model, "Training": run.facts()}
    save_trained_parts(run.pipe, run.args.parts, folder, card)


def finish(run: Run, outcome: Outcome) -> None:
    """Write final/ and summary.json."""
    folder = Path(run.args.output_dir)
    writes = run.accelerator.is_main_process
    with atomic_directory(folder / "final") if writes else nullcontext() as final, run.state.averaged():
        if final is not None:
            save_parts(run, final)
    if writes:
        last = [line["loss"] for line in read_losses(folder / "losses.jsonl")[-FINAL_LOSS_STEPS:]]
        summary = {
            **run.facts(),
            "steps": outcome.step,
            "first_step": outcome.first_step,
            "seconds": round(outcome.seconds, 3),
            "final_loss_mean": sum(last) / len(last) if last else None,
            "final_loss_steps": len(last),
            "settings": asdict(run.args),
        }
        if run.evaluation is not None:
            run.evaluation.finish()
            summary["best"] = run.evaluation.best
        write_json(folder / "summary.json", summary)
        print(f"{outcome.step:,} steps; {outcome.seconds:.1f} s; the trained weights are in {folder / 'final'}")
    run.unet = None  # see end_run
    end_run(run.accelerator)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
