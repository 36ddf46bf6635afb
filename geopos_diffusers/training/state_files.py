"""Files of a training's state: safetensors and JSON, with checksums by which damage is noticed. Nothing is pickled."""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import AdapterError

CHUNK = 2**24


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors."""
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, file)


def write_json_with_checksums(file: Path, values: Mapping[str, Any]) -> None:
    """Write JSON, with a checksum of itself and of each other file of its folder."""
    files = {other.name: checksum(other) for other in sorted(file.parent.iterdir()) if other != file}
    values = {**values, "files": files}
    file.write_text(json.dumps({**values, "checksum": _own_checksum(values)}, indent=2), encoding="utf-8")


def read_json(file: Path) -> dict[str, Any]:
    """The values of such a file.

    Raises:
        AdapterError: it is missing or not what was written.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError) as error:
        raise damaged(file, error) from error
    if "checksum" in values and values.pop("checksum") != _own_checksum(values):
        raise damaged(file, "its checksum is another")
    return values


def _own_checksum(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def checksum(file: Path) -> int:
    """CRC-32 of a file: finds damage, not forgery, at the speed of a disk."""
    value = 0
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


class TensorFile(Mapping[str, Tensor]):
    """Tensors of a safetensors file, each read when it is asked for.

    Args:
        expected: the file's checksum.

    Raises:
        AdapterError: it is missing or damaged.
    """

    def __init__(self, file: Path, expected: int | None) -> None:
        try:
            if expected is not None and checksum(file) != expected:
                raise ValueError("its checksum is another")
            self._file = safe_open(file, framework="pt")
        except (OSError, ValueError, SafetensorError) as error:
            raise damaged(file, error) from error
        self.path = file
        self._names = list(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def check_shapes(self, expected: Mapping[str, Tensor]) -> None:
        """Raise AdapterError unless the file holds tensors of these names and shapes and nothing else."""
        found = {name: tuple(self._file.get_slice(name).get_shape()) for name in self._names}
        wanted = {name: tuple(value.shape) for name, value in expected.items()}
        if found != wanted:
            name = next(name for name in {**wanted, **found} if found.get(name) != wanted.get(name))
            raise AdapterError(
                f"{self.path}: {name} has shape {found.get(name)} here and {wanted.get(name)} in the model"
            )


def damaged(file: Path, reason: object) -> AdapterError:
    return AdapterError(f"{file} is missing or damaged: {reason}; resume-from-checkpoint takes an earlier checkpoint")
