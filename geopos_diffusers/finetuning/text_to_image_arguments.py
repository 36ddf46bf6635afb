"""The options of `geopos train text-to-image`, checked before anything is loaded."""

from dataclasses import dataclass

from .data_options import CaptionedDataArguments
from .denoising_options import PromptArguments


@dataclass(kw_only=True)
class TextToImageArguments(PromptArguments, CaptionedDataArguments):
    """Fine-tune a text-to-image pipeline on images with captions.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """
