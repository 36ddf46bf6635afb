"""`save_pretrained` of a patched model: stock weights that any diffusers release loads, the adapter beside them."""

import inspect
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import SurgeryError
from ..files import GENERATION_CONFIG
from .patched_model import geometry_layers
from .stand_in import StandIn

# With a dot, since diffusers splits each name in a model's folder at dots to find variants of its weights.
ADAPTER_FOLDER = "geoconv.adapter"
ADAPTER_FOLDERS = (ADAPTER_FOLDER, "geoconv")  # the second one of earlier releases, still read
logger = logging.getLogger(__name__)
# Writes a model's adapter into a folder. The room of adapters, which stands above this one, gives it.
AdapterWriter = Callable[[nn.Module, Path], Any]
_write_adapter: AdapterWriter | None = None


def set_adapter_writer(writer: AdapterWriter) -> None:
    """Say how the `save_pretrained` of patched models writes their geometry weights."""
    global _write_adapter
    _write_adapter = writer


class SavePretrained(StandIn):
    """Stands in for a patched model's `save_pretrained`, as an attribute of that one model.

    diffusers only warns of keys that it does not know, so a patched model saved whole would come back as stock and the
    geometry weights would be lost. Here the model's own files hold the stock weights alone, and the adapter is written
    to the folder "geoconv.adapter" among them, where `load_geoconv_weights` finds it. `state_dict` keeps all weights.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, "save_pretrained")

    @property
    def __signature__(self) -> inspect.Signature:
        """diffusers' pipelines look here for which options a component's `save_pretrained` takes."""
        method = inspect.signature(type(self.model).save_pretrained)
        return method.replace(parameters=list(method.parameters.values())[1:])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.__signature__.bind(*args, **kwargs)
        folder = Path(call.arguments["save_directory"])
        if call.arguments.get("is_main_process", True) and not folder.is_file():
            if _write_adapter is None:
                raise SurgeryError("a patched model is saved with its adapter; import geopos_diffusers.adapters first")
            # First, so that push_to_hub uploads it with the rest.
            _write_adapter(self.model, folder / ADAPTER_FOLDER)
            logger.warning(
                "%s is patched: %s gets its stock weights, %s its GeoConv adapter",
                type(self.model).__name__,
                folder,
                folder / ADAPTER_FOLDER,
            )
        with stock_state_dict(self.model):
            return self.call_stock(*args, **kwargs)


class SavePipeline(StandIn):
    """Stands in for `save_pretrained` of a patched pipeline, and keeps the guidance that its folder recommends.

    diffusers knows no `generation_config.json` of a pipeline and leaves it behind.
    """

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe, "save_pretrained")

    def __call__(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        loaded_from = getattr(self.model, "name_or_path", None)
        source, target = Path(loaded_from or "") / GENERATION_CONFIG, Path(save_directory) / GENERATION_CONFIG
        if loaded_from and source.is_file() and not target.exists():
            # First, so that push_to_hub uploads it with the rest.
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return self.call_stock(save_directory, *args, **kwargs)


def keep_generation_config(pipe_or_model: Any) -> None:
    """Give a patched pipeline its `SavePipeline`; do nothing for a model."""
    if not isinstance(pipe_or_model, nn.Module) and hasattr(type(pipe_or_model), "save_pretrained"):
        pipe_or_model.save_pretrained = SavePipeline(pipe_or_model)


@contextmanager
def stock_state_dict(model: nn.Module) -> Iterator[None]:
    """Within the block `state_dict()`, of the model or of any part of it, holds the stock weights alone."""
    layers = geometry_layers(model).values()
    handles = [layer.register_state_dict_post_hook(_drop_geometry_weight) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _drop_geometry_weight(layer: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    state.pop(f"{prefix}geo_weight", None)
