"""Parts of a trained adapter's geometry weights taken away, or its coordinates shifted: what the held-out loss does."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from geopos_diffusers.patching.framing import geoconv_frames
from geopos_diffusers.patching.patched_model import geometry_layers

from .encoded_images import EncodedImages

# Which of the coefficients of 1, x, y and xy are kept.
KEPT_TERMS = {
    "whole adapter": (1, 1, 1, 1),
    "constant terms alone": (1, 0, 0, 0),
    "non-constant terms alone": (0, 1, 1, 1),
    "linear terms alone": (0, 1, 1, 0),
    "all terms but the product": (1, 1, 1, 0),
}
WHOLE = "whole adapter"
SHIFTS = (0.25, 1.0)  # of coordinates, -1 to 1 over the image
DROPPED, ALONE = "dropped", "alone"


@contextmanager
def kept_weights(model: nn.Module, factors: Mapping[str, Sequence[float]]) -> Iterator[None]:
    """Within the block each layer's coefficients are multiplied by its four factors; those of other layers are 0."""
    layers = geometry_layers(model)
    weights = {name: layer.geo_weight.detach().clone() for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.geo_weight.data.mul_(torch.tensor(factors.get(name, (0, 0, 0, 0))))
        yield
    finally:
        for name, layer in layers.items():
            layer.geo_weight.data.copy_(weights[name])


def shift_frame(x: float, y: float) -> Tensor:
    """A frame [1, 2, 2] in which each coordinate is that of the image plus a shift."""
    return torch.tensor([[[-y, -x], [1.0, 1.0]]])


class Ablations:
    """Ratios of the mean held-out loss to the base's.

    base: that loss. layers: of the patched model, all of them, in the order of the scores.
    """

    def __init__(self, images: EncodedImages, base: float, layers: Sequence[str]) -> None:
        self.images, self.model, self.base, self.layers = images, images.model, base, layers

    def ratio(self) -> float:
        """Of the model as it is now."""
        return float(self.images.losses().mean()) / self.base

    def ratio_with(self, factors: Mapping[str, Sequence[float]]) -> float:
        with kept_weights(self.model, factors):
            return self.ratio()

    def removal(self) -> dict[str, float]:
        """With some terms alone, in all layers."""
        return {name: self.ratio_with(dict.fromkeys(self.layers, terms)) for name, terms in KEPT_TERMS.items()}

    def one_layer(self, whole: float) -> dict[str, float]:
        """For each layer, two differences that its weights make.

        "dropped": the ratio without this layer's weights minus `whole`, that with all; above 0 where they help the
        others. "alone": the ratio with this layer's weights alone minus 1, the base's; below 0 where they help.
        """
        every, scores = dict.fromkeys(self.layers, KEPT_TERMS[WHOLE]), {}
        for name in self.layers:
            others = {other: factors for other, factors in every.items() if other != name}
            scores[f"{name} {DROPPED}"] = self.ratio_with(others) - whole
            scores[f"{name} {ALONE}"] = self.ratio_with({name: every[name]}) - 1
        return scores

    def shifted(self) -> dict[str, float]:
        """With coordinates shifted along one axis, both ways."""
        scores = {}
        for axis in ("x", "y"):
            for size in (sign * shift for shift in SHIFTS for sign in (1, -1)):
                with geoconv_frames(self.model, shift_frame(**{"x": 0.0, "y": 0.0, axis: size})):
                    scores[f"{axis} {size:+g}"] = self.ratio()
        return scores
