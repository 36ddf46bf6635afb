"""What a GeoConv is: the options of its geometry channel, and which layers of a model get one."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

from ..boxes import check_box
from ..errors import ConfigError

FORMAT_VERSION = 2  # 1 had no `basis`: its weights are taps

BASES = ("multilinear", "taps")
ENCODINGS = ("product", "squares", "sum", "cartesian", "cartesian_radius", "constant")
NORMALIZATIONS = ("unit", "aspect", "pixel")
SHIFT_DISTRIBUTIONS = ("uniform", "normal")
SHIFT_SCOPES = ("layer", "model")
SHIFT_UNITS = ("batch", "sample")
BORDERS = ("zeros", "extrapolate")
_MULTILINEAR_ENCODINGS = ("product", "cartesian", "constant")
_LARGEST = 10**9  # of numbers in a config: squares of coordinates stay finite in float32
_LONGEST_NAME = 1000  # characters of a layer's or a component's name


def _option(default: Any, help: str, choices: Sequence[str] | None = None) -> Any:
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class GeoPosConfig:
    """The geometry channel that a GeoConv adds to its input.

    The paper (arXiv 2401.01951) says that one channel encodes the n-dimensional Cartesian coordinates with a random
    shift in training. Every finer choice below is this project's own reading and can be changed.

    Raises:
        ConfigError: a value is not one of those listed, not a finite number, or of the wrong sign.

    Example:
        >>> config = GeoPosConfig(encoding="cartesian", normalization="aspect")
        >>> config.basis, config.channels(2)
        ('taps', 2)
        >>> GeoPosConfig(encoding="product", basis="multilinear").weight_shape((3, 3))
        (4,)
    """

    encoding: str = _option(
        "product",
        "how the coordinates become channels: product of (c_d + s_d), sum of squares, plain sum, or one channel "
        "an axis (cartesian: CoordConv, arXiv 1807.03247), also with the distance from the origin (cartesian_radius); "
        "constant: none, which leaves one number a filter, its bias (BitFit, arXiv 2106.10199)",
        ENCODINGS,
    )
    basis: str | None = _option(
        None,
        "what the geometry weights are: multilinear (the coefficients of a polynomial in the coordinates of the output "
        "pixel; encodings product and cartesian) or taps (a kernel over the geometry channel, as in the paper); "
        "None: taps for a layer that is built; for the surgery multilinear where the encoding has it",
        BASES,
    )
    normalization: str = _option(
        "unit",
        "unit: [-1, 1] along each axis; aspect: [-1, 1] along the longest axis, the same scale on all; "
        "pixel: index / reference_size",
        NORMALIZATIONS,
    )
    reference_size: int = _option(64, "the size that counts as 1 under normalization 'pixel', in pixels of the layer")
    shift_range: float = _option(
        0.25, "half the width of the uniform shift (or the standard deviation of the normal one); 0 turns it off"
    )
    shift_distribution: str = _option("uniform", "distribution that shifts are drawn from", SHIFT_DISTRIBUTIONS)
    shift_scope: str = _option(
        "layer",
        "layer: every layer call draws its own shift; model: one draw a model call (gradient checkpointing then needs "
        "one backward pass for each call)",
        SHIFT_SCOPES,
    )
    shift_unit: str = _option("batch", "batch: one shift for the batch; sample: one for each sample", SHIFT_UNITS)
    shift_at_inference: bool = _option(
        False, "draw shifts also in eval mode and where no gradients are recorded, from a generator of their own"
    )
    border: str | None = _option(
        None,
        "of taps alone. zeros: the channel is padded as the layer pads its input, as plain concatenation does; "
        "extrapolate: the coordinates go on past the edge; None: zeros",
        BORDERS,
    )
    frame_limit: float | None = _option(
        None,
        "where coordinates in frames are cut off, in half sizes of the frame from its middle, 1 or more: else they are "
        "large far from a small frame; None: they go on",
    )
    frame_window: bool = _option(
        False, "add the term inside frames alone, and that of each; else everywhere, and that of the nearest"
    )

    _default_basis = "taps"

    def __post_init__(self) -> None:
        for option in fields(self):
            value, choices = getattr(self, option.name), option.metadata.get("choices")
            if choices and value not in choices and not (value is None and option.default is None):
                raise ConfigError(f"{option.name} must be one of {', '.join(choices)}; got {value!r}")
        if not is_finite_number(self.shift_range) or not 0 <= self.shift_range <= _LARGEST:
            raise ConfigError(f"shift_range must be a finite number >= 0; got {self.shift_range!r}")
        size = self.reference_size
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _LARGEST:
            raise ConfigError(f"reference_size must be an integer >= 1 (and below 1e9); got {size!r}")
        limit = self.frame_limit
        if limit is not None and (not is_finite_number(limit) or not 1 <= limit <= _LARGEST):
            raise ConfigError(f"frame_limit must be a finite number >= 1 or None; got {limit!r}")
        if limit is not None and self.encoding == "constant":
            raise ConfigError("frame_limit needs coordinates; encoding 'constant' has none")
        for name in ("shift_at_inference", "frame_window"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be true or false; got {getattr(self, name)!r}")
        if self.frame_window and self.encoding == "constant":
            raise ConfigError("frame_window needs coordinates; encoding 'constant' has none")
        if self.frame_window and limit is not None:
            raise ConfigError("give frame_limit or frame_window, not both: within frames there is nothing to cut off")
        self._choose_basis()

    def _choose_basis(self) -> None:
        """Put the default in the place of a basis and a border of None, and refuse what cannot go together."""
        basis, has_multilinear = self.basis, self.encoding in _MULTILINEAR_ENCODINGS
        if basis is None and self.encoding == "constant":
            basis = "multilinear"
        elif basis is None:
            basis = self._default_basis if has_multilinear and self.border is None else "taps"
        if basis == "taps" and self.encoding == "constant":
            raise ConfigError("encoding 'constant' has no taps; give basis 'multilinear'")
        if basis == "multilinear" and not has_multilinear:
            known = " and ".join(_MULTILINEAR_ENCODINGS)
            raise ConfigError(f"encoding {self.encoding!r} has no multilinear basis ({known} have); give basis 'taps'")
        if basis == "multilinear" and self.border is not None:
            raise ConfigError(f"border {self.border!r} is an option of basis 'taps'; a multilinear term has no padding")
        object.__setattr__(self, "basis", basis)
        if basis == "taps" and self.border is None:
            object.__setattr__(self, "border", "zeros")

    def difference(self, other: "GeoPosConfig") -> str:
        """How this geometry channel differs from another ("basis='taps', not basis='multilinear'"); empty if not."""
        names = [option.name for option in fields(GeoPosConfig)]
        differing = [name for name in names if getattr(self, name) != getattr(other, name)]
        own, others = (", ".join(f"{n}={getattr(config, n)!r}" for n in differing) for config in (self, other))
        return f"{own}, not {others}" if differing else ""

    def channels(self, axes: int) -> int:
        """Number of geometry channels for `axes` spatial axes."""
        return {"cartesian": axes, "cartesian_radius": axes + 1}.get(self.encoding, 1)

    def weight_shape(self, kernel_size: Sequence[int]) -> tuple[int, ...]:
        """Shape of one filter's geometry weights.

        taps: (channels, *kernel_size). multilinear: (terms,), see `encoding.monomials`: all products of distinct
        coordinates, 2^n, for `product`; the constant and each coordinate, n + 1, for `cartesian`; 1 for `constant`.
        """
        axes = len(kernel_size)
        if self.basis == "taps":
            return (self.channels(axes), *kernel_size)
        return ({"product": 2**axes, "cartesian": axes + 1, "constant": 1}[self.encoding],)


@dataclass(frozen=True, kw_only=True)
class GeoConvConfig(GeoPosConfig):
    """Which convolutions of a model become GeoConvs, and with which geometry channel.

    Raises:
        ConfigError: as `GeoPosConfig`; or a target is empty, of the wrong type, or not a valid regular expression.

    Example:
        >>> config = GeoConvConfig(target_modules=["conv1", "conv2"], shift_range=0.1)
        >>> config.basis
        'multilinear'
        >>> GeoConvConfig.from_json(config.to_json()) == config
        True
    """

    target_modules: str | tuple[str, ...] | None = _option(
        None,
        "layers to patch: a regular expression for the whole name, or a list of names or name endings; "
        "None: every convolution with two or more taps along every axis",
    )
    exclude_modules: str | tuple[str, ...] | None = _option(None, "layers to leave alone, given as target_modules is")
    components: tuple[str, ...] | None = _option(
        None, "parts of a pipeline to patch; None: the denoiser (unet or transformer); ('unet', 'vae') patches both"
    )
    default_frame: tuple[float, float, float, float] | None = _option(
        None,
        "of an adapter that was trained with frames: their mean box x0, y0, x1, y1 in shares of the image, which holds "
        "where no frames are set; None: trained without frames, the image itself holds",
    )

    _default_basis = "multilinear"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_modules", "exclude_modules", "components"):
            value = getattr(self, name)
            if name == "components" and isinstance(value, str):
                value = (value,)
            if isinstance(value, (list, set)):
                value = tuple(sorted(value) if isinstance(value, set) else value)
            if isinstance(value, tuple):
                if not value or not all(isinstance(item, str) and 0 < len(item) <= _LONGEST_NAME for item in value):
                    raise ConfigError(f"{name} must hold one or more names; got {value!r}")
            elif isinstance(value, str) and value:
                _compile(name, value)
            elif value is not None:
                raise ConfigError(f"{name} must be a regular expression, a list of names or None; got {value!r}")
            object.__setattr__(self, name, value)
        if self.default_frame is not None:
            if self.normalization != "unit" or self.encoding == "constant":
                raise ConfigError("default_frame needs coordinates, and normalization 'unit'")
            object.__setattr__(self, "default_frame", check_box(self.default_frame, "default_frame"))

    def difference(self, other: GeoPosConfig) -> str:
        difference = super().difference(other)
        frames = [getattr(config, "default_frame", None) for config in (self, other)]
        if frames[0] == frames[1]:
            return difference
        own, others = (f"default_frame={frame!r}" for frame in frames)
        return f"{own}, not {others}" + (f", and {difference}" if difference else "")

    def geopos(self) -> GeoPosConfig:
        """The part that a single layer needs."""
        return GeoPosConfig(**{option.name: getattr(self, option.name) for option in fields(GeoPosConfig)})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping with the format's version; nothing of frames where unused, as in old files."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        for name, unused in (("default_frame", None), ("frame_limit", None), ("frame_window", False)):
            if values[name] is unused:
                del values[name]
        return {"format_version": FORMAT_VERSION, **values}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Any) -> "GeoConvConfig":
        """Read what `to_dict` wrote.

        Raises:
            ConfigError: not a mapping, another format version, an unknown option, or a bad value.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"a GeoConv config must be a JSON object; got {type(values).__name__}")
        version = values.get("format_version")
        if version not in (1, FORMAT_VERSION) or isinstance(version, bool):
            raise ConfigError(
                f"GeoConv config has format_version {version!r}; this release reads 1 to {FORMAT_VERSION}"
            )
        options = {key: value for key, value in values.items() if key != "format_version"}
        if version == 1:
            if "basis" in options:
                raise ConfigError("GeoConv config of format_version 1 has an unknown option 'basis'")
            options["basis"] = "taps"
        known = {option.name for option in fields(cls)}
        if unknown := sorted(set(map(str, options)) - known):
            raise ConfigError(
                f"GeoConv config has an unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        return cls(**options)

    @classmethod
    def from_json(cls, text: str) -> "GeoConvConfig":
        """Read what `to_json` wrote. Raises ConfigError as `from_dict`, and for text that is not JSON."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"GeoConv config is not valid JSON: {error}") from error
        return cls.from_dict(values)


def name_matches(name: str, pattern: str | tuple[str, ...]) -> bool:
    """Whether a layer's dotted name is chosen by a regular expression (whole name) or a list of names or endings."""
    if isinstance(pattern, str):
        return re.fullmatch(pattern, name) is not None
    return any(name == item or name.endswith(f".{item}") for item in pattern)


def exact_names(names: Iterable[str]) -> str:
    """A regular expression for these names alone, which in a list would also mean names that end in them."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?:)"  # a model that is itself the layer


def _compile(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{name} is not a valid regular expression: {pattern!r} ({error})") from error


def is_finite_number(value: Any) -> bool:
    """Whether a value is a number, and neither infinite nor nan nor a bool."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
