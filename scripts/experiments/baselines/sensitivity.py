"""The settings of the sensitivity sweep (next check N1 of the paper): every option of the geometry channel."""

from collections.abc import Iterator, Sequence

from geopos_diffusers.patching.config import BORDERS, SHIFT_SCOPES, SHIFT_UNITS, GeoPosConfig

NORMALIZATIONS = ("unit", "pixel")  # "aspect" equals "unit" in square images
ENCODINGS = ("product", "squares", "sum", "cartesian")


def geometry_sweep(shift_ranges: Sequence[float]) -> Iterator[GeoPosConfig]:
    """Three grids: encoding x shift range; shift scope x unit; normalization x border. Some settings come twice."""
    for encoding in ENCODINGS:
        for shift_range in shift_ranges:
            yield GeoPosConfig(encoding=encoding, shift_range=shift_range)
    for scope in SHIFT_SCOPES:
        for unit in SHIFT_UNITS:
            yield GeoPosConfig(shift_scope=scope, shift_unit=unit)
    for normalization in NORMALIZATIONS:
        for border in BORDERS:
            yield GeoPosConfig(normalization=normalization, border=border)
