"""The options of training with frames: coordinates that are counted from a box of each image."""

from dataclasses import dataclass, replace

from ..errors import ConfigError
from ..patching.config import GeoConvConfig
from .data_options import data_option
from .part_options import PartArguments


@dataclass(kw_only=True)
class FrameArguments(PartArguments):
    """Where the boxes are, and how they are varied.

    Raises:
        ConfigError: nothing that is trained has coordinates that a frame could change.
    """

    # The boxes themselves are part of the data's fingerprint.
    frame_column: str | None = data_option(
        None,
        "column of boxes [x0, y0, x1, y1] in shares of the image, which the coordinates are counted from",
        resume="free",
        at_least=1,
    )
    frame_dropout: float = data_option(
        0.0,
        "share of images trained in the mean box, for generating without a box",
        resume="fixed",
        at_least=0,
        at_most=1,
    )
    frame_jitter: float = data_option(
        0.0,
        "by up to which share of its size a box's middle is moved and its width and height changed, at random",
        resume="fixed",
        at_least=0,
        at_most=0.9,
    )

    frame_limit: float | None = data_option(
        None,
        "where coordinates in frames are cut off, in half sizes of the box from its middle; None: they go on",
        resume="fixed",
        at_least=1,
    )
    frame_window: bool = data_option(
        False, "add the geometry term inside the box alone, so that outside it the base works as before", resume="fixed"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frame_column is None:
            self.check_unused(("frame_dropout", "frame_jitter", "frame_limit", "frame_window"), "frame_column")
            return
        if "geoconv" not in self.parts:
            raise ConfigError(f"frame_column needs geometry weights, and train={self.train} has none; add +geoconv")
        config = self.geoconv_config()
        if config.normalization != "unit" or config.encoding == "constant":
            raise ConfigError(
                "frame_column needs coordinates of normalization unit; this run has "
                f"encoding {config.encoding} and normalization {config.normalization}"
            )

    def geoconv_config(self, component: str | None = None) -> GeoConvConfig:
        return replace(super().geoconv_config(component), frame_limit=self.frame_limit, frame_window=self.frame_window)
