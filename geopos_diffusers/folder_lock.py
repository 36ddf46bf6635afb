"""A lock on a run's folder, so that two runs never write into the same one."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import ConfigError

LOCK_NAME = ".lock"
logger = logging.getLogger(__name__)


@contextmanager
def locked_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Hold `folder`, which is made if need be, within the block.

    The operating system holds the lock for this process (and for those that it forks, such as workers that load data)
    and frees it at their end, however they end: a killed run leaves a file `.lock` but no lock. Where the file system
    or the operating system has no such locks (Windows, some network drives), a warning says so and the block runs.

    Raises:
        ConfigError: another run holds it; the message says which.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = _lock(folder)
    try:
        yield
    finally:
        if file is not None:
            (folder / LOCK_NAME).unlink(missing_ok=True)
            file.close()


def _lock(folder: Path) -> TextIO | None:
    """The locked file; None where there are no locks."""
    path = folder / LOCK_NAME
    try:
        import fcntl
    except ImportError:
        logger.warning("%s cannot be locked on this system: start no other run in it", folder)
        return None
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or "a process that just started"
            file.close()
            raise ConfigError(f"{folder} is in use by another run ({holder}); wait for it or give another") from error
        except OSError as error:
            file.close()
            logger.warning("%s cannot be locked (%s): start no other run in it", folder, error.strerror)
            return None
        if _is_in_place(file, path):
            break
        file.close()  # its holder removed it between our two calls
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def _is_in_place(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
