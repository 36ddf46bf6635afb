"""What is patched, what is not, and why."""

from dataclasses import dataclass, field
from typing import Any

from .config import GeoConvConfig
from .patched_model import STATE, geoconv_models, marked_models, patched_layers, qualified
from .targets import choose_layers


@dataclass(frozen=True)
class GeoConvStatus:
    """What is patched. Layers of a pipeline are named with their component in front ("unet.conv_in")."""

    config: GeoConvConfig | None
    patched: list[str]
    skipped: dict[str, str] = field(repr=False)  # layer: reason
    geometry_parameters: int = 0
    base_parameters: int = 0

    def __str__(self) -> str:
        if not self.patched:
            return f"not patched; {len(self.skipped)} convolutions, {self.base_parameters:,} parameters"
        return (
            f"{len(self.patched)} of {len(self.patched) + len(self.skipped)} convolutions patched, "
            f"{self.geometry_parameters:,} geometry parameters beside {self.base_parameters:,} "
            f"({self.geometry_parameters / max(self.base_parameters, 1):.3%})"
        )


def geoconv_status(pipe_or_model: Any) -> GeoConvStatus:
    """Which layers are patched, which are not and why, and how many parameters there are."""
    config, patched, skipped, geometry, total = None, [], {}, 0, 0
    models = marked_models(pipe_or_model) or geoconv_models(pipe_or_model, GeoConvConfig())
    for component, model in models.items():
        present = getattr(model, STATE, None)
        config = present or config
        layers = patched_layers(model)
        patched += [qualified(component, name) for name in layers]
        geometry += sum(layer.geo_weight.numel() for layer in layers.values())
        total += sum(parameter.numel() for parameter in model.parameters())
        for name, reason in choose_layers(model, present or GeoConvConfig())[1].items():
            if name not in layers:
                skipped[qualified(component, name)] = reason
    return GeoConvStatus(config, patched, skipped, geometry, total - geometry)
