"""What is patched, what is not, and why."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..boxes import show_box
from .config import GeoConvConfig
from .patched_model import (
    STATE,
    all_geometry_layers,
    built_layers,
    frames_holder,
    geoconv_models,
    geometry_layers,
    geometry_models,
    named_adapters,
    patched_layers,
    present_config,
    qualified,
    shorten,
)
from .targets import bypassed_layers, choose_layers


@dataclass(frozen=True)
class GeoConvStatus:
    """What is patched; printed, a page of it. Layers of a pipeline are named with their component ("unet.conv_in").

    Attributes:
        config: what the model is patched with, or what the layers of a network of GeoConvs share; None where they
            differ and where there are none.
        patched: layers that `apply_geoconv` made GeoConvs.
        skipped: the other convolutions, with the reason.
        geometry_parameters: numbers in all geometry weights. base_parameters: in all other parameters.
        built: GeoConvs that the model was built with.
        scales: factor on each layer's geometry term.
        adapters: by component ("" for a model given by itself), the weight of each adapter; 0 outside the active mix.
        frames: how many frames are set, by component; 0 for the default frame of the config, or the image.

    Example:
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> status = apply_geoconv(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1)))
        >>> status.patched, status.skipped["1"].partition(",")[0]
        (['0'], 'kernel 1x1 has one tap along an axis')
    """

    config: GeoConvConfig | None
    patched: list[str]
    skipped: dict[str, str] = field(repr=False)
    geometry_parameters: int = 0
    base_parameters: int = 0
    built: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict, repr=False)
    adapters: dict[str, dict[str, float]] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def summary(self) -> str:
        """The first line of the page."""
        total = len(self.patched) + len(self.skipped)
        if self.patched:
            text = f"{len(self.patched)} of {total} convolutions patched"
        elif self.built:
            text = f"{len(self.built)} layers built as GeoConvs"
        else:
            return f"not patched; {total} convolutions, {self.base_parameters:,} parameters"
        share = self.geometry_parameters / max(self.base_parameters, 1)
        beside = f"{self.geometry_parameters:,} geometry parameters beside {self.base_parameters:,} ({share:.3%})"
        return f"{text}, {beside}"

    def __str__(self) -> str:
        return self.page()

    def page(self, proposed: bool = False) -> str:
        """A dozen lines: layers, reasons, adapters and scales; of a patch that is only `proposed`, the layers alone."""
        lines = [self.summary.replace(" patched,", " would be patched,") if proposed else self.summary]
        if self.config is not None:
            c = self.config
            shift = f"{c.shift_range:g} ({c.shift_distribution}) for each {c.shift_scope} and {c.shift_unit}"
            coordinates = f"coordinates {c.normalization}, shift {shift if c.shift_range else 'none'}"
            lines.append(f"  channel: {c.encoding} in basis {c.basis}, {coordinates}")
            if c.default_frame is not None:
                lines.append(f"  trained with frames; where none are set: box {show_box(c.default_frame)} of the image")
            if c.frame_limit is not None:
                lines.append(f"  coordinates in frames are cut off at {c.frame_limit:g} half sizes from the middle")
            if c.frame_window:
                lines.append("  the term is added inside frames alone")
        lines += [f"  {kind}{place}" for kind in ("patched", "built") for place in self._places(getattr(self, kind))]
        lines += [f"  skipped: {count}, {reason}" for reason, count in Counter(self.skipped.values()).most_common()]
        for component, weights in () if proposed else self.adapters.items():
            shown = (f"{name} {weight:g}" if weight else f"{name} (inactive)" for name, weight in weights.items())
            lines.append(f"  adapters{f' of {component}' if component else ''}: {', '.join(shown)}")
        for component, count in self.frames.items():
            if count:
                lines.append(f"  frames{f' of {component}' if component else ''}: {count} set")
        return "\n".join(lines if proposed else [*lines, *self._scale_lines()])

    def _places(self, names: list[str]) -> list[str]:
        """How many of some layers lie in each block of each component: " in unet: conv_in, down_blocks (8)"."""
        counts: dict[str, Counter[str]] = {}
        for name in names:
            component, _, rest = name.partition(".")
            component, rest = (component, rest) if component in self.adapters else ("", name)
            counts.setdefault(component, Counter())[rest.partition(".")[0]] += 1
        lines = []
        for component, blocks in counts.items():
            shown = (block if count == 1 else f"{block} ({count})" for block, count in blocks.items())
            lines.append(f"{f' in {component}' if component else ''}: {', '.join(shown)}")
        return lines

    def _scale_lines(self) -> list[str]:
        groups: dict[float, list[str]] = {}
        for name, scale in self.scales.items():
            groups.setdefault(scale, []).append(name)
        first, *others = sorted(groups, key=lambda scale: -len(groups[scale])) or [1.0]
        lines = [f"  scale: {scale:g} in {shorten(groups[scale])}" for scale in others]
        return [*lines, f"  scale: {first:g}{' in all others' if others else ''}"] if groups else []


def geoconv_status(pipe_or_model: Any) -> GeoConvStatus:
    """Which layers are patched, which are not and why, the adapters and scales, and how many parameters there are.

    Args:
        pipe_or_model: a diffusers pipeline or any `nn.Module`. Of a pipeline, the components that have GeoConvs are
            told of; its denoiser, where none has.

    Example:
        >>> from geopos_diffusers import apply_geoconv
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1))
        >>> _ = apply_geoconv(model)
        >>> print(geoconv_status(model))
        1 of 2 convolutions patched, 32 geometry parameters beside 251 (12.749%)
          channel: product in basis multilinear, coordinates unit, shift 0.25 (uniform) for each layer and batch
          patched: 0
          skipped: 1, kernel 1x1 has one tap along an axis, which is not patched by default; name it to patch it
          adapters: default 1
          scale: 1
    """
    config, patched, built, skipped, geometry, total, adapters, frames = None, [], [], {}, 0, 0, {}, {}
    models = geometry_models(pipe_or_model)
    for component, model in (models or geoconv_models(pipe_or_model, GeoConvConfig())).items():
        config = present_config(model) or config
        made = {**patched_layers(model), **built_layers(model)}
        bypassed = bypassed_layers(model)
        unreached = {name: bypassed[layer] for name, layer in made.items() if layer in bypassed}
        patched += [qualified(component, name) for name in patched_layers(model) if name not in unreached]
        built += [qualified(component, name) for name in built_layers(model)]
        geometry += sum(layer.geo_weight.numel() for layer in geometry_layers(model).values())
        total += sum(parameter.numel() for parameter in model.parameters())
        chosen, reasons = choose_layers(model, vars(model).get(STATE) or GeoConvConfig())
        reasons |= {name: "not patched yet" for name in chosen}
        reasons = {name: reason for name, reason in reasons.items() if name not in made} | unreached
        skipped |= {qualified(component, name): reason for name, reason in reasons.items()}
        if component in models:
            known = named_adapters(model)
            adapters[component] = dict.fromkeys(known.names, 0.0) | known.active
            holder = frames_holder(model)
            frames[component] = 0 if holder is None or holder.frames is None else len(holder.frames)
    scales = {name: layer.geo_scale for name, layer in all_geometry_layers(pipe_or_model).items()}
    return GeoConvStatus(config, patched, skipped, geometry, total - geometry, built, scales, adapters, frames)
