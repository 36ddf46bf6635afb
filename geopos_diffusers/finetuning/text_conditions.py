"""What the denoiser is told about a caption, for pipelines with one text encoder (SD) and with two (SDXL)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from ..errors import ConfigError

logger = logging.getLogger(__name__)
SUPPORTED_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def check_supported(pipe: Any) -> None:
    """Raise ConfigError unless `pipe` is one of the pipelines that the fine-tuning script can train."""
    name = type(pipe).__name__
    # Inpainting and image-to-image checkpoints share these classes but feed the UNet more channels.
    if name not in SUPPORTED_PIPELINES or pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise ConfigError(
            f"{name} cannot be fine-tuned here; supported are text-to-image pipelines of the kinds "
            f"{', '.join(SUPPORTED_PIPELINES)} (UNet2DConditionModel with CLIP text encoders)"
        )
    if pipe.text_encoder is None:
        raise ConfigError(f"this {name} has no text encoder (as SDXL refiners have none) and cannot be fine-tuned here")
    if "FlowMatch" in type(pipe.scheduler).__name__:
        raise ConfigError(f"models with a {type(pipe.scheduler).__name__} (flow matching) cannot be fine-tuned here")


def warn_of_long_captions(pipe: Any, captions: Sequence[str]) -> int:
    """Say once how many captions have more tokens than the pipeline's text encoder reads. Returns their number."""
    limit = pipe.tokenizer.model_max_length
    tokens = pipe.tokenizer(list(captions), truncation=True, max_length=limit + 1).input_ids
    count = sum(len(ids) > limit for ids in tokens)
    if count:
        logger.warning(
            "%d of %d captions are longer than the %d tokens that the text encoder reads; their ends are ignored",
            *(count, len(captions), limit),
        )
    return count


@contextmanager
def only_errors_logged() -> Iterator[None]:
    """diffusers and transformers log nothing below errors within the block."""
    libraries = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
        yield
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)


class CaptionEncoder:
    """Turns captions into the denoiser's keyword arguments, through the pipeline's own `encode_prompt`.

    Args:
        pipe: a supported pipeline whose text encoders are on `device`.
        device: where captions are encoded.
    """

    def __init__(self, pipe: Any, device: torch.device) -> None:
        self.pipe, self.device = pipe, device
        self.is_xl = type(pipe).__name__ == "StableDiffusionXLPipeline"
        self.empty = self.encode([""])
        if self.is_xl and pipe.config.force_zeros_for_empty_prompt:
            # At inference SDXL's unconditional half is all zeros, not the encoding of "".
            self.empty = tuple(torch.zeros_like(part) for part in self.empty)

    def __call__(
        self, captions: Sequence[str], sizes: Tensor, dropout: float = 0.0, parts: tuple[Tensor, ...] | None = None
    ) -> dict[str, Any]:
        """Keyword arguments for the UNet.

        Args:
            captions: B texts. sizes: [B, 6] original height and width, crop top and left, target height and width, in
                pixels (SDXL's time ids, section 2.2 of arXiv 2307.01952).
            parts: what `encode` returns for the captions, where it is known.
            dropout: chance that a caption is replaced by the empty one, drawn from the device's global generator.
        """
        parts = self.encode(captions) if parts is None else parts
        if dropout > 0:
            dropped = torch.rand(len(captions), device=self.device) < dropout
            parts = tuple(
                torch.where(dropped.view(-1, *[1] * (part.ndim - 1)), empty, part)
                for part, empty in zip(parts, self.empty, strict=True)
            )
        conditions: dict[str, Any] = {"encoder_hidden_states": parts[0]}
        if self.is_xl:
            conditions["added_cond_kwargs"] = {"text_embeds": parts[1], "time_ids": sizes.to(self.device)}
        return conditions

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, ...]:
        """The embeddings [B, L, D] and, of SDXL, the pooled ones [B, D]."""
        with only_errors_logged():  # a warning of every caption that is too long would come at every step
            encoded = self.pipe.encode_prompt(
                prompt=list(captions), device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        # SD returns (embeddings, negative); SDXL (embeddings, negative, pooled, negative pooled).
        return (encoded[0], encoded[2]) if self.is_xl else (encoded[0],)
