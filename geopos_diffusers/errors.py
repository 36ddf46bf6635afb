"""Typed exceptions. Each carries one line that says what was given and what would be accepted."""


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
