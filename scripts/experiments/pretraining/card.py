"""The model card of a pipeline that scripts/experiments/pretraining/run.py made."""

from typing import Any

from .arguments import PretrainingArguments


def write_model_card(args: PretrainingArguments, summary: dict[str, Any], scores: str = "") -> str:
    """Markdown with the figures of a run's `summary` (keys: images, parameters, torch, vae, latents, text, denoiser).

    Args:
        scores: Markdown about the quality of the images, put in as it is.
    """
    vae, text, denoiser = summary["vae"], summary["text"], summary["denoiser"]
    begun = " It began from the weights of an earlier UNet (`--denoiser-init`)." if args.denoiser_init else ""
    warm = " It began from the weights of an earlier one (`--vae-init`)." if args.vae_init else ""
    planned = "" if denoiser["finished"] else f" of {args.denoiser_steps:,}"
    counts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in summary["parameters"].items())
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion, hands, synthetic]
---

# Hands, {args.resolution} pixels

{args.model_note} The images have {args.resolution}x{args.resolution} pixels. With it the examples and tests of
`geopos_diffusers` need no download.

```python
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("geopos_diffusers/pretrained/{args.model_name}")
prompt = "a photo of the palm of a left hand, three fingers raised, dark skin, on a blue background"
image = pipe(prompt, num_inference_steps={args.inference_steps}, guidance_scale={args.guidance_scale:g}).images[0]
```

The scheduler is DPM-Solver++; the velocity is predicted; the latents have {args.vae_latent_channels} channels and a
quarter of the resolution. The weights are stored in half precision.
Parameters: {counts}.

## How it was made
- Data: {summary["images"]:,} images, the last {args.validation_count} of them held out. {args.data_note}
- Training: `accelerate launch -m scripts.experiments.pretraining.run --config CONFIG --dataset DATA --output RUN`, with
  the file of configs/experiments whose `model_name` is {args.model_name},
  seed {args.seed}, torch {summary["torch"]}, on {summary["machine"]}.
- Autoencoder: {vae["steps"]:,} steps of {args.vae_batch_size} crops of {args.vae_crop} pixels (whole images in the last
  {args.vae_full_steps:,}), {vae["seconds"] / 60:.0f} minutes.{warm} It restores held-out images at
  {vae["psnr"]:.1f} dB.
- Text encoder: {text["steps"]:,} steps of {args.text_batch_size} pairs of a caption and an image's latents, told apart
  as CLIP does it, {text["seconds"] / 60:.0f} minutes. Of {args.validation_count} held-out images
  {text["validation_accuracy"]:.0%} are nearest to their own caption.
- UNet, the text encoder frozen: {denoiser["steps"]:,}{planned} steps of {args.denoiser_batch_size},
  {denoiser["seconds"] / 60:.0f} minutes, loss on held-out images {denoiser["validation_loss"]:.4f}.{begun}

{scores}## Limits
{args.limits_note} It has no notion of anything else, and any other words of a prompt are ignored or disturb the image.
It is meant for trying and measuring methods, not for pictures of people.
"""
