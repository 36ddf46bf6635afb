"""Packages that only some options need; what is missing is named with the extra that installs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from .errors import MissingDependencyError


def is_installed(package: str) -> bool:
    """Whether `package` can be imported, without importing it."""
    return find_spec(package) is not None


def require_package(package: str, extra: str, purpose: str) -> None:
    """Look for a package before a long run, and not at its end.

    Args:
        extra: the one of this package that installs it ("data", "eval", "train").
        purpose: what needs it, at the start of the message ("train=lora").

    Raises:
        MissingDependencyError: it is not installed.
    """
    if not is_installed(package):
        raise _missing(package, extra, purpose)


@contextmanager
def optional_import(purpose: str, extra: str) -> Iterator[None]:
    """Around the import of an optional package: as `require_package`, for it and for what it imports.

    Raises:
        MissingDependencyError: a package is not installed.

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
        raise _missing((error.name or str(error)).partition(".")[0], extra, purpose) from error


def _missing(package: str, extra: str, purpose: str) -> MissingDependencyError:
    return MissingDependencyError(f"{purpose} needs the package {package}: pip install 'geopos-diffusers[{extra}]'")
