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
from .denoising import Denoising, DDPMDenoising
from .engine import finetune
from .flow_matching import FlowMatching, is_flow_matching
from .image_text_data import ImageTextData, load_image_text
from .latents import encode_all, encode_moments, encode_or_read, sample_latents
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

    def __init__(self, args: TextToImageArguments, accelerator: Accelerator) -> None:
        super().__init__(args, accelerator)
        self.evaluation: HandEvaluation | None = None
        self.reconstruction_psnr = 0.0

    def check_packages(self) -> None:
        if self.args.evaluate_every is not None:
            require_package("mediapipe", "eval", "evaluate_every")

    def prepare_evaluations(self, continued: bool) -> None:
        if self.args.evaluate_every is None:
            return
        from .evaluation import HandEvaluation  # with `metrics`, which other runs do not need

        self.evaluation = HandEvaluation(self.args)
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

    def load_data(self) -> ImageTextData:
        args, pipe, accelerator = self.args, self.pipe, self.accelerator
        resolution = args.resolution or denoiser_of(pipe).config.sample_size * pipe.vae_scale_factor
        multiple = size_multiple(pipe)
        if resolution % multiple:
            raise ConfigError(f"size must be a multiple of {multiple} for this model; got {resolution}")
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
        warn_of_unreadable_words(pipe, [*data.captions, *self.prompts()])
        self.reconstruction_psnr = reconstruction_psnr(data, pipe.vae, accelerator.device)
        warn_of_lost_detail(self.reconstruction_psnr)
        return data

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
        conditions = self.encode_captions(batch["caption"], batch["sizes"], args.caption_dropout)
        noisy = denoising.add_noise(latents, noise, levels)
        # By name: the denoisers' arguments have different orders.
        conditions["timestep"] = denoising.timesteps(levels)
        prediction = self.model(noisy.to(conditions["encoder_hidden_states"].dtype), **conditions).sample
        return {"loss": denoising.errors(prediction, noisy, latents, noise, levels).mean()}

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
        """Grids of the validation prompts, and scores of hands."""
        args, found = self.args, []
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

    def finish(self) -> dict[str, Any]:
        if self.evaluation is None:
            return {}
        self.evaluation.finish()
        return {"best": self.evaluation.best}


def build_denoising(pipe: Any, args: TextToImageArguments) -> Denoising:
    """What a pipeline's denoiser learns, by its scheduler.

    Raises:
        ConfigError: an option of the other kind of model is given.
    """
    name = type(pipe).__name__
    if is_flow_matching(pipe.scheduler):
        for option in ("snr_gamma", "prediction_type"):
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
