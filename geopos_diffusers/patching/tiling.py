"""Tiled autoencoders: each tile's geometry channel is its own part of the whole image's.

diffusers cuts tiles out of the image or latents by slicing, in loops that differ from class to class. A slice is a
view, so where it lies can be read off the tensor itself, whatever the loop: no class's tile arithmetic is repeated
here.
"""

import logging
import math
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .stand_in import StandIn

TILED_METHODS = ("tiled_encode", "_tiled_encode", "tiled_decode", "_tiled_decode")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tile:
    """Where a tile lies along the last axes (two, or one for audio), in pixels of what was cut into tiles.

    Attributes:
        start: index of the first pixel. size: pixels of the tile. whole: pixels of what it was cut from.
    """

    start: tuple[int, ...]
    size: tuple[int, ...]
    whole: tuple[int, ...]

    def scales(self, input_size: tuple[int, ...]) -> tuple[float, ...]:
        """Resolution along the tiled axes at a layer whose input has `input_size` pixels, relative to the tile's.

        Autoencoders change resolution by powers of two; what is left over is padding that a layer's surroundings added.
        """
        tiled = input_size[len(input_size) - len(self.start) :]
        return tuple(2.0 ** round(math.log2(here / size)) for here, size in zip(tiled, self.size, strict=True))

    def within(
        self, input_size: tuple[int, ...], scales: tuple[float, ...] | None = None
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """First pixel and whole size at a layer whose input has `input_size` pixels while the tile passes.

        Axes before the tiled ones (time) are not cut, nor are those of layers that have fewer (along time alone).
        Padding is counted in the whole, which would have got it too.

        Args:
            scales: resolution of the layer, as `scales` gives it; None to tell it from this tile.
        """
        untiled = len(input_size) - len(self.start)
        if untiled < 0:
            return (0,) * len(input_size), tuple(input_size)
        start, whole = [0] * untiled, [*input_size[:untiled]]
        axes = zip(
            input_size[untiled:], self.start, self.size, self.whole, scales or self.scales(input_size), strict=True
        )
        for here, first, size, total, scale in axes:
            start.append(round(first * scale))
            whole.append(round(total * scale) + here - round(size * scale))
        return tuple(start), tuple(whole)


class _OfThread(threading.local):
    tile: Tile | None = None


class CurrentTile:
    """The tile that an autoencoder is working on; its layers share this object.

    Attributes:
        lock: held by the one thread whose tiled call is running.
        scales: resolution of each layer in the first tile of the call; None where the layer ran at several.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.scales: dict[nn.Module, tuple[float, ...] | None] = {}
        self._of_thread = _OfThread()

    @property
    def tile(self) -> Tile | None:
        """That of the running thread; None outside tiled calls."""
        return self._of_thread.tile

    @tile.setter
    def tile(self, tile: Tile | None) -> None:
        self._of_thread.tile = tile

    def __reduce__(self) -> tuple[type["CurrentTile"], tuple[()]]:
        return CurrentTile, ()  # neither locks nor what a thread holds are copied

    def place(self, layer: nn.Module, input_size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """`Tile.within` at a layer's resolution in the first tile: a small tile at the edge may be mostly padding."""
        assert self.tile is not None
        if torch.compiler.is_compiling() or len(input_size) < len(self.tile.start):
            return self.tile.within(input_size)
        if not any(self.tile.start):
            scales = self.tile.scales(input_size)
            if self.scales.setdefault(layer, scales) != scales:
                self.scales[layer] = None
        return self.tile.within(input_size, self.scales.get(layer))


class TiledMethod(StandIn):
    """Stands in for one tiled method of an autoencoder and keeps `current` at the tile under work during a call."""

    def __init__(self, model: nn.Module, name: str, current: CurrentTile) -> None:
        super().__init__(model, name)
        self.current = current

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Never compiled. The decorator would import torch's compiler, a second of work, with this file.
        compiler = sys.modules.get("torch._dynamo")
        call = self._call if compiler is None else compiler.disable(self._call)
        return call(*args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        source = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        parts = _Parts(source, self.current)
        attributes = self.model.__dict__
        with self.current.lock, ExitStack() as undo:
            undo.callback(setattr, self.current, "tile", self.current.tile)
            undo.callback(setattr, self.current, "scales", self.current.scales)
            self.current.scales = {}
            for name, part in self.model.named_children():
                # An instance attribute is found before the submodule. Hooks would be compiled into a compiled decoder.
                if name not in attributes:
                    attributes[name] = _Part(part, parts)
                    undo.callback(attributes.pop, name)
            return self.call_stock(*args, **kwargs)


class _Parts:
    """Follows one tile through the parts that a tiled method calls (post_quant_conv, then the decoder)."""

    def __init__(self, source: Tensor, current: CurrentTile) -> None:
        self.source, self.current, self.thread = source, current, threading.get_ident()
        self.latest: Any = None

    def begin(self, tile: Any) -> None:
        if tile is self.latest or not isinstance(tile, Tensor):
            return
        self.current.tile = locate_tile(tile, self.source)
        if self.current.tile is None:
            logger.warning(
                "a tile of shape %s is no slice of the %s that is tiled: its geometry term takes it for a whole image",
                tuple(tile.shape),
                tuple(self.source.shape),
            )

    def end(self, output: Any) -> None:
        self.latest = output[0] if isinstance(output, tuple) else output


class _Part:
    def __init__(self, part: nn.Module, parts: _Parts) -> None:
        self._part, self._parts = part, parts

    def __call__(self, tile: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != self._parts.thread:  # not in a tiled call
            return self._part(tile, *args, **kwargs)
        self._parts.begin(tile)
        output = self._part(tile, *args, **kwargs)
        self._parts.end(output)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


def locate_tile(tile: Tensor, source: Tensor) -> Tile | None:
    """Where `tile` [B, C, ..., h, w] lies in `source` [B, C, ..., H, W] that it is a slice of; None where it is none.

    Audio [B, C, L] has one tiled axis, everything else two.
    """
    same = tile.dim() == source.dim() and tile.stride() == source.stride()
    if not same or tile.untyped_storage().data_ptr() != source.untyped_storage().data_ptr():
        return None
    offset, index = tile.storage_offset() - source.storage_offset(), [0] * source.dim()
    for axis in sorted(range(source.dim()), key=source.stride, reverse=True):
        if source.shape[axis] > 1:
            index[axis], offset = divmod(int(offset), source.stride(axis))
    axes = min(source.dim() - 2, 2)
    return Tile(tuple(index[-axes:]), tuple(tile.shape[-axes:]), tuple(source.shape[-axes:]))
