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

from ..optional_packages import require_package
from ..pipelines.generation import generate_images
from ..pipelines.loading import load_pipeline
from ..pipelines.prompts import warn_of_unreadable_words
from ..training.loop import Validation
from ..training.loss_log import read_losses
from ..training.processes import run_script
from .cached_data import CachedData
from .denoising_loss import banded_losses
from .denoising_options import DEFAULT_BANDS
from .diffusion_loss import diffusion_loss, prediction_target
from .engine import finetune
from .image_text_data import ImageTextData
from .latent_cache import cache_latents
from .latents import encode_moments, sample_latents, scale_latents
from .loading import check_size, data_facts, load_data
from .masks import mask_weight, share_inside
from .mirrored_captions import mirror_some
from .reconstruction import reconstruction_psnr, warn_of_lost_detail
from .streaming import StreamedData
from .task import Task
from .text_cache import cache_text, free_text_encoders
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

    def load_data(self) -> ImageTextData | StreamedData:
        pipe = self.pipe
        data = self._load_images(None)
        self.data_facts = data_facts(data)
        captions = data.some_captions()
        warn_of_long_captions(pipe, captions)
        warn_of_unreadable_words(pipe, [*captions, *self.prompts()])
        self.reconstruction_psnr = reconstruction_psnr(data, pipe.vae, self.accelerator.device)
        warn_of_lost_detail(self.reconstruction_psnr)
        return data

    def load_validation_data(self, dataset: str) -> ImageTextData | StreamedData:
        return self._load_images(dataset)

    def _load_images(self, held_out: str | None) -> ImageTextData | StreamedData:
        pipe = self.pipe
        factor = pipe.vae_scale_factor
        resolution = self.args.resolution or pipe.unet.config.sample_size * factor
        check_size(resolution, factor)
        # The UNet halves its feature maps at the end of each block but the last.
        unit = factor * 2 ** (len(pipe.unet.config.down_block_types) - 1)
        return load_data(self.args, resolution, unit, self.accelerator, held_out)

    def prompts(self) -> list[str]:
        """What images are drawn of while training."""
        return [*(self.args.validation_prompts or []), *evaluation_prompts(self.args)]

    def facts(self) -> dict[str, Any]:
        return {**self.data_facts, "reconstruction_psnr": round(self.reconstruction_psnr, 2)}

    def prepare_data(self) -> None:
        args, accelerator, images = self.args, self.accelerator, self.data
        batch, latents, text = args.train_batch_size, None, None
        if args.cache_latents:
            folder = Path(args.latents_folder or Path(args.output_dir) / "latents")
            latents = cache_latents(images, self.pipe.vae, accelerator, folder, batch, args.num_workers)
        if args.cache_text_embeddings:
            folder = Path(args.text_folder or Path(args.output_dir) / "text")
            encode = self.encode_captions.encode
            text = cache_text(images.captions, self.pipe, encode, accelerator, folder, batch, args.flip_captions)
            free_text_encoders(self.pipe, self.prompts(), accelerator.device)
        if latents is not None or text is not None:
            self.data = CachedData(images, latents, text)

    def begin(self, step: int) -> None:
        super().begin(step)
        if self.evaluation is not None:
            self.evaluation.begin(step)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Noise a batch's latents, let the denoiser predict, and compare."""
        args, scheduler = self.args, self.noise_scheduler
        if args.random_flip:
            batch = mirror_some(batch, args.flip_captions)
        moments = batch["moments"] if "moments" in batch else encode_moments(self.pipe.vae, batch["pixels"])
        latents = sample_latents(self.pipe.vae, moments)
        noise = torch.randn_like(latents)
        if args.noise_offset:
            noise += args.noise_offset * torch.randn(*latents.shape[:2], 1, 1, device=latents.device)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
        parts = tuple(batch[name] for name in ("text0", "text1") if name in batch) or None
        conditions = self.encode_captions(batch["caption"], batch["sizes"], args.caption_dropout, parts)
        added = noise
        if args.input_perturbation:
            added = noise + args.input_perturbation * torch.randn_like(noise)
        noisy = scheduler.add_noise(latents, added, timesteps).to(conditions["encoder_hidden_states"].dtype)
        prediction = self.model(noisy, timesteps, **conditions).sample
        target = prediction_target(scheduler, latents, noise, timesteps)
        if "mask" not in batch:
            return {"loss": diffusion_loss(prediction, target, scheduler, timesteps, args.loss_weights)}
        weight = mask_weight(batch["mask"], latents.shape[-2:], args.mask_weight, args.mask_floor)
        loss = diffusion_loss(prediction, target, scheduler, timesteps, args.loss_weights, weight)
        return {"loss": loss, "mask_loss_share": share_inside(prediction - target, weight, batch["mask"])}

    def prepare_held_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Latents [B, C, h, w], each the mode of its distribution, in the place of images."""
        mean = encode_moments(self.pipe.vae, batch["pixels"].to(self.accelerator.device)).chunk(2, dim=1)[0]
        return {"latents": scale_latents(self.pipe.vae, mean), "caption": batch["caption"], "sizes": batch["sizes"]}

    def held_out_losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        conditions = self.encode_captions(batch["caption"], batch["sizes"])

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            noisy = noisy.to(conditions["encoder_hidden_states"].dtype)
            return self.pipe.unet(noisy, timesteps, **conditions).sample

        return banded_losses(self.noise_scheduler, batch["latents"], predict, self.bands, generator)

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
        found = super().finish()
        if self.args.mask_column:
            lines = read_losses(Path(self.args.output_dir) / "losses.jsonl")
            found["mask_loss_share"] = sum(line["mask_loss_share"] for line in lines) / len(lines)
            print(f"{found['mask_loss_share']:.1%} of the loss came from inside the masks")
        if self.evaluation is not None:
            self.evaluation.finish()
        return found


def main(argv: Sequence[str] | None = None) -> None:
    finetune(TextToImage, argv)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
