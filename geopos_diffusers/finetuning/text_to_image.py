"""Fine-tune a text-to-image pipeline: geometry weights, biases, LoRA, several of them, or the whole UNet.

    geopos train --config configs/finetune_hands.yaml --dataset D --output O

Every option of `--help` can stand in the YAML file; the command line wins. The run's folder then holds losses.jsonl,
losses.png, validation-*.png, logs/ of the trackers, checkpoint-*/ to continue from, final/ to load, and summary.json.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import Parameter
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..errors import ConfigError
from ..files import atomic_directory, write_json
from ..folder_lock import locked_folder
from ..pipelines.loading import load_pipeline
from ..training.arguments import parse_arguments
from ..training.checkpoints import (
    TrainingState,
    clear_output,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from ..training.data_order import DataOrder
from ..training.learning_rate import learning_rate_factor
from ..training.loss_log import LossLog, draw_loss_curve, read_losses
from ..training.processes import end_run, run_script
from ..training.resuming import resume_point
from ..training.tracking import build_accelerator, start_trackers
from .arguments import FinetuningArguments
from .diffusion_loss import diffusion_loss, prediction_target
from .image_text_data import load_image_text
from .latents import encode_all, encode_moments, encode_or_read, sample_latents
from .text_conditions import CaptionEncoder, check_supported, warn_of_long_captions
from .trained_parts import (
    add_trained_parts,
    parameter_groups,
    place_models,
    save_trained_parts,
)
from .validation import draw_validation_images, report_validation_images

FINAL_LOSS_STEPS = 100


@dataclass
class Run:
    """All that a run consists of. unet: `pipe.unet` as `accelerator.prepare` wraps it; None at the end of the run.

    steps: optimizer steps in all. samples_per_step: images that all processes together use in one optimizer step.
    """

    args: FinetuningArguments
    accelerator: Accelerator
    pipe: Any
    noise_scheduler: DDPMScheduler
    encode_captions: CaptionEncoder
    unet: torch.nn.Module | None
    data: Dataset
    state: TrainingState
    steps: int
    samples_per_step: int

    @property
    def parameters(self) -> list[Parameter]:
        return list(self.state.parameters.values())

    def facts(self) -> dict[str, Any]:
        """What the terminal, the model card and summary.json say about the run."""
        return {
            "pipeline": type(self.pipe).__name__,
            "model": self.args.model,
            "train": self.args.train,
            "trained_parameters": sum(parameter.numel() for parameter in self.parameters),
            "unet_parameters": sum(parameter.numel() for parameter in self.pipe.unet.parameters()),
            "dataset": self.args.dataset,
            "images": len(self.data),
            "skipped_images": self.data.skipped,
            "resolution": self.state.settings["resolution"],
            "steps": self.steps,
            "samples_per_step": self.samples_per_step,
            "epochs": round(self.steps * self.samples_per_step / len(self.data), 2),
            "learning_rate": {part: self.args.peak_learning_rate(part) for part in self.args.parts},
            "seed": self.args.seed,
            "processes": self.accelerator.num_processes,
            "device": self.accelerator.device.type,
            "mixed_precision": self.accelerator.mixed_precision,
        }


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(FinetuningArguments, argv)
    accelerator = build_accelerator(
        args.output_dir, args.mixed_precision, args.gradient_accumulation_steps, args.report_to
    )
    logging.basicConfig(level=logging.WARNING if accelerator.is_main_process else logging.ERROR)
    writes = accelerator.is_main_process and not args.dry_run
    with locked_folder(args.output_dir) if writes else nullcontext():
        if writes:
            remove_unfinished(args.output_dir)
        finetune(args, accelerator)


def finetune(args: FinetuningArguments, accelerator: Accelerator) -> None:
    """The whole run, within the lock on its folder."""
    checkpoint = resume_point(args.output_dir, args.resume_from_checkpoint, args.overwrite)
    run = build_run(args, accelerator)
    if accelerator.is_main_process:
        for name, value in run.facts().items():
            print(f"{name:20} {value}")
    if args.dry_run:
        return
    if checkpoint is None and accelerator.is_main_process:
        clear_output(args.output_dir)
    train(run, checkpoint)


def build_run(args: FinetuningArguments, accelerator: Accelerator) -> Run:
    """Load the pipeline and the data, patch, freeze, and prepare what is trained."""
    set_seed(args.seed)
    pipe = build_pipeline(args)
    parameters = add_trained_parts(pipe, args)
    place_models(pipe, accelerator)
    data = load_data(args, pipe, accelerator)
    samples_per_step = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    steps = args.max_train_steps or math.ceil(args.num_train_epochs * len(data) / samples_per_step)
    settings = {
        **args.fixed_settings(),
        "mixed_precision": accelerator.mixed_precision,
        "resolution": data.resolution,
        "data": data.fingerprint(),
        "training_rates": {part: args.peak_learning_rate(part) for part in args.parts},
        "lr_schedule_steps": schedule_steps(args, steps),
    }
    optimizer = torch.optim.AdamW(
        parameter_groups(parameters, args), betas=(args.adam_beta1, args.adam_beta2), eps=args.adam_epsilon
    )
    if args.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    pipe.unet.train()
    unet, optimizer = accelerator.prepare(pipe.unet, optimizer)
    ema = EMAModel(parameters.values(), decay=args.ema_decay) if args.use_ema else None
    state = TrainingState(accelerator, parameters, optimizer, ema, settings)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    encode_captions = CaptionEncoder(pipe, accelerator.device)
    return Run(args, accelerator, pipe, noise_scheduler, encode_captions, unet, data, state, steps, samples_per_step)


def train(run: Run, checkpoint: Path | None) -> None:
    """The loop. One turn is one batch; every gradient_accumulation_steps-th of them ends an optimizer step."""
    args, accelerator, optimizer, parameters = run.args, run.accelerator, run.state.optimizer, run.parameters
    if args.cache_latents:
        encode = encode_all if args.latents_folder is None else partial(encode_or_read, folder=args.latents_folder)
        run.data = encode(run.data, run.pipe.vae, accelerator, args.train_batch_size, args.num_workers)
    # From here on every process draws noise, timesteps and shifts of its own.
    set_seed(args.seed, device_specific=True)
    step = first_step = load_checkpoint(run.state, checkpoint) if checkpoint else 0
    loader = accelerator.prepare(build_loader(run, first_step))
    start_trackers(accelerator, "finetune", asdict(args))
    log = LossLog(args.output_dir, first_step) if accelerator.is_main_process else None
    if args.validation_prompts and step == 0:
        validate(run, step)
    progress = tqdm(total=run.steps, initial=first_step, desc="fine-tuning", disable=not accelerator.is_main_process)
    started, step_loss = time.perf_counter(), torch.zeros((), device=accelerator.device)

    for batch in loader:
        with accelerator.accumulate(run.unet):
            loss = denoising_loss(run, batch)
            accelerator.backward(loss)
            step_loss += loss.detach() / args.gradient_accumulation_steps
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(parameters, args.max_grad_norm)
                length = schedule_steps(args, run.steps)
                factor = learning_rate_factor(args.lr_scheduler, step, args.lr_warmup_steps, length or run.steps)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad()
        if not accelerator.sync_gradients:
            continue

        step += 1
        if run.state.ema is not None:
            run.state.ema.step(parameters)
        values = {
            "loss": accelerator.reduce(step_loss, "mean").item(),
            **{f"learning_rate_{group['part']}": group["lr"] for group in optimizer.param_groups},
            "grad_norm": float(norm),
        }
        step_loss.zero_()
        if not math.isfinite(values["loss"]):
            raise ConfigError(f"the loss is {values['loss']} at step {step}; try a lower learning rate or bf16")
        if log is not None:
            log.append(step=step, **values)
        accelerator.log(values, step=step)
        progress.update()
        progress.set_postfix(loss=f"{values['loss']:.4f}")

        if args.validation_prompts and (step % args.validation_steps == 0 or step == run.steps):
            validate(run, step)
        if step % args.checkpointing_steps == 0 or step == run.steps:
            save_checkpoint(run.state, step, args.output_dir, partial(save_parts, run), args.checkpoints_total_limit)
    progress.close()
    finish(run, step, first_step, time.perf_counter() - started)


def build_pipeline(args: FinetuningArguments) -> Any:
    """The pipeline to train, in float32; what is frozen is lowered to the run's precision later."""
    pipe = load_pipeline(args.model, dtype=torch.float32)
    check_supported(pipe)
    if args.prediction_type is not None:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=args.prediction_type)
    return pipe


def schedule_steps(args: FinetuningArguments, steps: int) -> int | None:
    """Step at which the learning-rate schedule ends; None where it has no end, so that a run can be made longer."""
    return None if args.lr_scheduler == "constant" else args.lr_schedule_steps or steps


def load_data(args: FinetuningArguments, pipe: Any, accelerator: Accelerator) -> Dataset:
    resolution = args.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
    if resolution % pipe.vae_scale_factor:
        raise ConfigError(f"size must be a multiple of {pipe.vae_scale_factor} for this model; got {resolution}")
    # The first process fills the cache of a downloaded data set, the others read it.
    with accelerator.main_process_first():
        data = load_image_text(
            args.dataset,
            resolution,
            args.image_column,
            args.caption_column,
            args.dataset_split,
            args.max_train_samples,
            show_progress=accelerator.is_main_process,
        )
    warn_of_long_captions(pipe, data.captions)
    return data


def build_loader(run: Run, first_step: int) -> DataLoader:
    """Batches of all processes in turn, from `first_step` to the end of the run. The shuffling is DataOrder's."""
    start, stop = first_step * run.samples_per_step, run.steps * run.samples_per_step
    return DataLoader(
        run.data,
        run.args.train_batch_size,
        sampler=DataOrder(len(run.data), start, stop, run.args.seed),
        num_workers=run.args.num_workers,
        # Of its own, since starting to iterate would otherwise draw from the training's random numbers.
        generator=torch.Generator(),
    )


def denoising_loss(run: Run, batch: dict[str, Any]) -> Tensor:
    """Noise a batch's latents, let the UNet predict, and compare. All randomness is the global generators'."""
    args, scheduler = run.args, run.noise_scheduler
    if "moments" in batch:
        moments = batch["moments"]
    else:
        pixels = batch["pixels"]
        if args.random_flip:
            mirrored = torch.rand(len(pixels), device=pixels.device) < 0.5
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
        moments = encode_moments(run.pipe.vae, pixels)
    latents = sample_latents(run.pipe.vae, moments)
    noise = torch.randn_like(latents)
    if args.noise_offset:
        noise += args.noise_offset * torch.randn(*latents.shape[:2], 1, 1, device=latents.device)
    timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
    conditions = run.encode_captions(batch["caption"], batch["sizes"], args.caption_dropout)
    noisy = scheduler.add_noise(latents, noise, timesteps).to(conditions["encoder_hidden_states"].dtype)
    prediction = run.unet(noisy, timesteps, **conditions).sample
    target = prediction_target(scheduler, latents, noise, timesteps)
    return diffusion_loss(prediction, target, scheduler, timesteps, args.snr_gamma)


def validate(run: Run, step: int) -> None:
    """Draw the validation prompts on the first process, from the moving average if there is one."""
    args = run.args
    if run.accelerator.is_main_process:
        with run.state.averaged():
            images = draw_validation_images(
                run.pipe,
                args.validation_prompts,
                run.accelerator,
                args.seed,
                run.state.settings["resolution"],
                args.validation_inference_steps,
                args.validation_guidance_scale,
            )
        report_validation_images(images, args.validation_prompts, run.accelerator, args.output_dir, step)
    run.accelerator.wait_for_everyone()


def save_parts(run: Run, folder: Path) -> None:
    card = {"Base model": run.args.model, "Training": run.facts()}
    save_trained_parts(run.pipe, run.args.parts, folder, card)


def finish(run: Run, step: int, first_step: int, seconds: float) -> None:
    """Write final/, the loss curve and summary.json."""
    folder = Path(run.args.output_dir)
    if run.accelerator.is_main_process:
        with atomic_directory(folder / "final") as final, run.state.averaged():
            save_parts(run, final)
        losses = read_losses(folder / "losses.jsonl")
        draw_loss_curve(losses, folder / "losses.png")
        last = [line["loss"] for line in losses[-FINAL_LOSS_STEPS:]]
        summary = {
            **run.facts(),
            "steps": step,
            "first_step": first_step,
            "seconds": round(seconds, 3),
            "final_loss_mean": sum(last) / len(last) if last else None,
            "final_loss_steps": len(last),
            "settings": asdict(run.args),
        }
        write_json(folder / "summary.json", summary)
        print(f"{step:,} steps; {seconds:.1f} s; the trained weights are in {folder / 'final'}")
    run.unet = None  # see end_run
    end_run(run.accelerator)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
