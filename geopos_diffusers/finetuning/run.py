"""A fine-tuning run: the pipeline, patched and frozen, its data, and the loss of a batch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import DDPMScheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import Parameter

from ..errors import ConfigError
from ..optional_packages import require_package
from ..pipelines.loading import load_pipeline
from ..pipelines.prompts import warn_of_unreadable_words
from ..training.arguments import fixed_settings
from ..training.checkpoints import TrainingState
from .arguments import FinetuningArguments
from .diffusion_loss import diffusion_loss, prediction_target
from .image_text_data import ImageTextData, load_image_text
from .latents import LatentData, encode_moments, sample_latents
from .reconstruction import reconstruction_psnr, warn_of_lost_detail
from .text_conditions import CaptionEncoder, check_supported, warn_of_long_captions
from .trained_parts import add_trained_parts, parameter_groups, place_models
from .validation import evaluation_prompts

if TYPE_CHECKING:
    from .evaluation import HandEvaluation


@dataclass
class Run:
    """All that a run consists of. unet: `pipe.unet` as `accelerator.prepare` wraps it; None at the end of the run.

    steps: optimizer steps in all. samples_per_step: images that all processes together use in one optimizer step.
    unet_parameters: of the base model, without what is added to train. reconstruction_psnr: of training images, in dB.
    evaluation: the scores of hands, where they were asked for.
    """

    args: FinetuningArguments
    accelerator: Accelerator
    pipe: Any
    noise_scheduler: DDPMScheduler
    encode_captions: CaptionEncoder
    unet: Any
    data: ImageTextData | LatentData
    state: TrainingState
    steps: int
    samples_per_step: int
    unet_parameters: int
    reconstruction_psnr: float
    evaluation: "HandEvaluation | None" = None

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
            "unet_parameters": self.unet_parameters,
            "dataset": self.args.dataset,
            "images": len(self.data),
            "skipped_images": self.data.skipped,
            "resolution": self.state.settings["resolution"],
            "reconstruction_psnr": round(self.reconstruction_psnr, 2),
            "steps": self.steps,
            "samples_per_step": self.samples_per_step,
            "epochs": round(self.steps * self.samples_per_step / len(self.data), 2),
            "learning_rate": {part: self.args.peak_learning_rate(part) for part in self.args.parts},
            "seed": self.args.seed,
            "processes": self.accelerator.num_processes,
            "device": self.accelerator.device.type,
            "mixed_precision": self.accelerator.mixed_precision,
        }


def check_packages(args: FinetuningArguments) -> None:
    """Raise MissingDependencyError if an option needs a package that is not installed."""
    if "lora" in args.parts:
        require_package("peft", "train", "train=lora")
    if args.evaluate_every is not None:
        require_package("mediapipe", "eval", "evaluate_every")
    if not Path(args.dataset).is_dir():
        require_package("datasets", "train", "a Parquet file or data set of the Hub")


def build_run(args: FinetuningArguments, accelerator: Accelerator) -> Run:
    """Load the pipeline and the data, patch, freeze, and prepare what is trained."""
    set_seed(args.seed)
    pipe = build_pipeline(args)
    unet_parameters = sum(parameter.numel() for parameter in pipe.unet.parameters())
    parameters = add_trained_parts(pipe, args)
    place_models(pipe, accelerator)
    data = load_data(args, pipe, accelerator)
    psnr = reconstruction_psnr(data, pipe.vae, accelerator.device)
    warn_of_lost_detail(psnr)
    samples_per_step = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    steps = args.max_train_steps or math.ceil((args.num_train_epochs or 0) * len(data) / samples_per_step)
    settings = {
        **known_settings(args, accelerator),
        "resolution": data.resolution,
        "data": data.fingerprint(),
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
    return Run(
        args, accelerator, pipe, noise_scheduler, encode_captions, unet, data, state, steps, samples_per_step,
        unet_parameters, psnr,
    )  # fmt: skip


def known_settings(args: FinetuningArguments, accelerator: Accelerator) -> dict[str, Any]:
    """What a continued run must share with its beginning, as far as it is known before anything is loaded."""
    settings = {
        **fixed_settings(args),
        "mixed_precision": accelerator.mixed_precision,
        "training_rates": {part: args.peak_learning_rate(part) for part in args.parts},
        "lr_schedule_steps": schedule_steps(args, args.max_train_steps),
    }
    if args.resolution is None:  # the model's
        del settings["resolution"]
    if settings["lr_schedule_steps"] is None and args.lr_scheduler != "constant":  # depends on the number of images
        del settings["lr_schedule_steps"]
    return settings


def build_pipeline(args: FinetuningArguments) -> Any:
    """The pipeline to train, in float32; what is frozen is lowered to the run's precision later."""
    pipe = load_pipeline(args.model, dtype=torch.float32)
    check_supported(pipe)
    if args.prediction_type is not None:
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=args.prediction_type)
    return pipe


def schedule_steps(args: FinetuningArguments, steps: int | None) -> int | None:
    """Step at which the learning-rate schedule ends; None where it has no end, so that a run can be made longer."""
    return None if args.lr_scheduler == "constant" else args.lr_schedule_steps or steps


def load_data(args: FinetuningArguments, pipe: Any, accelerator: Accelerator) -> ImageTextData:
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
    warn_of_unreadable_words(pipe, [*data.captions, *(args.validation_prompts or []), *evaluation_prompts(args)])
    return data


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
    added = noise
    if args.input_perturbation:
        added = noise + args.input_perturbation * torch.randn_like(noise)
    noisy = scheduler.add_noise(latents, added, timesteps).to(conditions["encoder_hidden_states"].dtype)
    prediction = run.unet(noisy, timesteps, **conditions).sample
    target = prediction_target(scheduler, latents, noise, timesteps)
    return diffusion_loss(prediction, target, scheduler, timesteps, args.loss_weights)
