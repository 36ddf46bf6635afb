"""Where a run begins: the one rule of all training programs.

A folder that holds a run is continued from its newest checkpoint; `overwrite` begins anew. What the two must share is
`arguments.fixed_settings`.
"""

import shutil
from pathlib import Path

from ..errors import ConfigError
from ..folder_lock import locked_folder
from .checkpoints import find_checkpoint, list_checkpoints


def resume_point(output_dir: str | Path, wanted: str | None = None, overwrite: bool = False) -> Path | None:
    """The checkpoint that a run goes on from, or None for a run from the beginning.

    To go on unasked is safe: `load_checkpoint` refuses other fixed settings, and with the same ones a continued run has
    the losses of an uninterrupted one.

    Args:
        wanted: another checkpoint to go on from, as of `find_checkpoint`; "latest" is the newest, which must exist.
        overwrite: begin anew.

    Raises:
        ConfigError: there is no such checkpoint, or both are asked for.
    """
    if wanted is not None and overwrite:
        raise ConfigError("overwrite discards the run and resume-from-checkpoint goes on with it; give one of them")
    if overwrite:
        return None
    if wanted is not None:
        return find_checkpoint(output_dir, wanted)
    return next(reversed(list_checkpoints(output_dir)), None)


def discard_run(folder: str | Path) -> None:
    """Remove the folder of a run with all that is in it. A folder without a log of losses is none and stays.

    Raises:
        ConfigError: the run is at work.
    """
    if (Path(folder) / "losses.jsonl").is_file():
        with locked_folder(folder):
            shutil.rmtree(folder)
