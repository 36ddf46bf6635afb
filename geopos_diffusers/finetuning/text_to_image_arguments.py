"""The options of `geopos train text-to-image`, checked before anything is loaded."""

from dataclasses import dataclass
from typing import ClassVar

from .data_options import CaptionedDataArguments
from .denoising_options import PromptArguments
from .flow_options import FlowMatchingArguments
from .frame_options import FrameArguments
from .inpainting_options import InpaintingArguments
from .part_options import ATTENTION_PROJECTIONS
from .prior_options import PriorArguments
from .text_encoder_options import TextEncoderArguments


@dataclass(kw_only=True)
class TextToImageArguments(
    PromptArguments,
    CaptionedDataArguments,
    FrameArguments,
    InpaintingArguments,
    FlowMatchingArguments,
    TextEncoderArguments,
    PriorArguments,
):
    """Fine-tune a text-to-image pipeline on images with captions.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """

    COMPONENTS: ClassVar[tuple[str, ...]] = ("unet", "transformer")
    # The second four are those of SD3's text stream; no UNet that is trained here has layers of these names.
    LORA_TARGETS: ClassVar[tuple[str, ...]] = (
        *ATTENTION_PROJECTIONS,
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    )
