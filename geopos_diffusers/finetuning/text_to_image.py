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
from torch import Tensor
from torch.nn import Parameter

from ..errors import ConfigError
from ..optional_packages import require_package
from ..pipelines.generation import denoiser_of, generate_images
from ..pipelines.loading import load_pipeline
from ..pipelines.prompts import warn_of_unreadable_words
from ..training.loop import Validation
from ..training.loss_log import read_losses
from ..training.processes import run_script
from .cached_data import CachedData
from .class_images import draw_class_images, join_batches, prior_losses
from .denoising import banded_errors, build_denoising
from .denoising_loss import sample_losses
from .denoising_options import DEFAULT_BANDS
from .engine import finetune
from .flow_matching import is_flow_matching
from .image_text_data import ImageTextData
from .inpainting import Inpainting, is_inpainting
from .latent_cache import cache_latents
from .latents import encode_moments, mean_latents, sample_latents, scale_latents
from .loading import check_size, data_facts, load_data
from .lora import save_lora
from .mirrored_captions import mirror_some
from .reconstruction import reconstruction_psnr, warn_of_lost_detail
from .streaming import StreamedData
from .supported_pipelines import check_supported, coarsest_value, size_multiple, warn_of_few_layers
from .task import Task
from .text_cache import cache_text
from .text_conditions import CaptionEncoder, predict, text_family, warn_of_long_captions
from .text_encoder_lora import EncodedDenoiser, add_text_encoder_lora
from .text_to_image_arguments import TextToImageArguments
from .validation import evaluation_prompts, generating, report_validation_images, sampling_options

if TYPE_CHECKING:
    from .evaluation import HandEvaluation

CLASS = "class"  # what batches hold the class's images under


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
        self.class_data: Any = None
        self.inpainting: Inpainting | None = None

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
        if is_inpainting(pipe):
            self.inpainting = Inpainting(pipe, self.args)
        elif self.args.inpaint_masks is not None:
            raise ConfigError(f"inpaint_masks is of inpainting models; the model is a {type(pipe).__name__}")
        if kind is not None and not is_flow_matching(pipe.scheduler):
            pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type=kind)
        return pipe

    def build(self) -> None:
        super().build()
        warn_of_few_layers(self.parameters, self.args, getattr(self.pipe, self.component))
        self.denoising = build_denoising(self.pipe, self.args)
        self.encode_captions = CaptionEncoder(self.pipe, self.accelerator.device)
        if self.args.train_text_encoder:
            self.parameters |= add_text_encoder_lora(self.pipe, self.args)
            self.model = EncodedDenoiser(self.model, self.encode_captions)
        self.bands = self.args.validation_bands or DEFAULT_BANDS
        self.held_out_kind = f"{self.bands} bands of {self.denoising.target}"

    def _shard(self) -> tuple[dict[str, Parameter], Any]:
        if self.args.train_text_encoder:
            raise ConfigError("train_text_encoder cannot go with FSDP; use plain data parallelism")
        return super()._shard()

    def load_data(self) -> ImageTextData | StreamedData:
        pipe = self.pipe
        data = self._load_images(None)
        self.images, self.data_facts = data, data_facts(data)
        captions = data.some_captions()
        warn_of_long_captions(pipe, captions)
        warn_of_unreadable_words(pipe, [*captions, *self.prompts()])
        self.reconstruction_psnr = reconstruction_psnr(data, pipe.vae, self.accelerator.device)
        warn_of_lost_detail(self.reconstruction_psnr)
        if self.args.class_dataset is not None:
            self.class_data = self._load_images(self.args.class_dataset)
        return data

    def settings(self) -> dict[str, Any]:
        return {} if self.class_data is None else {"class_data": self.class_data.fingerprint()}

    def companions(self) -> dict[str, Any]:
        return {} if self.class_data is None else {CLASS: self.class_data}

    def load_validation_data(self, dataset: str) -> ImageTextData | StreamedData:
        return self._load_images(dataset)

    def _load_images(self, held_out: str | None) -> ImageTextData | StreamedData:
        pipe = self.pipe
        resolution = self.args.resolution or denoiser_of(pipe).config.sample_size * pipe.vae_scale_factor
        check_size(resolution, size_multiple(pipe))
        return load_data(self.args, resolution, coarsest_value(pipe), self.accelerator, held_out)

    def prompts(self) -> list[str]:
        """What images are drawn of while training."""
        return [*(self.args.validation_prompts or []), *evaluation_prompts(self.args)]

    def facts(self) -> dict[str, Any]:
        return {**self.data_facts, "reconstruction_psnr": round(self.reconstruction_psnr, 2)}

    def prepare_data(self) -> None:
        args, encoder = self.args, self.encode_captions
        if args.class_prompt is not None:
            size, call_arguments = self.data.resolution, encoder.call_arguments
            folder = draw_class_images(self.pipe, args, self.accelerator, size, call_arguments)
            self.class_data = self._load_images(str(folder))
        self.data = self._cached(self.data)
        if self.class_data is not None:
            self.class_data = self._cached(self.class_data)
        if args.cache_text_embeddings:
            encoder.keep([*self.prompts(), *([] if self.held_out is None else self.held_out.captions)])

    def _cached(self, images: Any) -> Any:
        """The same data with latents and embeddings from the disk, where that is asked for."""
        args, accelerator, batch = self.args, self.accelerator, self.args.train_batch_size
        latents = text = None
        if args.cache_latents:
            folder = Path(args.latents_folder or Path(args.output_dir) / "latents")
            latents = cache_latents(images, self.pipe.vae, accelerator, folder, batch, args.num_workers)
        if args.cache_text_embeddings:
            folder = Path(args.text_folder or Path(args.output_dir) / "text")
            encode = self.encode_captions.encode
            text = cache_text(images.captions, self.pipe, encode, accelerator, folder, batch, args.flip_captions)
        return images if latents is None and text is None else CachedData(images, latents, text)

    def begin(self, step: int) -> None:
        super().begin(step)
        if self.evaluation is not None:
            self.evaluation.begin(step)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Noise a batch's latents, let the denoiser predict, and compare."""
        args, count = self.args, len(batch["caption"])
        if CLASS in batch:
            batch = join_batches(batch, batch[CLASS])
        if args.random_flip:
            batch = mirror_some(batch, args.flip_captions)
        self.begin_frames(batch)
        moments = batch["moments"] if "moments" in batch else encode_moments(self.pipe.vae, batch["pixels"])
        latents = sample_latents(self.pipe.vae, moments)

        def predict_batch(noisy: Tensor, timesteps: Tensor) -> Tensor:
            forward, *told = self.conditions(batch)
            if self.inpainting is not None:
                noisy = torch.cat([noisy, self.inpainting.channels(batch)], 1)
            return forward(noisy, timesteps, *told)

        mask = None if args.inpaint_masks == "column" else batch.get("mask")
        losses, found = sample_losses(args, self.denoising, latents, predict_batch, mask)
        if len(losses) == count:
            return {"loss": losses.mean(), **found}
        return {**prior_losses(losses, count, args.prior_loss_weight or 1.0), **found}

    def conditions(self, batch: dict[str, Any]) -> tuple[Any, ...]:
        """What predicts from noisy latents and timesteps, and its further arguments."""
        encoder, dropout = self.encode_captions, self.args.caption_dropout
        captions, sizes = batch["caption"], batch["sizes"]
        if self.args.train_text_encoder:
            return self.model, captions, sizes, encoder.draw_dropped(len(captions), dropout)
        parts = tuple(batch[name] for name in ("text0", "text1") if name in batch) or None
        return partial(predict, self.model), encoder(captions, sizes, dropout, parts)

    def prepare_held_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Latents [B, C, h, w], each the mode of its distribution, in the place of images."""
        with torch.no_grad():
            latents = mean_latents(self.pipe.vae, batch["pixels"].to(self.accelerator.device)).float()
        names = ("caption", "sizes", "box", *(() if self.inpainting is None else ("pixels", "mask")))
        kept = {name: batch[name] for name in names if name in batch}
        return {"latents": scale_latents(self.pipe.vae, latents), **kept}

    def held_out_losses(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        conditions, seen = self.encode_captions(batch["caption"], batch["sizes"]), []
        if self.inpainting is not None:
            seen = [self.inpainting.held_out_channels(batch, generator, self.accelerator.device)]

        def forward(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return predict(denoiser_of(self.pipe), torch.cat([noisy, *seen], 1), timesteps, conditions)

        with self.in_frames(batch):
            return banded_errors(self.denoising, batch["latents"], forward, self.bands, generator)

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
        """Draw the validation prompts, in the boxes of held-out images if there are frames. Returns no scores."""
        data = self.images if self.held_out is None else self.held_out
        options = sampling_options(self.args, self.data.resolution)
        options["call_arguments"] = self.encode_captions.call_arguments
        if self.frames is not None and self.inpainting is None:
            options["boxes"] = self.frames.of_items(list(data.sample(len(prompts))), len(prompts))
        with generating(self.pipe, self.accelerator):
            if self.inpainting is None:
                images = [item.image for item in generate_images(self.pipe, prompts, batch_size=1, **options)]
            else:
                items = list(data.sample(len(prompts)))
                items = [items[number % len(items)] for number in range(len(prompts))]
                texts = [self.encode_captions.call_arguments([prompt]) for prompt in prompts]
                scale, steps = options["guidance_scale"], options["steps"]
                images = self.inpainting.draw(items, texts, guidance_scale=scale, num_inference_steps=steps)
        report_validation_images(images, prompts, self.accelerator, self.args.output_dir, step)
        return {}

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        super().save(folder, facts)
        if self.args.train_text_encoder:  # in one file with the denoiser's
            denoiser = [self.component] if "lora" in self.args.parts else []
            save_lora(self.pipe, [*denoiser, *text_family(self.pipe).TEXT_ENCODERS], folder)

    def finish(self) -> dict[str, Any]:
        found = super().finish()
        if self.args.mask_column and self.args.inpaint_masks != "column":
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
