"""A UNet whose convolutions pad their input in another way than with zeros: measured, trained and drawn with.

Zeros at the borders tell a UNet where a pixel is (arXiv 2503.09830). With circular padding nothing does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from geopos_diffusers.finetuning.engine import finetune
from geopos_diffusers.finetuning.kinds import DEFAULT, Kind
from geopos_diffusers.finetuning.learning_rate_sweep import HeldOut, load_trained
from geopos_diffusers.finetuning.text_to_image import TextToImage


def set_padding(model: nn.Module, mode: str) -> None:
    """Have all convolutions of a model pad their input in another mode: "circular", "replicate" or "reflect"."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = mode


def load_padded(model: str, padding: str | None, trained: Path | None = None) -> Any:
    """The pipeline with what a run saved, its UNet in another mode of padding where one is given."""
    pipe = load_trained(model, trained)
    if padding is not None:
        set_padding(pipe.unet, padding)  # which a run may have saved whole, without its padding
    return pipe


@dataclass(frozen=True)
class PaddedHeldOut(HeldOut):
    """The same loss under another padding. padding: its mode; None for that of the model."""

    padding: str | None = None

    def load(self, model: str, trained: Path | None) -> Any:
        """The pipeline with what a run saved, padded so."""
        return load_padded(model, self.padding, trained)


def padded_training(padding: str | None) -> Kind:
    """What trains a text-to-image pipeline with another padding; where none is given, as `geopos train` does."""
    return DEFAULT if padding is None else partial(train_padded, padding)


def train_padded(padding: str, argv: Sequence[str]) -> None:
    """`geopos train text-to-image` with a mode of padding."""

    class PaddedTextToImage(TextToImage):
        def load_pipeline(self) -> Any:
            pipe = super().load_pipeline()
            set_padding(pipe.unet, padding)
            return pipe

    finetune(PaddedTextToImage, argv)
