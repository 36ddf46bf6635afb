"""How each family of pipelines encodes captions, and what its denoiser is told of them."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

Parts = tuple[Tensor, ...]


class TextFamily(ABC):
    """Encodes through the pipeline's own `encode_prompt`.

    PARTS: what the pipeline's call names the tensors that a caption becomes; their negatives have negative_ before.
    TEXT_ENCODERS: its components that read captions. UNREAD_LAYERS: for each of these, how many of its last layers
        nothing reads the output of; empty where they are not all CLIP's.
    """

    PARTS: ClassVar[tuple[str, ...]]
    TEXT_ENCODERS: ClassVar[tuple[str, ...]]
    UNREAD_LAYERS: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def encode(self, pipe: Any, captions: Sequence[str], device: torch.device) -> Parts:
        """Tensors [B, ...] in the order of PARTS."""

    def encode_empty(self, pipe: Any, device: torch.device) -> Parts:
        """What the unconditional half of guidance is given at inference: rows of one."""
        return self.encode(pipe, [""], device)

    @abstractmethod
    def conditions(self, parts: Parts, sizes: Tensor) -> dict[str, Any]:
        """Keyword arguments of the denoiser. sizes: see `CaptionEncoder`."""

    def reader(self, pipe: Any) -> tuple[Any, int]:
        """The tokenizer of the encoder that reads the most of a caption, and its limit in tokens."""
        return pipe.tokenizer, pipe.tokenizer.model_max_length

    def call_options(self) -> dict[str, Any]:
        """Further arguments of the pipeline's call for images of exactly the size that is asked for."""
        return {}


class StableDiffusionText(TextFamily):
    """One CLIP encoder."""

    PARTS = ("prompt_embeds",)
    TEXT_ENCODERS = ("text_encoder",)
    UNREAD_LAYERS = (0,)

    def encode(self, pipe: Any, captions: Sequence[str], device: torch.device) -> Parts:
        return (_encode(pipe, captions, device)[0],)

    def conditions(self, parts: Parts, sizes: Tensor) -> dict[str, Any]:
        return {"encoder_hidden_states": parts[0]}


class StableDiffusionXLText(TextFamily):
    """Two CLIP encoders, a pooled embedding, and the sizes of the image."""

    PARTS = ("prompt_embeds", "pooled_prompt_embeds")
    TEXT_ENCODERS = ("text_encoder", "text_encoder_2")
    UNREAD_LAYERS = (1, 0)  # the last but one states of both, and the second's pooled output

    def encode(self, pipe: Any, captions: Sequence[str], device: torch.device) -> Parts:
        embeddings, _, pooled, _ = _encode(pipe, captions, device)
        return embeddings, pooled

    def encode_empty(self, pipe: Any, device: torch.device) -> Parts:
        """All zeros where the pipeline's unconditional half is that instead of the encoding of ""."""
        parts = super().encode_empty(pipe, device)
        return tuple(map(torch.zeros_like, parts)) if pipe.config.force_zeros_for_empty_prompt else parts

    def conditions(self, parts: Parts, sizes: Tensor) -> dict[str, Any]:
        return {
            "encoder_hidden_states": parts[0],
            "added_cond_kwargs": {"text_embeds": parts[1], "time_ids": sizes.to(parts[0].device)},
        }


class StableDiffusion3Text(TextFamily):
    """Two CLIP encoders, T5 where the pipeline has it (zeros where not), and a pooled embedding."""

    PARTS = ("prompt_embeds", "pooled_prompt_embeds")
    TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

    def encode(self, pipe: Any, captions: Sequence[str], device: torch.device) -> Parts:
        embeddings, _, pooled, _ = _encode(pipe, captions, device, prompt_2=None, prompt_3=None)
        return embeddings, pooled

    def conditions(self, parts: Parts, sizes: Tensor) -> dict[str, Any]:
        return {"encoder_hidden_states": parts[0], "pooled_projections": parts[1]}

    def reader(self, pipe: Any) -> tuple[Any, int]:
        if pipe.text_encoder_3 is None:
            return super().reader(pipe)
        return pipe.tokenizer_3, _default(type(pipe).encode_prompt, "max_sequence_length")


class SanaText(TextFamily):
    """Gemma, after the instruction that the pipeline puts before every prompt, and its mask."""

    PARTS = ("prompt_embeds", "prompt_attention_mask")
    TEXT_ENCODERS = ("text_encoder",)

    def encode(self, pipe: Any, captions: Sequence[str], device: torch.device) -> Parts:
        instruction = _default(type(pipe).__call__, "complex_human_instruction")
        return _encode(pipe, captions, device, complex_human_instruction=instruction)[:2]

    def encode_empty(self, pipe: Any, device: torch.device) -> Parts:
        """Without the instruction, as the pipeline encodes negative prompts."""
        return _encode(pipe, [""], device)[:2]

    def conditions(self, parts: Parts, sizes: Tensor) -> dict[str, Any]:
        return {"encoder_hidden_states": parts[0], "encoder_attention_mask": parts[1]}

    def reader(self, pipe: Any) -> tuple[Any, int]:
        return pipe.tokenizer, _default(type(pipe).encode_prompt, "max_sequence_length")

    def call_options(self) -> dict[str, Any]:
        return {"use_resolution_binning": False}


FAMILIES: dict[str, TextFamily] = {
    "StableDiffusionPipeline": StableDiffusionText(),
    "StableDiffusionXLPipeline": StableDiffusionXLText(),
    "StableDiffusionInpaintPipeline": StableDiffusionText(),
    "StableDiffusionXLInpaintPipeline": StableDiffusionXLText(),
    "StableDiffusion3Pipeline": StableDiffusion3Text(),
    "SanaPipeline": SanaText(),
}


def _encode(pipe: Any, captions: Sequence[str], device: torch.device, **more: Any) -> tuple[Any, ...]:
    return pipe.encode_prompt(
        prompt=list(captions), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False, **more
    )


def _default(function: Any, name: str) -> Any:
    """A parameter's default, so that captions are encoded as the pipeline encodes prompts."""
    return inspect.signature(function).parameters[name].default
