"""Which convolutions of a model a config means, which can be patched, and why the others cannot."""

import difflib
from collections.abc import Container, Iterator

from torch import nn

from ..errors import SurgeryError
from .config import GeoConvConfig, name_matches
from .layers import GeometryTerm, stored_parameter
from .offload import group_offload_kinds, takes_offloaded

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")  # names by which torch's wrappers hold a model
_SPLITTER = "SplitInferenceModule"  # diffusers' wrapper that runs a layer in splits, and holds it as "module"
_FUNCTIONS = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}


def choose_layers(model: nn.Module, config: GeoConvConfig) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Convolutions to patch, and the others with the reason why not."""
    targets, skipped, bypassed = {}, {}, bypassed_layers(model)
    for name, conv in convolutions(model):
        reason = _reason_against(name, conv, config) or bypassed.get(conv)
        if reason is None:
            targets[name] = conv
        else:
            skipped[name] = reason
    return targets, skipped


def convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All convolutions, with their names, but those that an adapter library added beside a layer of the model."""
    return base_layers(model, CONVOLUTIONS)


def base_layers(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """The layers of some classes, as `convolutions` gives them."""
    added: set[nn.Module] = set()
    for name, module in canonical_modules(model):
        if hasattr(module, "base_layer") and isinstance(module.base_layer, nn.Module):
            kept = set(module.base_layer.modules())
            added.update(part for part in module.modules() if part is not module and part not in kept)
        if isinstance(module, kinds) and module not in added:
            yield name, module


def bypassed_layers(model: nn.Module) -> dict[nn.Module, str]:
    """Layers whose adapter (PEFT's BOFT and HRA) reads their weights and convolves by itself, with the reason."""
    found = {}
    for module in model.modules():
        layer = getattr(module, "base_layer", None)
        code = getattr(type(module).forward, "__code__", None) if isinstance(layer, nn.Module) else None
        if code is not None and _FUNCTIONS & {*code.co_names}:
            reason = f"{type(module).__name__} around it computes the convolution, out of the geometry term's reach"
            found |= dict.fromkeys(layer.modules(), reason)
    return found


def reason_not_meant(name: str, conv: nn.Module, config: GeoConvConfig) -> str | None:
    """Why the config's targets do not mean a convolution; None if they do."""
    if config.exclude_modules is not None and name_matches(name, config.exclude_modules):
        return "excluded by exclude_modules"
    if config.target_modules is not None:
        if not name_matches(name, config.target_modules):
            return "not named by target_modules"
    elif min(conv.kernel_size) < 2:
        kernel = "x".join(map(str, conv.kernel_size))
        why = "too few to tell the axes apart" if config.basis == "taps" else "which is not patched by default"
        return f"kernel {kernel} has one tap along an axis, {why}; name it to patch it"
    return None


def _reason_against(name: str, conv: nn.Module, config: GeoConvConfig) -> str | None:
    if isinstance(conv, GeometryTerm) and conv._parameters.get("geo_weight") is not None:
        return "is patched already" if hasattr(type(conv), "geo_base") else "was built as a GeoConv: its own weights"
    if (reason := reason_not_meant(name, conv, config)) is not None:
        return reason
    if isinstance(conv.weight, nn.UninitializedParameter):
        return "lazy layer without weights yet"
    if not _reaches_geometry(conv):
        return f"{type(conv).__name__} computes its convolution by itself, out of the geometry term's reach"
    if forward_is_hooked(conv):
        return "a hook (offload, casting) holds on to its forward; patch the model before putting hooks on it"
    return None


def check_targets(
    model: nn.Module, config: GeoConvConfig, targets: dict[str, nn.Module], skipped: dict[str, str]
) -> None:
    """Refuse a choice of layers that means none, or none that can take a weight now.

    Raises:
        SurgeryError: a target names no convolution, none is left, or weights are offloaded where none can be added.
    """
    label = type(model).__name__
    names = [*targets, *skipped]
    patterns = config.target_modules if isinstance(config.target_modules, tuple) else (config.target_modules,)
    for pattern in patterns if config.target_modules is not None else ():
        if not any(
            name_matches(name, pattern if isinstance(config.target_modules, str) else (pattern,)) for name in names
        ):
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
            hint = f"; near are {', '.join(near)}" if near else ""
            raise SurgeryError(f"target_modules {pattern!r} names no convolution of {label}{hint}")
    if not targets:
        reasons = sorted(set(skipped.values()))
        why = f"its {len(skipped)} are skipped: {'; '.join(reasons)}" if skipped else "it has none"
        raise SurgeryError(f"no convolution of {label} can be patched: {why}")
    if kinds := group_offload_kinds(model):
        raise SurgeryError(
            f"{label} is group-offloaded ({', '.join(sorted(kinds))}); patch the model before enabling it"
        )
    hooked = any(hasattr(module, "_hf_hook") for module in model.modules())
    for name, conv in targets.items():
        if hooked and stored_parameter(conv).is_meta and not takes_offloaded(conv):
            raise SurgeryError(f"the weights of {label}.{name} are offloaded; patch the model before enabling offload")


def canonical_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """`named_modules` by names that do not depend on what wraps a module, see `canonical_name`."""
    splitters: set[str] = set()
    for name, module in model.named_modules():
        if type(module).__name__ == _SPLITTER:
            splitters.add(name)
        yield canonical_name(name, splitters), module


def canonical_name(name: str, splitters: Container[str] = ()) -> str:
    """A layer's name without what wrappers put into it: names do not depend on the order.

    Wrappers are those of PEFT, of torch.compile and, under the names `splitters`, of AnimateDiff's split inference.
    """
    parts = name.split(".")
    return ".".join(
        part
        for index, part in enumerate(parts)
        if part not in ("base_layer", *WRAPPERS)
        and not (part == "module" and splitters and ".".join(parts[:index]) in splitters)
    )


def forward_is_hooked(conv: nn.Module) -> bool:
    """Whether an offload or casting hook has stored the `forward` that a transposed convolution's patch replaces."""
    own = vars(conv).get("forward")
    return conv.transposed and own is not None and getattr(own, "__func__", None) is not type(conv).forward


def _reaches_geometry(conv: nn.Module) -> bool:
    """Whether the layer's forward ends in torch's own, where the geometry term is added.

    The class and the layer itself can have one of their own. Libraries' hooks have no code here, and end in it.
    """
    cls = type(conv)
    stock = next(base for base in cls.__mro__ if base in CONVOLUTIONS)
    for owner in (conv, *cls.__mro__[: cls.__mro__.index(stock)]):
        for method in (vars(owner).get("forward"), vars(owner).get("_conv_forward")):
            code = getattr(method, "__code__", None)
            if code is not None and not any("forward" in name for name in (*code.co_names, *code.co_freevars)):
                return False
    return True
