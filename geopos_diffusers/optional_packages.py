"""Packages that only some options need, looked for before a long run and not at its end."""

from importlib.util import find_spec

from .errors import MissingDependencyError


def is_installed(package: str) -> bool:
    """Whether `package` can be imported, without importing it."""
    return find_spec(package) is not None


def require_package(package: str, extra: str, purpose: str) -> None:
    """Raise MissingDependencyError, which names the extra to install, unless `package` is there."""
    if not is_installed(package):
        raise MissingDependencyError(
            f"{purpose} needs {package}, which is not installed: pip install 'geopos-diffusers[{extra}]'"
        )
