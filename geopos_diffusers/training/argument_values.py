"""Values of options against their types and ranges, one clear line each: a YAML file may hold anything."""

import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from ..command_line import did_you_mean
from ..errors import ConfigError

NAMES = {str: ("a text", "texts"), int: ("a whole number", "whole numbers"), float: ("a number", "numbers")}


def check_value(
    name: str,
    value: Any,
    hint: Any,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """`value`, or a list of it alone where `hint` is a list of such values.

    Args:
        hint: str, int, float, bool, Literal of texts, a list of str, int or float, or a union of one with None or str.
        at_least, above, at_most: range of a number, or of all of a list; at_least is the least length of a text.

    Raises:
        ConfigError: it is of another type or out of range.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    item = next((get_args(kind)[0] for kind in kinds if get_origin(kind) is list), None)
    if item is not None:
        if str in kinds and isinstance(value, str):
            return value
        values = value if isinstance(value, (list, tuple)) else [value]
        if not values or not all(_is_a(item, one, at_least, above, at_most) for one in values):
            wanted = " that are not empty" if item is str and at_least else _range_text(at_least, above, at_most)
            raise ConfigError(f"{name} must be a list of {NAMES[item][1]}{wanted}; got {value!r}")
        return list(values)
    kind = kinds[0]
    if kind is bool:
        expected, accepted = "true or false", isinstance(value, bool)
    elif get_origin(kind) is Literal:
        choices = get_args(kind)
        value = "no" if value is False and "no" in choices else value  # as YAML reads a bare no
        expected, accepted = f"one of {', '.join(choices)}", value in choices
    else:
        wanted = " that is not empty" if kind is str and at_least else _range_text(at_least, above, at_most)
        expected = f"{NAMES[kind][0]}{wanted}"
        accepted = _is_a(kind, value, at_least, above, at_most)
    if not accepted:
        near = did_you_mean(value, get_args(kind)) if get_origin(kind) is Literal and isinstance(value, str) else ""
        raise ConfigError(f"{name} must be {expected}; got {value!r}{near}")
    return value


def _is_a(kind: type, value: Any, at_least: float | None, above: float | None, at_most: float | None) -> bool:
    if kind is str:
        return isinstance(value, str) and len(value) >= (at_least or 0)
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        return False
    return (
        math.isfinite(value)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
    )


def _range_text(at_least: float | None, above: float | None, at_most: float | None) -> str:
    if at_least is not None and at_most is not None:
        return f" between {at_least:.12g} and {at_most:.12g}"
    bounds = {">=": at_least, ">": above, "<=": at_most}
    return "".join(f" {sign} {bound:.12g}" for sign, bound in bounds.items() if bound is not None)
