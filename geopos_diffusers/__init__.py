"""GeoConv for diffusers: one geometry channel in the convolutions of pretrained image models (arXiv 2401.01951)."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "GeoConvConfig": "config",
    "GeoPosConfig": "config",
    "GeoConv1d": "layers",
    "GeoConv2d": "layers",
    "GeoConv3d": "layers",
    "GeoConvTranspose1d": "layers",
    "GeoConvTranspose2d": "layers",
    "GeoConvTranspose3d": "layers",
    "GeoConvStatus": "surgery",
    "apply_geoconv": "surgery",
    "remove_geoconv": "surgery",
    "geoconv_status": "surgery",
    "geoconv_parameters": "surgery",
    "set_geoconv_scale": "surgery",
    "disable_geoconv": "surgery",
    "save_geoconv_weights": "adapter",
    "load_geoconv_weights": "adapter",
    "push_geoconv_to_hub": "adapter",
    "set_geoconv_adapters": "named_adapters",
    "list_geoconv_adapters": "named_adapters",
    "get_active_geoconv_adapters": "named_adapters",
    "delete_geoconv_adapters": "named_adapters",
    "load_pipeline": "pipelines",
    "GeoPosError": "errors",
}
__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line's --help must not wait for torch.
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
