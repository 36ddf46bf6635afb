"""Typed exceptions. Each carries one line that says what was given and what would be accepted."""

from collections.abc import Iterator
from contextlib import contextmanager


class GeoPosError(Exception):
    """Base of every error this package raises for something the user can change.

    Example:
        >>> from geopos_diffusers import GeoPosConfig
        >>> try:
        ...     GeoPosConfig(encoding="polar")
        ... except GeoPosError as error:
        ...     print(error)
        encoding must be one of product, squares, sum, cartesian, cartesian_radius, constant; got 'polar'
    """


class ConfigError(GeoPosError, ValueError):
    """A configuration value, file or version that is not valid."""


class SurgeryError(GeoPosError, ValueError):
    """A model that cannot be patched or restored as asked; the model is left as it was."""


class AdapterError(GeoPosError, ValueError):
    """Adapter files that are missing, damaged, foreign, or made for another base model."""


class DataError(GeoPosError, ValueError):
    """A data set, image folder or image that cannot be used."""


class DivergedError(GeoPosError, ArithmeticError):
    """A training whose loss became infinite or not a number."""


class MissingDependencyError(GeoPosError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""


@contextmanager
def optional_import(purpose: str, extra: str) -> Iterator[None]:
    """Around the import of an optional package: says which extra installs it.

    Args:
        purpose: what needs the package, at the start of the message ("LoRA").
        extra: an extra of this package ("data", "eval", "train").

    Raises:
        MissingDependencyError: the package, or one that it imports, is not installed.

    Example:
        >>> with optional_import("a loss curve", "train"):
        ...     import no_such_package
        Traceback (most recent call last):
        geopos_diffusers.errors.MissingDependencyError: a loss curve needs the package no_such_package: \
pip install 'geopos-diffusers[train]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise MissingDependencyError(
            f"{purpose} needs the package {package}: pip install 'geopos-diffusers[{extra}]'"
        ) from error
