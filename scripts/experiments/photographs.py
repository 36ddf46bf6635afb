"""Labelled photographs of hands in Parquet files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from geopos_diffusers.errors import DataError


def read_photographs(path: Path, columns: Sequence[str] = ("image", "label")) -> list[dict[str, Any]]:
    """The rows of a Parquet file, with the column "image", encoded pictures, decoded to RGB.

    Raises:
        DataError: it is no Parquet file with these columns.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path, columns=list(columns)).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as a Parquet file with the columns {', '.join(columns)}: {error}"
        ) from error
    return [{**row, "image": Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")} for row in rows]
