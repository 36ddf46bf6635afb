"""The options of `geopos train unconditional`, checked before anything is loaded."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import ConfigError
from .data_options import ImageDataArguments, data_option
from .denoising_options import DenoisingArguments
from .frame_options import FrameArguments
from .part_options import ATTENTION_PROJECTIONS, trained_option
from .training_options import optimisation_option, validation_option


@dataclass(kw_only=True)
class UnconditionalArguments(DenoisingArguments, FrameArguments, ImageDataArguments):
    """Fine-tune, or train from random weights, a UNet2DModel on images without captions, or on classes of images.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """

    # Small UNets have hardly any attention.
    LORA_TARGETS: ClassVar[tuple[str, ...]] = (*ATTENTION_PROJECTIONS, "conv1", "conv2")

    model: str | None = trained_option(  # type: ignore[assignment]
        None,
        "model to fine-tune: a folder or Hub id of a DDPMPipeline, DDIMPipeline or bare UNet2DModel",
        resume="fixed",
        common=True,
        at_least=1,
    )
    model_config: str | None = trained_option(
        None,
        "in the place of model: JSON file with a UNet2DModel's configuration, which begins with random weights of seed",
        resume="fixed",
        common=True,
        at_least=1,
    )
    class_column: str | None = data_option(
        None, "column, or field of metadata.jsonl, with the number of each image's class", resume="fixed", common=True
    )
    class_dropout: float = data_option(
        0.0,
        "share of classes replaced by the model's last one, which stands for no class, for guidance",
        resume="fixed",
        at_least=0,
        at_most=1,
    )
    validation_grid: int = validation_option(
        16, "images of each grid; with classes all of them in turn; 0 draws none", resume="free", at_least=0
    )
    validation_guidance_scale: float = validation_option(
        1.0, "classifier-free guidance of these images; needs class-dropout", resume="free", at_least=0
    )
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] | None = optimisation_option(
        None, "noise schedule of a model without a scheduler of its own; by default linear, as DDPM's", resume="fixed"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.model is None) == (self.model_config is None):
            raise ConfigError("give model, a folder or Hub id, or model_config, a JSON file; not both")
        if self.model_config is not None and "full" not in self.parts:
            raise ConfigError(
                f"model_config begins with random weights, which train={self.train} would leave as they are; "
                "give train full, or full+geoconv"
            )
        if self.streaming and self.class_column is not None:
            raise ConfigError("class_column needs to know all images before training, so it cannot go with streaming")
        if self.class_column is None and self.class_dropout:
            raise ConfigError("class_dropout needs class_column")
        if self.validation_guidance_scale != 1 and not self.class_dropout:
            raise ConfigError("validation_guidance_scale needs class_dropout: guidance needs a model of no class")
