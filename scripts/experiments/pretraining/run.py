"""Train a small Stable Diffusion pipeline from rendered hands: autoencoder, text encoder, UNet.

    geopos data hands --num-images 30000 --size 64 ... --output DATA
    accelerate launch -m scripts.experiments.pretraining.run --config configs/experiments/pretraining.yaml \
        --dataset DATA --output RUN

Started again with the same options, it continues where its last checkpoint is (--overwrite begins anew), with the same
losses as without the stop: the order of the data and all noise are functions of the seed and the step.
"""

import json
import shutil
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import atomic_directory, atomic_path, write_json, write_text
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.vae_scores import picture
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.pipelines.loading import GENERATION_CONFIG
from geopos_diffusers.training.arguments import fixed_settings, parse_arguments
from geopos_diffusers.training.learning_rate import cosine_schedule, learning_rate_factor
from geopos_diffusers.training.processes import end_run, run_script
from geopos_diffusers.training.resuming import discard_run
from geopos_diffusers.training.stage import Stage, step_generator, train_stage
from geopos_diffusers.training.tracking import build_accelerator

from .arguments import PretrainingArguments
from .autoencoder_loss import (
    AutoencoderLoss,
    center_latents,
    encode_means,
    peak_signal_to_noise,
    reconstruct,
)
from .caption_tokenizer import train_caption_tokenizer
from .card import write_model_card
from .contrastive_loss import ContrastiveLoss, LatentEncoder
from .models import build_pipeline, build_text_encoder, build_unet, build_vae
from .text_to_image_loss import TextToImageLoss, stratified_timesteps
from .wrong_captions import WrongCaptions

ENCODED = 1024  # images whose latents are written at a time


@dataclass
class HandData:
    """pixels [N, 3, S, S] uint8, with a caption each; the last `validation_count` are not trained on."""

    pixels: Tensor
    captions: list[str]
    validation_count: int

    @property
    def train_count(self) -> int:
        return len(self.captions) - self.validation_count

    def images(self, indices: Iterable[int] | slice) -> Tensor:
        """[B, 3, S, S] float32 in [-1, 1]."""
        return self.pixels[indices].float() / 127.5 - 1


def load_data(args: PretrainingArguments, accelerator: Accelerator) -> HandData:
    """Decode the image folder into memory once: 30,000 images of 64 pixels take 370 MB."""
    show = accelerator.is_main_process
    data = load_image_text(args.train_data, args.resolution, show_progress=show)
    if len(data) <= args.validation_count:
        raise DataError(f"{args.train_data} holds {len(data)} images; more than {args.validation_count} are needed")
    pixels = torch.empty(len(data), 3, args.resolution, args.resolution, dtype=torch.uint8)
    for index in tqdm(range(len(data)), desc="reading images", disable=not show):
        pixels[index] = ((data[index]["pixels"] + 1) * 127.5).round().to(torch.uint8)
    return HandData(pixels, [*data.captions], args.validation_count)


def train_autoencoder(
    args: PretrainingArguments, accelerator: Accelerator, data: HandData
) -> tuple[AutoencoderKL, dict]:
    """Stage 1: images to latents and back."""
    vae = build_vae(args)
    if args.vae_init:
        vae.load_state_dict(AutoencoderKL.from_pretrained(args.vae_init).state_dict())
    loss = AutoencoderLoss(vae, args.vae_gradient_weight, args.vae_kl_weight, args.vae_mixed_precision)
    held_out = data.images(slice(data.train_count, None))

    def draw_batch(indices: list[int], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        # Crops cost less, and each still shows much of a hand; the last steps get the model used to whole images.
        side = args.resolution if step >= args.vae_steps - args.vae_full_steps else args.vae_crop
        top, left = torch.randint(args.resolution - side + 1, (2,), generator=generator).tolist()
        pixels = data.images(indices)[:, :, top : top + side, left : left + side].contiguous()
        noise = torch.randn(len(indices), args.vae_latent_channels, side // 4, side // 4, generator=generator)
        return {"pixels": pixels, "noise": noise}

    def validate(folder: Path, step: int) -> dict[str, float]:
        decoded = torch.cat([reconstruct(vae, part.to(accelerator.device)).cpu() for part in held_out.split(32)])
        pairs = [pixels for pair in zip(held_out[:24], decoded[:24], strict=True) for pixels in pair]
        save_grid([picture(pixels) for pixels in pairs], folder / f"reconstructions-{step:06d}.png", columns=12)
        return {"psnr": peak_signal_to_noise(held_out, decoded).mean().item()}

    learning_rate = cosine_schedule(args.vae_learning_rate, args.warmup_steps, args.vae_steps)
    stage = Stage(
        "vae", 1, loss, args.vae_steps, args.vae_batch_size, learning_rate, draw_batch, validate,
        lambda folder: vae.save_pretrained(folder / "vae"),
    )  # fmt: skip
    return vae, train_stage(stage, args, accelerator, data.train_count, fixed_settings(args, ("text encoder", "UNet")))


def encode_data(args: PretrainingArguments, accelerator: Accelerator, data: HandData, vae: AutoencoderKL) -> Tensor:
    """Stage 2: all images to latents [N, C, h, w], once; then centre the latents and set the scaling factor."""
    target = Path(args.output_dir) / "latents.safetensors"
    if not target.is_file() and accelerator.is_main_process:
        parts = Path(args.output_dir) / "latents"  # kept until all are there: a stopped run goes on from them
        for start in tqdm(range(0, len(data.captions), ENCODED), desc="encoding images"):
            if (part := parts / f"{start:09d}.safetensors").is_file():
                continue
            with accelerator.autocast() if args.vae_mixed_precision else nullcontext():
                means = [
                    encode_means(vae, pixels.to(accelerator.device)).cpu()
                    for pixels in data.images(slice(start, start + ENCODED)).split(64)
                ]
            parts.mkdir(exist_ok=True)
            write_means(torch.cat(means), part)
        write_means(torch.cat([load_file(part)["means"] for part in sorted(parts.glob("*.safetensors"))]), target)
        shutil.rmtree(parts)
    accelerator.wait_for_everyone()
    means = load_file(target)["means"]
    center = means.mean((0, 2, 3))
    scaling_factor = 1 / (means - center.view(-1, 1, 1)).std().item()
    center_latents(vae, center.to(accelerator.device))
    vae.register_to_config(scaling_factor=scaling_factor)
    return (means - center.view(-1, 1, 1)) * scaling_factor


def write_means(means: Tensor, target: Path) -> None:
    with atomic_path(target) as temporary:
        save_file({"means": means.contiguous()}, temporary)


def train_text_encoder(
    args: PretrainingArguments, accelerator: Accelerator, data: HandData, latents: Tensor
) -> tuple[CLIPTokenizer, CLIPTextModel, dict]:
    """Stage 3: the tokenizer, and the text encoder against the latents of the images."""
    tokenizer = train_caption_tokenizer(data.captions[: data.train_count], args.vocabulary_size, args.text_length)
    text_encoder = build_text_encoder(args, tokenizer)
    input_ids = tokenize(tokenizer, data.captions)
    loss = ContrastiveLoss(text_encoder, LatentEncoder(latents.shape[1], latents.shape[-1], args.text_width))
    wrong = None
    if args.wrong_captions:
        wrong = WrongCaptions(data.captions, lambda captions: tokenize(tokenizer, captions), input_ids, args.seed)

    def draw_batch(indices: list[int], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = {"latents": latents[indices], "input_ids": input_ids[indices]}
        return batch if wrong is None else {**batch, "wrong_ids": wrong.draw(indices, generator)}

    def validate(folder: Path, step: int) -> dict[str, float]:
        held_out = slice(data.train_count, None)
        batch = latents[held_out].to(accelerator.device), input_ids[held_out].to(accelerator.device)
        with torch.no_grad():
            scores = {f"validation_{name}": value.item() for name, value in loss(*batch).items()}
            for name, ids in ({} if wrong is None else wrong.kinds).items():
                scores[f"told_{name}"] = loss(*batch, ids[held_out].to(accelerator.device))["told"].item()
        return scores

    learning_rate = cosine_schedule(args.text_learning_rate, args.warmup_steps, args.text_steps)
    stage = Stage(
        "text", 3, loss, args.text_steps, args.text_batch_size, learning_rate, draw_batch, validate,
        lambda folder: text_encoder.save_pretrained(folder / "text_encoder"),
    )  # fmt: skip
    settings = fixed_settings(args, ("UNet",))
    return tokenizer, text_encoder, train_stage(stage, args, accelerator, data.train_count, settings)


def train_denoiser(
    args: PretrainingArguments,
    accelerator: Accelerator,
    data: HandData,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    latents: Tensor,
) -> tuple[StableDiffusionPipeline, dict]:
    """Stage 4: the UNet, on the latents."""
    input_ids = tokenize(tokenizer, data.captions)
    no_caption = tokenize(tokenizer, [""])
    unet = build_unet(args)
    if args.denoiser_init:
        unet.load_state_dict(UNet2DConditionModel.from_pretrained(args.denoiser_init).state_dict())
    pipe = build_pipeline(vae, text_encoder, tokenizer, unet)
    pipe.set_progress_bar_config(disable=True)
    noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    limit = noise_scheduler.config.num_train_timesteps
    loss = TextToImageLoss(unet, text_encoder, noise_scheduler, args.snr_gamma)

    def draw_batch(indices: list[int], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        dropped = torch.rand(len(indices), 1, generator=generator) < args.caption_dropout
        return {
            "latents": latents[indices],
            "noise": torch.randn(len(indices), *latents.shape[1:], generator=generator),
            "timesteps": stratified_timesteps(len(indices), limit, generator, args.timestep_shift),
            "input_ids": torch.where(dropped, no_caption, input_ids[indices]),
        }

    def validate(folder: Path, step: int) -> dict[str, float]:
        generator = step_generator(args.seed, 4, 0)
        held_out = list(range(data.train_count, len(data.captions)))
        losses = []
        with torch.no_grad():
            for start in range(0, len(held_out), 64):
                batch = draw_batch(held_out[start : start + 64], 0, generator)
                losses.append(loss(**{name: value.to(accelerator.device) for name, value in batch.items()})["loss"])
        images = pipe(
            args.sample_prompts,
            height=args.resolution,
            width=args.resolution,
            num_inference_steps=args.inference_steps,
            guidance_scale=args.guidance_scale,
            generator=[torch.Generator().manual_seed(args.seed + number) for number in range(len(args.sample_prompts))],
        ).images
        save_grid(images, folder / f"samples-{step:06d}.png", columns=8)
        return {"validation_loss": torch.stack(losses).mean().item()}

    def learning_rate(step: int) -> float:
        factor = learning_rate_factor(args.denoiser_schedule, step, args.warmup_steps, args.denoiser_steps)
        return args.denoiser_learning_rate * factor

    stage = Stage(
        "denoiser", 2, loss, args.denoiser_steps, args.denoiser_batch_size, learning_rate, draw_batch,
        validate, lambda folder: pipe.save_pretrained(folder / "pipeline"),
    )  # fmt: skip
    return pipe, train_stage(stage, args, accelerator, data.train_count, fixed_settings(args))


def discard_stages(args: PretrainingArguments, accelerator: Accelerator) -> None:
    """Remove what an earlier run's stages made."""
    if accelerator.is_main_process:
        for stage in ("vae", "text", "denoiser"):
            discard_run(Path(args.output_dir) / stage)
        (Path(args.output_dir) / "latents.safetensors").unlink(missing_ok=True)
        shutil.rmtree(Path(args.output_dir) / "latents", ignore_errors=True)
    accelerator.wait_for_everyone()


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """[N, L] integers, padded and truncated as StableDiffusionPipeline does it."""
    return tokenizer(
        captions, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def save_grid(images: list[Image.Image], target: Path, columns: int) -> None:
    with atomic_path(target) as temporary:
        contact_sheet(images, columns=columns, cell=2 * images[0].width).save(temporary, format="PNG")


def package(pipe: StableDiffusionPipeline, args: PretrainingArguments, summary: dict) -> Path:
    """Stage 5: the pipeline in half precision, with its model card, in `output_dir`/pipeline."""
    target = Path(args.output_dir) / "pipeline"
    for model in (pipe.vae, pipe.unet, pipe.text_encoder):
        model.half()
    with atomic_directory(target) as folder:
        pipe.save_pretrained(folder, safe_serialization=True)
        # transformers loads a model in the precision that its config names, diffusers in single precision: without this
        # the loaded parts would not fit together.
        config = folder / "text_encoder" / "config.json"
        write_json(config, {**json.loads(config.read_text(encoding="utf-8")), "dtype": "float32"})
        write_json(folder / GENERATION_CONFIG, {"guidance_scale": args.guidance_scale})
        write_text(folder / "README.md", write_model_card(args, summary))
    return target


def main() -> None:
    args = parse_arguments(PretrainingArguments)
    accelerator = build_accelerator(args.output_dir, args.mixed_precision, 1, args.report_to)
    if accelerator.log_with:
        accelerator.init_trackers("pretrain")
    summary_file = Path(args.output_dir) / "summary.json"
    if args.overwrite:
        discard_stages(args, accelerator)
    data = load_data(args, accelerator)
    summary: dict = {
        "settings": asdict(args),
        "images": len(data.captions),
        "torch": torch.__version__,
        "machine": f"{torch.get_num_threads()} CPU threads" if accelerator.device.type == "cpu" else "a GPU",
    }

    def report(name: str, values: dict) -> bool:
        """Note a stage's figures. Returns whether the run goes on after it."""
        summary[name] = values
        if accelerator.is_main_process:
            write_json(summary_file, summary)
        return values.get("finished", True) and args.stage != name

    set_seed(args.seed)
    vae, values = train_autoencoder(args, accelerator, data)
    if not report("vae", values):
        return
    vae.requires_grad_(False).eval()
    latents = encode_data(args, accelerator, data, vae)
    if not report("latents", {"scaling_factor": vae.config.scaling_factor}):
        return
    set_seed(args.seed)
    tokenizer, text_encoder, values = train_text_encoder(args, accelerator, data, latents)
    if not report("text", values):
        return
    text_encoder.requires_grad_(False).eval().to(accelerator.device)
    set_seed(args.seed)
    pipe, values = train_denoiser(args, accelerator, data, vae, tokenizer, text_encoder, latents)
    models = {"autoencoder": vae, "UNet": pipe.unet, "text encoder": pipe.text_encoder}
    summary["parameters"] = {name: model.num_parameters() for name, model in models.items()}
    ended = report("denoiser", values)
    if (ended or args.package_unfinished) and accelerator.is_main_process:
        print(f"wrote {package(pipe, args, summary)}")
    end_run(accelerator)


if __name__ == "__main__":
    run_script(main)
