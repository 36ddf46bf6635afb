"""The weight of the geometry term: any number, and zero for a while."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ..errors import ConfigError, SurgeryError
from .config import GeoConvConfig, is_finite_number, name_matches
from .patched_model import all_geometry_layers, geometry_models
from .stock_saving import stock_state_dict


def set_geoconv_scale(pipe_or_model: Any, scale: float, layers: str | tuple[str, ...] | None = None) -> list[str]:
    """Multiply the geometry term by `scale`: 1 as trained, 0 exactly the base model.

    Args:
        layers: which GeoConvs, as `GeoConvConfig.target_modules`; None for all.

    Returns:
        Names of the layers that were set.

    Raises:
        SurgeryError: there is no GeoConv, none is meant, `layers` is neither a regular expression nor a list of names,
            or the scale is not a finite number.

    Example:
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 3, 3))
        >>> _ = apply_geoconv(model)
        >>> set_geoconv_scale(model, 0.5)
        ['0', '2']
        >>> set_geoconv_scale(model, 0.0, layers=["2"])
        ['2']
    """
    if not is_finite_number(scale):
        raise SurgeryError(f"scale must be a finite number; got {scale!r}")
    present = all_geometry_layers(pipe_or_model)
    try:
        pattern = GeoConvConfig(target_modules=layers).target_modules
    except ConfigError as error:
        raise SurgeryError(str(error).replace("target_modules", "layers", 1)) from error
    chosen = {name: layer for name, layer in present.items() if pattern is None or name_matches(name, pattern)}
    if not chosen:
        raise SurgeryError(f"no GeoConv matches {layers!r}" if present else "the model is not patched")
    for layer in chosen.values():
        layer.geo_scale = float(scale)
    return list(chosen)


def _restore(layer: Any, scale: float) -> None:
    if "geo_scale" in vars(layer):  # unless it was unpatched meanwhile
        layer.geo_scale = scale


@contextmanager
def disable_geoconv(pipe_or_model: Any) -> Iterator[None]:
    """Within the block the model is exactly its unpatched base, for `state_dict` too; scales come back after it.

    A network that was built of GeoConvs is the one of plain convolutions.

    So a model of another class can be built from it there, whose weights are copied from the base: ControlNets by
    `from_unet`, AnimateDiff's UNet by `from_unet2d`.

    Example:
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> _ = apply_geoconv(model)
        >>> with disable_geoconv(model):
        ...     print(*model.state_dict())
        0.weight 0.bias
        >>> print(*model.state_dict())
        0.weight 0.bias 0.geo_weight
    """
    scales = {layer: layer.geo_scale for layer in all_geometry_layers(pipe_or_model).values()}
    with ExitStack() as undo:
        for layer, scale in scales.items():
            undo.callback(_restore, layer, scale)
            layer.geo_scale = 0.0
        for model in geometry_models(pipe_or_model).values():
            undo.enter_context(stock_state_dict(model))
        yield
