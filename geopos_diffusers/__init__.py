"""GeoConv for diffusers: one geometry channel in the convolutions of pretrained image models (arXiv 2401.01951)."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "GeoConvConfig": "patching.config",
    "GeoPosConfig": "patching.config",
    "GeoConv1d": "patching.layers",
    "GeoConv2d": "patching.layers",
    "GeoConv3d": "patching.layers",
    "GeoConvTranspose1d": "patching.layers",
    "GeoConvTranspose2d": "patching.layers",
    "GeoConvTranspose3d": "patching.layers",
    "GeoConvStatus": "patching.status",
    "apply_geoconv": "patching.surgery",
    "remove_geoconv": "patching.surgery",
    "geoconv_status": "patching.status",
    "geoconv_parameters": "patching.patched_model",
    "set_geoconv_scale": "patching.scaling",
    "disable_geoconv": "patching.scaling",
    "set_geoconv_frames": "patching.framing",
    "geoconv_frames": "patching.framing",
    "mean_frame": "boxes",
    "save_geoconv_weights": "adapters.files",
    "load_geoconv_weights": "adapters.loading",
    "push_geoconv_to_hub": "adapters.files",
    "set_geoconv_adapters": "adapters.named_adapters",
    "list_geoconv_adapters": "adapters.named_adapters",
    "get_active_geoconv_adapters": "adapters.named_adapters",
    "delete_geoconv_adapters": "adapters.named_adapters",
    "load_pipeline": "pipelines.loading",
    "repair_image": "repair.repairing",
    "RepairOptions": "repair.options",
    "GeoPosError": "errors",
}
__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    # Loaded on first use: the command line's --help must not wait for torch.
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _EXPORTS[name].startswith("patching."):
        import_module(".adapters", __name__)  # gives patched models' `save_pretrained` its writer
    value = getattr(import_module(f".{_EXPORTS[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
