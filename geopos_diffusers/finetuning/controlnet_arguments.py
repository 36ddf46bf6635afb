"""The options of `geopos train controlnet`, checked before anything is loaded."""

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from .data_options import CaptionedDataArguments, data_option
from .denoising_options import DenoisingArguments
from .frame_options import FrameArguments
from .part_options import ATTENTION_PROJECTIONS, trained_option
from .training_options import validation_option


@dataclass(kw_only=True)
class ControlNetArguments(DenoisingArguments, FrameArguments, CaptionedDataArguments):
    """Train a ControlNet of a text-to-image pipeline on images with captions and conditioning images.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """

    COMPONENTS: ClassVar[tuple[str, ...]] = ("controlnet",)
    # As LORA_TARGETS of UNets; many ControlNets have attention in some blocks only.
    LORA_TARGETS: ClassVar[tuple[str, ...]] = ATTENTION_PROJECTIONS

    train: str = trained_option(
        "full",
        "what is trained of the ControlNet, joined by +: full, geoconv (geometry weights), bias, lora; without "
        "controlnet full must be among them",
        resume="fixed",
        common=True,
    )
    controlnet: str | None = trained_option(
        None,
        "ControlNet to go on with: a folder or Hub id; by default a new one with the UNet's weights",
        resume="fixed",
        common=True,
        at_least=1,
    )
    conditioning_column: str = data_option(
        "conditioning_image",
        "column of the conditioning images, or field of metadata.jsonl that names their files",
        resume="free",
        common=True,
    )
    keypoints_column: str | None = data_option(
        None,
        "column of 21 [x, y] in pixels of each image's hand; with it the joint error of drawn hands is measured",
        resume="free",
    )
    validation_grid: int = validation_option(
        4,
        "images of each grid, drawn under held-out conditions if there are any; 0 draws none",
        resume="free",
        at_least=0,
    )
    validation_guidance_scale: float | None = validation_option(
        None, "classifier-free guidance of drawn images; by default the model's own, else 5", resume="free", at_least=0
    )
    joint_error_images: int = validation_option(
        32, "images of each measurement of the joint error", resume="free", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("streaming", "cache_text_embeddings"):
            if getattr(self, name):
                raise ConfigError(f"{name} is not offered by geopos train controlnet")
        if self.controlnet is None and "full" not in self.parts:
            raise ConfigError(
                f"a new ControlNet begins with zero convolutions, which hold train={self.train} back from learning; "
                "give train full or full+geoconv, or a controlnet to go on with"
            )
