"""The options of LoRA in the text encoders."""

from dataclasses import dataclass

from ..errors import ConfigError
from .part_options import PartArguments, trained_option
from .training_options import optimisation_option

TEXT_ENCODER_RATE = 1e-4  # usual for CLIP; not swept here


@dataclass(kw_only=True)
class TextEncoderArguments(PartArguments):
    """LoRA on the attention of the CLIP encoders, beside what is trained of the denoiser."""

    train_text_encoder: bool | None = trained_option(
        None,
        "train LoRA factors of the CLIP text encoders too (Stable Diffusion and SDXL)",
        resume="fixed",
    )
    text_encoder_lora_rank: int | None = trained_option(
        None, "rank of these factors; by default lora-rank", resume="fixed", at_least=1
    )
    text_encoder_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of these factors; by default 1e-4, which was not swept", resume="free", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_text_encoder:
            if getattr(self, "cache_text_embeddings", False):
                raise ConfigError("train_text_encoder encodes captions at each step; leave cache_text_embeddings out")
            if getattr(self, "compile", False):
                raise ConfigError("compile cannot go with train_text_encoder, which tokenizes at each step")
            return
        self.check_unused(("text_encoder_lora_rank", "text_encoder_learning_rate"), "train_text_encoder")

    @property
    def rated_parts(self) -> tuple[str, ...]:
        return (*self.parts, "text_encoder") if self.train_text_encoder else self.parts

    def peak_learning_rate(self, part: str) -> float:
        if part == "text_encoder":
            return self.text_encoder_learning_rate or TEXT_ENCODER_RATE
        return super().peak_learning_rate(part)
