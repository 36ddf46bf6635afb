"""`metadata.jsonl` of an image folder: its rows, and the files that they name. Files of prompts are read here too."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError

METADATA = "metadata.jsonl"


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a UTF-8 text, with a byte-order mark or without.

    Line feeds alone end a line: captions may hold the other characters that `str.splitlines` takes for an end.

    Raises:
        DataError: it is not UTF-8 text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text") from error


def read_prompts_file(path: str | os.PathLike) -> list[str]:
    """The prompts of a text file, one a line, without blank ones; maybe none.

    Raises:
        DataError: there is no such file, or it is not UTF-8 text.
    """
    if not Path(path).is_file():
        raise DataError(f"no prompts file {path}")
    return [line.strip() for line in read_lines(path) if line.strip()]


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place ("metadata.jsonl, line 3") and the object of every line that is not blank.

    Raises:
        DataError: it is not UTF-8 text, or a line is not a JSON object.
    """
    for _, place, row in scan_rows(path):
        yield place, row


def scan_rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The same, line by line in a bounded memory, each with the place in bytes where its line begins."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):  # a binary file's lines end at line feeds alone
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                yield offset, place_of_line(path, number), parse_row(line, path, number)
            offset += len(line)


def place_of_line(path: Path, number: int) -> str:
    """What messages call a line of a file, counted from 1."""
    return f"{path}, line {number}"


def parse_row(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The object of a line of metadata.jsonl.

    Raises:
        DataError: it is not UTF-8 text or not a JSON object.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place_of_line(path, number)}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{place_of_line(path, number)}: expected an object, found {type(row).__name__}")
    return row


def file_of_row(row: Mapping[str, Any], place: str) -> Path:
    """The file that a row names, relative to its folder: a folder of data must not make us read other files.

    Raises:
        DataError: it names none, or one outside the folder.
    """
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{place}: needs a file_name; found {', '.join(map(str, row)) or 'nothing'}")
    # Under Windows a path is absolute only with its drive.
    if (path := Path(name)).anchor or ".." in path.parts:
        raise DataError(f"{place}: file_name {name!r} is outside the folder")
    return path
