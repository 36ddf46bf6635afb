"""Writing without half-written results: write beside the target, then rename."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DataError

GENERATION_CONFIG = "generation_config.json"  # in a pipeline's folder: the guidance scale that it recommends
PACKAGED = Path(__file__).parent / "pretrained"  # folders of models and adapters, by their names


def check_output(output: str | os.PathLike, overwrite: bool) -> Path:
    """The folder that a command writes to, as a path: new or empty, unless it may be overwritten.

    Raises:
        DataError: it is a file, or a folder with something in it and `overwrite` is not set; or, with `overwrite`, the
            working folder, the home folder or one that holds either.
    """
    path = Path(output)
    if path.exists() and not path.is_dir():
        raise DataError(f"the output {path} is a file; give a folder")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise DataError(f"the output folder {path} is not empty; choose another or add --overwrite to replace it")
        kept = (Path.cwd(), Path.home().resolve())
        if any(folder.is_relative_to(path.resolve()) for folder in kept):
            raise DataError(f"the output folder {path} holds the working or the home folder; choose another")
    return path


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the target's folder and rename it to `target` when the block succeeds.

    If the block raises (a full disk, an interrupt), the temporary file is removed and `target` stays as it was.

    Raises:
        OSError: it cannot be written, by safetensors either.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _safetensors_errors_as_os_errors(target):
            yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a new temporary folder beside `target` and put it in the place of `target` when the block succeeds.

    An existing `target` folder is replaced as a whole. If the block raises, it stays as it was.

    Raises:
        OSError: it cannot be written, by safetensors either.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    retired = temporary.with_name(temporary.name + "-old")
    try:
        with _safetensors_errors_as_os_errors(target):
            yield temporary
        temporary.chmod(0o777 & ~_umask())
        if target.exists():
            os.replace(target, retired)
        os.replace(temporary, target)
    finally:
        if retired.exists() and not target.exists():
            os.replace(retired, target)
        shutil.rmtree(retired, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: str | os.PathLike, targets: str) -> None:
    """Remove what killed processes left of `atomic_path` and `atomic_directory` in a folder that nobody writes to now.

    A folder that was moved aside for a successor that never came is put back.

    Args:
        targets: a regular expression for the names, without suffix, of what was to be written.
    """
    for path in sorted(Path(folder).glob(".*-*")):
        match = re.fullmatch(rf"\.({targets})-[a-z0-9_]{{8}}(-old|\.\w+)?", path.name)
        if match is None:
            continue
        target = path.with_name(match[1])
        if match[2] == "-old" and not target.exists():
            os.replace(path, target)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _safetensors_errors_as_os_errors(target: Path) -> Iterator[None]:
    """safetensors raises a class of its own on a full disk, which nobody who catches OSError would catch."""
    try:
        yield
    except Exception as error:
        from safetensors import SafetensorError

        if isinstance(error, SafetensorError):
            raise OSError(f"{target} cannot be written: {' '.join(str(error).split())}") from error
        raise


def write_text(target: str | os.PathLike, text: str) -> None:
    """Write UTF-8 `text` to `target`, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
