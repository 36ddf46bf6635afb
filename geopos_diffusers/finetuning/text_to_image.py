"""Fine-tune a text-to-image pipeline: geometry weights, biases, LoRA, several of them, or the whole denoiser.

    geopos train text-to-image --config configs/finetune_hands.yaml --dataset D --output O

Every option of `--help` can stand in the YAML file; the command line wins. The run's folder then holds losses.jsonl,
losses.png, validation-*.png, logs/ of the trackers, checkpoint-*/ to continue from, final/ to load, and summary.json;
with --evaluate-every also evaluation/ and best/.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from torch import Tensor

from ..errors import ConfigError
from ..optional_packages import require_package
from ..pipelines.generation import generate_images
from ..pipelines.loading import load_pipeline
from ..pipelines.prompts import warn_of_unreadable_words
from ..training.loop import Validation
from ..training.processes import run_script
from .denoising_options import DEFAULT_BANDS
from .diffusion_loss import diffusion_loss, prediction_target
from .engine import finetune
from .image_text_data import ImageTextData, load_image_text
from .latents import encode_all, encode_moments, encode_or_read, sample_latents, scale_latents
from .reconstruction import reconstruction_psnr, warn_of_lost_detail
from .task import Task
from .text_conditions import CaptionEncoder, check_supported, warn_of_long_captions
from .text_to_image_arguments import TextToImageArguments
from .validation import evaluation_prompts, generating, report_validation_images, sampling_options

if TYPE_CHECKING:
    from .evaluation import HandEvaluation


class TextToImage(Task[TextToImageArguments]):
    """Latent diffusion under captions.

    reconstruction_psnr: of training images by the autoencoder, in dB. evaluation: the scores of hands, where they were
    asked for.
    """

    ARGUMENTS = TextToImageArguments
    component = "unet"

    def __init__(self, args: TextToImageArguments, accelerator: Accelerator) -> None:
        super().__init__(args, accelerator)
        self.evaluation: HandEvaluation | None = None
        self.reconstruction_psnr = 0.0

    def check_packages(self) -> None:
        if self.args.evaluate_every is not None:
            require_package("mediapipe", "eval", "evaluate_every")

    def prepare_evaluations(self, continued: bool) -> None:
        super().prepare_evaluations(continued)
        if self.args.evaluate_every is None:
            return
        from .evaluation import HandEvaluation  # with `metrics`, which other runs do not need

        self.evaluation = HandEvaluation(self.args, self.best)
        if self.accelerator.is_main_process and not self.args.dry_run:
            self.evaluation.prepare(continued)

    def load_pipeline(self) -> Any:
        pipe = load_pipeline(self.args.model, dtype=torch.float32)
        check_supported(pipe)
        kind = self.args.prediction_type
        if kind is not None:
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=kind)
        return pipe

    def build(self) -> None:
        super().build()
        self.noise_scheduler = DDPMScheduler.from_config(self.pipe.scheduler.config)
        self.encode_captions = CaptionEncoder(self.pipe, self.accelerator.device)
        self.bands = self.args.validation_bands or DEFAULT_BANDS
        self.held_out_kind = f"{self.bands} bands of {self.noise_scheduler.config.prediction_type}"

    def load_data(self) -> ImageTextData:
        args, pipe = self.args, self.pipe
        data = self._load_images(args.dataset, args.dataset_split, args.max_train_samples)
        warn_of_long_captions(pipe, data.captions)
        prompts = [*(args.validation_prompts or []), *evaluation_prompts(args)]
        warn_of_unreadable_words(pipe, [*data.captions, *prompts])
        self.reconstruction_psnr = reconstruction_psnr(data, pipe.vae, self.accelerator.device)
        warn_of_lost_detail(self.reconstruction_psnr)
        return data

    def load_validation_data(self, dataset: str) -> ImageTextData:
        return self._load_images(dataset, self.args.dataset_split)

    def _load_images(self, dataset: str, split: str, limit: int | None = None) -> ImageTextData:
        args, pipe, accelerator = self.args, self.pipe, self.accelerator
        resolution = args.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
        if resolution % pipe.vae_scale_factor:
            raise ConfigError(f"size must be a multiple of {pipe.vae_scale_factor} for this model; got {resolution}")
        # The first process fills the cache of a downloaded data set, the others read it.
        with accelerator.main_process_first():
            return load_image_text(
                dataset,
                resolution,
                args.image_column,
                args.caption_column,
                split,
                limit,
                show_progress=accelerator.is_main_process,
            )

    def facts(self) -> dict[str, Any]:
        return {"reconstruction_psnr": round(self.reconstruction_psnr, 2)}

    def prepare_data(self) -> None:
        args = self.args
        if args.cache_latents:
            encode = encode_all if args.latents_folder is None else partial(encode_or_read, folder=args.latents_folder)
            self.data = encode(self.data, self.pipe.vae, self.accelerator, args.train_batch_size, args.num_workers)

    def begin(self, step: int) -> None:
        super().begin(step)
        if self.evaluation is not None:
            self.evaluation.begin(step)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Noise a batch's latents, let the denoiser predict, and compare."""
        args, scheduler = self.args, self.noise_scheduler
        latents = sample_latents(self.pipe.vae, self.moments(batch))
        noise = torch.randn_like(latents)
        if args.noise_offset:
            noise += args.noise_offset * torch.randn(*latents.shape[:2], 1, 1, device=latents.device)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
        conditions = self.encode_captions(batch["caption"], batch["sizes"], args.caption_dropout)
        added = noise
        if args.input_perturbation:
            added = noise + args.input_perturbation * torch.randn_like(noise)
        noisy = scheduler.add_noise(latents, added, timesteps).to(conditions["encoder_hidden_states"].dtype)
        prediction = self.model(noisy, timesteps, **conditions).sample
        target = prediction_target(scheduler, latents, noise, timesteps)
        return {"loss": diffusion_loss(prediction, target, scheduler, timesteps, args.loss_weights)}

    def prepare_held_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Latents [B, C, h, w], each the mode of its distribution, in the place of images."""
        mean = encode_moments(self.pipe.vae, batch["pixels"].to(self.accelerator.device)).chunk(2, dim=1)[0]
        return {"latents": scale_latents(self.pipe.vae, mean), "caption": batch["caption"], "sizes": batch["sizes"]}

    def held_out_losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Squared errors in each band of timesteps, and their mean, not weighted by timestep."""
        latents, scheduler = batch["latents"], self.noise_scheduler
        limit = scheduler.config.num_train_timesteps
        conditions = self.encode_captions(batch["caption"], batch["sizes"])
        dtype, values = conditions["encoder_hidden_states"].dtype, {}
        for band in range(self.bands):
            noise = torch.randn(latents.shape, generator=generator).to(latents.device)
            places = (band + torch.rand(len(latents), generator=generator)) / self.bands
            timesteps = (places * limit).long().clamp(max=limit - 1).to(latents.device)
            noisy = scheduler.add_noise(latents, noise, timesteps).to(dtype)
            prediction = self.pipe.unet(noisy, timesteps, **conditions).sample
            target = prediction_target(scheduler, latents, noise, timesteps)
            values[f"validation_loss_band_{band}"] = (prediction.float() - target).square().flatten(1).mean(1)
        return {"validation_loss": torch.stack(list(values.values())).mean(0), **values}

    def moments(self, batch: dict[str, Any]) -> Tensor:
        """The parameters of the images' latents, from the batch or from its images, mirrored where that is asked."""
        if "moments" in batch:
            return batch["moments"]
        pixels = batch["pixels"]
        if self.args.random_flip:
            mirrored = torch.rand(len(pixels), device=pixels.device) < 0.5
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
        return encode_moments(self.pipe.vae, pixels)

    def validations(self, save: Callable[[Path], None]) -> list[Validation]:
        """The loss on held-out images, grids of the validation prompts, and scores of hands."""
        args, found = self.args, super().validations(save)
        if args.validation_prompts:
            found.append(Validation(partial(self.validate, args.validation_prompts), args.validation_steps, first=True))
        if self.evaluation is not None:
            evaluate = partial(self.evaluation.evaluate, self.pipe, self.accelerator, self.data.resolution, save)
            found.append(Validation(evaluate, args.evaluate_every, first=True))
        return found

    def validate(self, prompts: Sequence[str], step: int) -> dict[str, float]:
        """Draw the validation prompts. Returns no scores."""
        options = sampling_options(self.args, self.data.resolution)
        with generating(self.pipe, self.accelerator):
            images = [item.image for item in generate_images(self.pipe, prompts, batch_size=1, **options)]
        report_validation_images(images, prompts, self.accelerator, self.args.output_dir, step)
        return {}

    def finish(self) -> dict[str, Any]:
        if self.evaluation is not None:
            self.evaluation.finish()
        return super().finish()


def main(argv: Sequence[str] | None = None) -> None:
    finetune(TextToImage, argv)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
