"""One row of the table of supported models: a real class at tiny size, how to call it, what is special about it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from geopos_diffusers.patching.config import GeoConvConfig

Inputs = dict[str, Any]


def forward(model: nn.Module, inputs: Inputs) -> Any:
    """The model called as a whole."""
    return model(**inputs)


def autoencode(model: nn.Module, inputs: Inputs) -> Any:
    """An autoencoder called by its parts, as pipelines do: `encode`, the distribution's mode, `decode`."""
    encoded = model.encode(inputs["sample"])
    return model.decode(encoded.latent_dist.mode())


@dataclass(frozen=True)
class ModelCase:
    """A class of diffusers or transformers that users meet.

    Attributes:
        model: the class's name in its library.
        kind: the heading it stands under in docs/supported_models.md.
        config: keyword arguments of the constructor, as small as the class allows.
        inputs: makes the arguments of a call; the same every time. None where the class cannot be patched.
        call: runs the model on them.
        layout: tells apart rows of one class.
        library: module that holds the class. config_class: of a transformers class, which takes one object.
        target_modules: what to patch where the default finds nothing; None for the default.
        basis: of the geometry weights; None for the default.
        idle: patched layers that the call does not run in the stock model either, so that no gradient can reach them.
        error: what the user is told where the class cannot be patched.
        note: for the page.
    """

    model: str
    kind: str
    config: dict[str, Any]
    inputs: Callable[[], Inputs] | None = None
    call: Callable[[nn.Module, Inputs], Any] = forward
    layout: str = ""
    library: str = "diffusers"
    config_class: str | None = None
    target_modules: str | tuple[str, ...] | None = None
    basis: str | None = None
    idle: tuple[str, ...] = ()
    error: str | None = None
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.model} ({self.layout})" if self.layout else self.model

    @property
    def geoconv(self) -> GeoConvConfig:
        return GeoConvConfig(target_modules=self.target_modules, basis=self.basis)

    def build(self) -> nn.Module:
        """The model in eval mode, the same weights every time; the global random state is left as it was.

        Weights that the class starts at zero (ControlNet's zero convolutions, gates of residual branches) are drawn
        too: they would make outputs constant and stop gradients, as they never do in a trained model.
        """
        library = import_module(self.library)
        cls = getattr(library, self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = cls(getattr(library, self.config_class)(**self.config)) if self.config_class else cls(**self.config)
            for parameter in model.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.1)
        return model.eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tensors_of(output: Any) -> list[Tensor]:
    """All floating-point tensors of a model's output, in order."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for item in items for tensor in tensors_of(item)]
