"""Detections, judgements and features of images, kept by the content of the file and by what computed them.

One SQLite file in the user's cache. An entry is written as soon as its image is scored, so an interrupted evaluation
goes on where it stopped, and a second one of the same images computes nothing anew.
"""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .wheel_files import cache_directory

logger = logging.getLogger(__name__)

FILE_NAME = "evaluations-1.sqlite"
WAIT_SECONDS = 60  # for another evaluation that is writing
KEYS_A_QUERY = 500
CHECKSUM_BYTES = 8


class EvaluationCache:
    """Values (bytes) by component and key. Several processes may use one file. Use it as a context manager.

    Args:
        path: the file; by default FILE_NAME in `cache_directory()`. None in its place: kept in memory, and lost.

    A file that is damaged is set aside beside it with a warning, and a new one is begun.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._not_kept: dict[tuple[str, str], bytes] = {}
        if path is None:
            self._connection = self._connect(":memory:")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = self._connect(str(path))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "lock" in str(error):
                raise
            aside = path.with_suffix(".damaged")
            logger.warning("%s is damaged (%s): it is moved to %s, and images are scored anew", path, error, aside.name)
            path.replace(aside)
            for suffix in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).unlink()
            self._connection = self._connect(str(path))

    @classmethod
    def default(cls) -> "EvaluationCache":
        return cls(cache_directory() / FILE_NAME)

    @staticmethod
    def _connect(target: str) -> sqlite3.Connection:
        connection = sqlite3.connect(target, timeout=WAIT_SECONDS)
        try:
            _use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (component TEXT, key TEXT, value BLOB, checksum BLOB, "
                "PRIMARY KEY (component, key))"
            )
            connection.commit()
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def __enter__(self) -> "EvaluationCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def read(self, component: str, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there, by key. A damaged value counts as missing."""
        found = {key: self._not_kept[component, key] for key in keys if (component, key) in self._not_kept}
        for start in range(0, len(keys), KEYS_A_QUERY):
            part = keys[start : start + KEYS_A_QUERY]
            marks = ", ".join("?" * len(part))
            query = f"SELECT key, value, checksum FROM entries WHERE component = ? AND key IN ({marks})"
            try:
                rows = self._connection.execute(query, (component, *part)).fetchall()
            except sqlite3.DatabaseError as error:
                logger.warning("%s cannot be read (%s): images are scored anew", self.path, error)
                return found
            found.update((key, value) for key, value, checksum in rows if _checksum(value) == checksum)
        return found

    def write(self, rows: Iterable[tuple[str, str, bytes]]) -> None:
        """Keep (component, key, value) rows, all or none.

        Where the file cannot be written, on a full disk for example, they are kept in memory, with a warning once.
        """
        rows = list(rows)
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
                    [(component, key, value, _checksum(value)) for component, key, value in rows],
                )
        except sqlite3.DatabaseError as error:
            if not self._not_kept:
                logger.warning("%s cannot be written (%s): scores are kept for this run alone", self.path, error)
            self._not_kept.update(((component, key), value) for component, key, value in rows)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """The change of a new file's mode does not wait for other connections of itself, as other statements do."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "lock" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _checksum(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()[:CHECKSUM_BYTES]
