"""Fine-tune a text-to-image pipeline: geometry weights, biases, LoRA, several of them, or the whole denoiser.

    geopos train text-to-image --config configs/finetune_hands.yaml --dataset D --output O

Every option of `--help` can stand in the YAML file; the command line wins. The run's folder then holds losses.jsonl,
losses.png, validation-*.png, logs/ of the trackers, checkpoint-*/ to continue from, final/ to load, and summary.json;
with --evaluate-every also evaluation/ and best/.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import ConfigError
from ..optional_packages import require_package
from ..pipelines.generation import denoiser_of, generate_images
from ..pipelines.loading import load_pipeline
from ..pipelines.prompts import warn_of_unreadable_words
from ..training.loop import Validation
from ..training.processes import run_script
from .denoising import DDPMDenoising, Denoising
from .denoising_options import DEFAULT_BANDS
from .engine import finetune
from .flow_matching import FlowMatching, is_flow_matching
from .image_text_data import ImageTextData, load_image_text
from .latents import encode_all, encode_moments, encode_or_read, mean_latents, sample_latents, scale_latents
from .lora import save_lora
from .reconstruction import reconstruction_psnr, warn_of_lost_detail
from .task import Task
from .text_conditions import CaptionEncoder, check_supported, text_family, warn_of_long_captions
from .text_encoder_lora import EncodedDenoiser, add_text_encoder_lora, predict
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

    def __init__(self, args: TextToImageArguments, accelerator: Accelerator) -> None:
        super().__init__(args, accelerator)
        self.evaluation: HandEvaluation | None = None
        self.reconstruction_psnr = 0.0

    def check_packages(self) -> None:
        if self.args.train_text_encoder:
            require_package("peft", "train", "train_text_encoder")
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
        self.component = "unet" if "unet" in pipe.components else "transformer"
        kind = self.args.prediction_type
        if kind is not None and not is_flow_matching(pipe.scheduler):
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=kind)
        return pipe

    def build(self) -> None:
        super().build()
        self.denoising = build_denoising(self.pipe, self.args)
        self.encode_captions = CaptionEncoder(self.pipe, self.accelerator.device)
        if self.args.train_text_encoder:
            self.parameters |= add_text_encoder_lora(self.pipe, self.args)
            self.model = EncodedDenoiser(self.model, self.encode_captions)
        self.bands = self.args.validation_bands or DEFAULT_BANDS
        self.held_out_kind = f"{self.bands} bands of {self.denoising.target}"

    def load_data(self) -> ImageTextData:
        args, pipe = self.args, self.pipe
        data = self._load_images(args.dataset, args.dataset_split, args.max_train_samples)
        warn_of_long_captions(pipe, data.captions)
        warn_of_unreadable_words(pipe, [*data.captions, *self.prompts()])
        self.reconstruction_psnr = reconstruction_psnr(data, pipe.vae, self.accelerator.device)
        warn_of_lost_detail(self.reconstruction_psnr)
        return data

    def load_validation_data(self, dataset: str) -> ImageTextData:
        return self._load_images(dataset, self.args.dataset_split)

    def _load_images(self, dataset: str, split: str, limit: int | None = None) -> ImageTextData:
        args, pipe, accelerator = self.args, self.pipe, self.accelerator
        resolution = args.resolution or denoiser_of(pipe).config.sample_size * pipe.vae_scale_factor
        multiple = size_multiple(pipe)
        if resolution % multiple:
            raise ConfigError(f"size must be a multiple of {multiple} for this model; got {resolution}")
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

    def prompts(self) -> list[str]:
        """All that are drawn while training."""
        return [*(self.args.validation_prompts or []), *evaluation_prompts(self.args)]

    def facts(self) -> dict[str, Any]:
        return {"reconstruction_psnr": round(self.reconstruction_psnr, 2)}

    def prepare_data(self) -> None:
        args = self.args
        if args.cache_text_embeddings:
            self.encode_captions.keep([*self.data.captions, *self.prompts()], args.train_batch_size)
        if args.cache_latents:
            encode = encode_all if args.latents_folder is None else partial(encode_or_read, folder=args.latents_folder)
            self.data = encode(self.data, self.pipe.vae, self.accelerator, args.train_batch_size, args.num_workers)

    def begin(self, step: int) -> None:
        super().begin(step)
        if self.evaluation is not None:
            self.evaluation.begin(step)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Noise a batch's latents, let the denoiser predict, and compare."""
        args, denoising = self.args, self.denoising
        latents = sample_latents(self.pipe.vae, self.moments(batch))
        noise = torch.randn_like(latents)
        if args.noise_offset:
            noise += args.noise_offset * torch.randn(*latents.shape[:2], 1, 1, device=latents.device)
        levels = denoising.draw_levels(len(latents), latents.device)
        told: tuple[Any, ...]
        if args.train_text_encoder:
            told = batch["caption"], batch["sizes"], self.encode_captions.draw_dropped(len(noise), args.caption_dropout)
        else:
            told = (self.encode_captions(batch["caption"], batch["sizes"], args.caption_dropout),)
        added = noise
        if args.input_perturbation:
            added = noise + args.input_perturbation * torch.randn_like(noise)
        noisy = denoising.add_noise(latents, added, levels)
        forward = self.model if args.train_text_encoder else partial(predict, self.model)
        prediction = forward(noisy, denoising.timesteps(levels), *told)
        errors = denoising.errors(prediction, noisy, latents, noise, levels).flatten(1).mean(1)
        weights = denoising.weights(levels)
        return {"loss": (errors if weights is None else weights * errors).mean()}

    def prepare_held_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Latents [B, C, h, w], each the mode of its distribution, in the place of images."""
        latents = mean_latents(self.pipe.vae, batch["pixels"].to(self.accelerator.device)).float()
        return {"latents": scale_latents(self.pipe.vae, latents), "caption": batch["caption"], "sizes": batch["sizes"]}

    def held_out_losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """Squared errors in each band of noise levels, from the least noise on, and their mean; not weighted."""
        latents, denoising = batch["latents"], self.denoising
        conditions, values = self.encode_captions(batch["caption"], batch["sizes"]), {}
        for band in range(self.bands):
            noise = torch.randn(latents.shape, generator=generator).to(latents.device)
            places = (band + torch.rand(len(latents), generator=generator)) / self.bands
            levels = (places * denoising.steps).long().clamp(max=denoising.steps - 1).to(latents.device)
            noisy = denoising.add_noise(latents, noise, levels)
            prediction = predict(denoiser_of(self.pipe), noisy, denoising.timesteps(levels), conditions)
            errors = denoising.errors(prediction, noisy, latents, noise, levels)
            values[f"validation_loss_band_{band}"] = errors.flatten(1).mean(1)
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
            evaluate = partial(
                self.evaluation.evaluate,
                *(self.pipe, self.encode_captions.call_arguments, self.accelerator, self.data.resolution, save),
            )
            found.append(Validation(evaluate, args.evaluate_every, first=True))
        return found

    def validate(self, prompts: Sequence[str], step: int) -> dict[str, float]:
        """Draw the validation prompts. Returns no scores."""
        options = sampling_options(self.args, self.data.resolution)
        options["call_arguments"] = self.encode_captions.call_arguments
        with generating(self.pipe, self.accelerator):
            images = [item.image for item in generate_images(self.pipe, prompts, batch_size=1, **options)]
        report_validation_images(images, prompts, self.accelerator, self.args.output_dir, step)
        return {}

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        super().save(folder, facts)
        if self.args.train_text_encoder:  # in one file with the denoiser's
            denoiser = [self.component] if "lora" in self.args.parts else []
            save_lora(self.pipe, [*denoiser, *text_family(self.pipe).TEXT_ENCODERS], folder)

    def finish(self) -> dict[str, Any]:
        if self.evaluation is not None:
            self.evaluation.finish()
        return super().finish()


def build_denoising(pipe: Any, args: TextToImageArguments) -> Denoising:
    """What a pipeline's denoiser learns, by its scheduler.

    Raises:
        ConfigError: an option of the other kind of model is given.
    """
    name = type(pipe).__name__
    if is_flow_matching(pipe.scheduler):
        for option in ("loss_weighting", "snr_gamma", "p2_gamma", "p2_k", "prediction_type"):
            if getattr(args, option) is not None:
                raise ConfigError(f"{option} is of denoising diffusion; {name} is trained by flow matching")
        scale = pipe.transformer.config.get("timestep_scale", 1.0)
        return FlowMatching(pipe.scheduler.config, args, scale)
    for option in args.given_flow_options():
        raise ConfigError(f"{option} is of flow matching; {name} is trained by denoising diffusion")
    return DDPMDenoising(pipe.scheduler.config, args)


def size_multiple(pipe: Any) -> int:
    """What the sides of images must be multiples of, in pixels."""
    if type(pipe).__name__ == "SanaPipeline":  # refuses others when it draws
        return math.lcm(32, pipe.vae_scale_factor)
    config = denoiser_of(pipe).config
    return pipe.vae_scale_factor * (config.get("patch_size") or 1)


def main(argv: Sequence[str] | None = None) -> None:
    finetune(TextToImage, argv)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
