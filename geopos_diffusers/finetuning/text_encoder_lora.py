"""LoRA in CLIP text encoders, trained together with the denoiser that reads them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter

from ..errors import ConfigError
from .lora import ADAPTER
from .text_conditions import CaptionEncoder, predict, text_family
from .text_encoder_options import TextEncoderArguments

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def add_text_encoder_lora(pipe: Any, args: TextEncoderArguments) -> dict[str, Parameter]:
    """Add factors that change nothing yet to the attention of the pipeline's CLIP encoders.

    Layers whose output the denoiser never sees get none.

    Returns:
        The factors in float32, by the encoder's name and theirs in it.

    Raises:
        ConfigError: a pipeline with other encoders than CLIP's.
    """
    family = text_family(pipe)
    if not family.UNREAD_LAYERS:
        raise ConfigError(f"train_text_encoder is for Stable Diffusion and SDXL; the model is a {type(pipe).__name__}")
    from peft import LoraConfig

    rank, parameters = args.text_encoder_lora_rank or args.lora_rank, {}
    for name, unread in zip(family.TEXT_ENCODERS, family.UNREAD_LAYERS, strict=True):
        encoder = getattr(pipe, name)
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            target_modules=list(PROJECTIONS),
            layers_to_transform=list(range(encoder.config.num_hidden_layers - unread)),
            layers_pattern="layers",
            init_lora_weights="gaussian",
        )
        encoder.add_adapter(config, ADAPTER)
        if args.gradient_checkpointing:
            encoder.gradient_checkpointing_enable({"use_reentrant": False})
        for key, parameter in encoder.named_parameters():
            parameter.requires_grad_("lora_" in key)
            if parameter.requires_grad:
                parameter.data = parameter.data.float().to(encoder.device)
                parameters[f"{name}.{key}"] = parameter
    return parameters


class EncodedDenoiser(nn.Module):
    """Text encoders and denoiser as one model, so that several processes exchange the gradients of all of them."""

    def __init__(self, denoiser: nn.Module, encoder: CaptionEncoder) -> None:
        super().__init__()
        self.denoiser = denoiser
        names = encoder.family.TEXT_ENCODERS
        self.text_encoders = nn.ModuleList(getattr(encoder.pipe, name) for name in names)
        self._encoder = encoder

    def forward(
        self, noisy: Tensor, timesteps: Tensor, captions: Sequence[str], sizes: Tensor, dropped: Tensor
    ) -> Tensor:
        """The denoiser's prediction, [B, C, h, w], with gradients to the encoders.

        Args:
            noisy: [B, C, h, w]. timesteps: [B]. captions, sizes: see `CaptionEncoder`. dropped: [B], the captions to
                replace by the empty one.
        """
        conditions = self._encoder.conditions_with_gradient(captions, sizes, dropped)
        return predict(self.denoiser, noisy, timesteps, conditions)
