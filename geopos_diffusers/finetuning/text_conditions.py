"""What the denoiser is told about a caption: encoded at each step, or once before training."""

import gc
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from .text_families import FAMILIES, Parts, TextFamily

logger = logging.getLogger(__name__)


def text_family(pipe: Any) -> TextFamily:
    """How a supported pipeline encodes captions."""
    return FAMILIES[type(pipe).__name__]


def warn_of_long_captions(pipe: Any, captions: Sequence[str]) -> int:
    """Say once how many captions have more tokens than the pipeline's text encoder reads. Returns their number."""
    tokenizer, limit = text_family(pipe).reader(pipe)
    tokens = tokenizer(list(captions), truncation=True, max_length=limit + 1).input_ids
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
        self.pipe, self.device, self.family = pipe, device, text_family(pipe)
        self.kept: dict[str, Parts] = {}
        self.freed = False
        with torch.no_grad(), only_errors_logged():
            self.empty = self.family.encode_empty(pipe, device)
        self._empty_is_zero = not any(part.any() for part in self.empty)

    def __call__(
        self, captions: Sequence[str], sizes: Tensor, dropout: float = 0.0, parts: Parts | None = None
    ) -> dict[str, Any]:
        """Keyword arguments for the denoiser.

        Args:
            captions: B texts. sizes: [B, 6] original height and width, crop top and left, target height and width, in
                pixels (SDXL's time ids, section 2.2 of arXiv 2307.01952).
            dropout: chance that a caption is replaced by the empty one, drawn from the device's global generator.
            parts: what `encode` returns for the captions, where it is known.
        """
        parts = self.encode(captions) if parts is None else parts
        if dropout > 0:
            dropped = self.draw_dropped(len(parts[0]), dropout)
            parts = tuple(
                torch.where(dropped.view(-1, *[1] * (part.ndim - 1)), empty, part)
                for part, empty in zip(parts, self.empty, strict=True)
            )
        return self.family.conditions(parts, sizes)

    def draw_dropped(self, count: int, dropout: float) -> Tensor:
        """[count] booleans: the captions that are replaced by the empty one."""
        return torch.rand(count, device=self.device) < dropout

    def conditions_with_gradient(self, captions: Sequence[str], sizes: Tensor, dropped: Tensor) -> dict[str, Any]:
        """Keyword arguments for the denoiser, with gradients to the text encoders, whose weights change."""
        texts = ["" if gone else caption for caption, gone in zip(captions, dropped.tolist(), strict=True)]
        with only_errors_logged():
            parts = self.family.encode(self.pipe, texts, self.device)
        if self._empty_is_zero:  # whatever the weights are
            kept = ~dropped
            parts = tuple(part * kept.view(-1, *[1] * (part.ndim - 1)) for part in parts)
        return self.family.conditions(parts, sizes)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Parts:
        """Tensors [B, ...] in the order of the family's PARTS."""
        if self.freed:
            rows = zip(*(self.kept[caption] for caption in captions), strict=True)
            return tuple(torch.stack(row).to(self.device) for row in rows)
        with only_errors_logged():  # a warning of every caption that is too long would come at every step
            return self.family.encode(self.pipe, captions, self.device)

    def keep(self, captions: Iterable[str]) -> None:
        """Encode captions once, and free the text encoders: from now on these captions alone can be encoded.

        Args:
            captions: all that is encoded later. Their encodings stay in memory.
        """
        self.kept = {
            caption: tuple(part[0].cpu() for part in self.encode([caption])) for caption in dict.fromkeys(captions)
        }
        self.pipe.register_modules(**dict.fromkeys(self.family.TEXT_ENCODERS))
        self.freed = True
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def call_arguments(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Arguments of the pipeline's call that draw prompts: the texts, or their encodings where these are kept."""
        options = self.family.call_options()
        if not self.freed:
            return {"prompt": list(prompts), **options}
        options["negative_prompt"] = None  # of which some pipelines have another default
        for name, part, empty in zip(self.family.PARTS, self.encode(prompts), self.empty, strict=True):
            options |= {name: part, f"negative_{name}": empty.expand_as(part)}
        return options


def predict(denoiser: Any, noisy: Tensor, timesteps: Tensor, conditions: dict[str, Any]) -> Tensor:
    """The output of a UNet or a transformer, [B, C, h, w]."""
    # By name: their arguments have different orders.
    return denoiser(noisy.to(conditions["encoder_hidden_states"].dtype), timestep=timesteps, **conditions).sample
