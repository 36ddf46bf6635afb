"""The options of inpainting UNets."""

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .data_options import ImageDataArguments, data_option


@dataclass(kw_only=True)
class InpaintingArguments(ImageDataArguments):
    """What of each image an inpainting UNet redraws."""

    inpaint_masks: Literal["random", "column"] | None = data_option(
        None,
        "what inpainting models redraw: random rectangles and strokes (the default), or the masks of mask-column, "
        "which then do not weight the loss",
        resume="fixed",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inpaint_masks == "column" and self.mask_column is None:
            raise ConfigError("inpaint_masks column needs mask_column")
        if self.inpaint_masks == "column":
            self.check_unused(("mask_weight", "mask_floor"), "inpaint_masks random")
