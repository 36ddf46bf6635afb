"""Checkpoints of a run: the trained parts in their final format, and the exact state to continue from.

`checkpoint-N/` holds what `save_trained_parts` writes and, in `training_state/`, the raw trained weights, the
optimizer's moments, the moving average and the random states as safetensors, and the counters and settings as JSON.
accelerate's own `save_state` is not used: its optimizer and random state files are pickles, which this project never
loads. The state is that of the whole run whatever number of processes it was spread over (see `sharding.py`), so that
another number can continue it.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import Parameter

from ..errors import AdapterError, ConfigError
from ..files import atomic_directory, remove_leftovers
from .loss_log import VALIDATION_LOSSES
from .optimizer_state import join_state, split_state
from .random_states import gather_random_states, restore_random_states
from .sharding import gathered, own_part, spread, unsharded
from .state_files import TensorFile, read_json, write_json_with_checksums, write_tensors

# 2: checksums, and a step's samples in all in the place of the number of processes.
FORMAT_VERSION = 2
STATE_FOLDER = "training_state"
FILES = ("summary.json", "losses.png", VALIDATION_LOSSES)  # of a run, beside losses.jsonl


@dataclass
class TrainingState:
    """All that changes while training, beyond the step.

    parameters: what is trained, by name. optimizer: as `accelerator.prepare` returned it, over those parameters in that
    order; or several, each over the parameters that follow those of the one before. settings: what a continued run must
    share, JSON-ready. buffers: what else the forward pass changes, such as the running means of batch normalisation.
    counters: what else a continued run needs, JSON-ready, such as the best score so far.
    model: the one whose parameters are sharded, if one is.
    """

    accelerator: Accelerator
    parameters: dict[str, Parameter]
    optimizer: Any
    ema: EMAModel | None
    settings: dict[str, Any]
    buffers: dict[str, Tensor] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    model: nn.Module | None = None

    def optimizers(self) -> Iterator[tuple[Any, list[str]]]:
        """Each optimizer with the names of its parameters, in the order of its state's indices."""
        names = iter(self.parameters)
        for optimizer in self.optimizer if isinstance(self.optimizer, (list, tuple)) else [self.optimizer]:
            yield optimizer, list(islice(names, sum(len(group["params"]) for group in optimizer.param_groups)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average, if there is one, in the place of the trained weights, and put shards together.

        It is `ema`, or that of an optimizer that keeps one itself (schedule-free ones). All processes must enter and
        leave it together; within, any of them can use and save the model alone.
        """
        averaging = [one for optimizer, _ in self.optimizers() if hasattr(one := unwrapped(optimizer), "eval")]
        changed = list(self.parameters.values()) if self.ema is not None or averaging else []
        # Kept aside, since schedule-free optimizers compute the trained weights back, with other roundings.
        kept = [own_part(parameter.detach()).to("cpu", copy=True) for parameter in changed]
        for optimizer in averaging:
            optimizer.eval()
        if self.ema is not None:
            self.ema.copy_to(self.parameters.values())
        try:
            with unsharded(self.model):
                yield
        finally:
            for optimizer in averaging:
                optimizer.train()
            for parameter, value in zip(changed, kept, strict=True):
                own_part(parameter.detach()).copy_(value)


def unwrapped(optimizer: Any) -> Any:
    """torch's optimizer of one that `accelerator.prepare` returned."""
    return getattr(optimizer, "optimizer", optimizer)


def checkpoint_step(folder: Path) -> int | None:
    """N of a folder named checkpoint-N, else None."""
    match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    return int(match[1]) if match and folder.is_dir() else None


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints in `output_dir`, oldest first."""
    folders = Path(output_dir).glob("checkpoint-*") if Path(output_dir).is_dir() else []
    steps = {folder: step for folder in folders if (step := checkpoint_step(folder)) is not None}
    return sorted(steps, key=steps.__getitem__)


def clear_output(output_dir: str | Path) -> None:
    """Remove what an earlier run left in `output_dir`, and nothing else."""
    folder = Path(output_dir)
    # Folders of these names may be somebody's own (a report of `geopos evaluate`): a run's has its file in it.
    marks = (folder / "best" / "best.json", folder / "evaluation" / "scores.jsonl")
    scored = [mark.parent for mark in marks if mark.is_file()]
    for old in (*list_checkpoints(folder), folder / "logs", folder / "final", *scored):
        shutil.rmtree(old, ignore_errors=True)
    for old in (*folder.glob("validation-*.png"), *(folder / name for name in FILES)):
        old.unlink(missing_ok=True)


def remove_unfinished(output_dir: str | Path) -> None:
    """Remove what killed runs began to write in `output_dir`; for the process that holds its lock."""
    remove_leftovers(output_dir, r"checkpoint-\d+|final|best|validation-\d+|losses|validation_losses|summary")
    remove_leftovers(Path(output_dir) / "evaluation", r"step-\d+|scores|settings")


def find_checkpoint(output_dir: str | Path, wanted: str) -> Path:
    """The folder that `wanted` ("latest", a path, or a name in `output_dir`) means.

    Raises:
        ConfigError: there is none.
    """
    if wanted == "latest":
        checkpoints = list_checkpoints(output_dir)
        if not checkpoints:
            raise ConfigError(f"{output_dir} holds no checkpoint to resume from")
        return checkpoints[-1]
    for folder in (Path(wanted), Path(output_dir) / wanted):
        if (folder / STATE_FOLDER).is_dir():
            return folder
    raise ConfigError(f"{wanted} is not a checkpoint: it has no {STATE_FOLDER} folder")


def save_checkpoint(
    state: TrainingState,
    step: int,
    output_dir: str | Path,
    save_parts: Callable[[Path], None],
    limit: int | None = None,
) -> Path:
    """Write `checkpoint-{step}` whole or not at all, then remove the oldest beyond `limit`. All processes must call it.

    Those of later steps, which a run left that was resumed from an older one, count as older than all others.

    Args:
        save_parts: writes the trained parts into a folder; called with the moving average in place, if there is one.
    """
    target = Path(output_dir) / f"checkpoint-{step}"
    writes = state.accelerator.is_main_process
    random_states = gather_random_states(state.accelerator)
    with atomic_directory(target) if writes else nullcontext() as folder:
        with state.averaged():
            if folder is not None:
                save_parts(folder)
        _write_state(state, step, random_states, folder / STATE_FOLDER if folder is not None else None)
    if writes:
        found = list_checkpoints(output_dir)
        later = found.index(target) + 1
        for old in [*found[later:], *found[:later]][: -limit if limit else 0]:
            shutil.rmtree(old)
    state.accelerator.wait_for_everyone()
    return target


def _write_state(state: TrainingState, step: int, random_states: dict[str, Tensor], folder: Path | None) -> None:
    """All processes give their shards; the one with a folder writes, one file after the other."""

    def write(name: str, tensors: Iterable[tuple[str, Tensor]]) -> None:
        whole = ((key, gathered(value.detach())) for key, value in tensors)
        kept = {key: value.cpu() for key, value in whole if folder is not None}
        if folder is not None:
            write_tensors(folder / f"{name}.safetensors", kept)

    if folder is not None:
        folder.mkdir()
    write("weights", state.parameters.items())
    moments: dict[str, Tensor] = {}
    optimizers = []
    for number, (optimizer, owned) in enumerate(state.optimizers()):
        tensors, more = split_state(optimizer, owned, number)
        moments |= tensors
        optimizers.append(more)
    write("optimizer", moments.items())
    write("random_states", random_states.items())
    if state.buffers:
        write("buffers", state.buffers.items())
    if state.ema is not None:
        write("ema", zip(state.parameters, state.ema.shadow_params, strict=True))
    values = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "processes": state.accelerator.num_processes,
        "accumulation": state.accelerator.gradient_accumulation_steps,
        "settings": state.settings,
        "optimizers": optimizers,
        "counters": state.counters,
        "ema_steps": state.ema.optimization_step if state.ema else None,
        "loss_scaler": state.accelerator.scaler.state_dict() if state.accelerator.scaler else None,
    }
    if folder is not None:
        write_json_with_checksums(folder / "state.json", values)


def load_checkpoint(state: TrainingState, checkpoint: Path) -> int:
    """Put the saved state back and return its step. All processes must call it.

    Raises:
        ConfigError: the checkpoint was made with other settings.
        AdapterError: its files are missing, damaged, or do not fit what is trained.
    """
    folder = checkpoint / STATE_FOLDER
    values = read_json(folder / "state.json")
    _check_settings(state.settings, values, checkpoint)

    def read(name: str, expected: Mapping[str, Tensor] | None = None) -> TensorFile:
        tensors = TensorFile(folder / f"{name}.safetensors", values["files"].get(f"{name}.safetensors"))
        if expected is not None:
            tensors.check_shapes(expected)
        return tensors

    files = {"weights": read("weights", state.parameters)}
    targets: dict[str, Mapping[str, Tensor]] = {"weights": state.parameters}
    if state.buffers:
        files["buffers"], targets["buffers"] = read("buffers", state.buffers), state.buffers
    if state.ema is not None:
        files["ema"] = read("ema", state.parameters)
        targets["ema"] = dict(zip(state.parameters, state.ema.shadow_params, strict=True))
        state.ema.optimization_step = values["ema_steps"]
    moments, random_states = read("optimizer"), read("random_states")
    with torch.no_grad():
        for name, tensors in files.items():
            for key, target in targets[name].items():
                target.copy_(spread(tensors[key], target))
    _load_moments(state, moments, values["optimizers"])
    state.counters.update(values["counters"])
    if state.accelerator.scaler is not None:
        state.accelerator.scaler.load_state_dict(values["loss_scaler"])
    restore_random_states(state.accelerator, random_states, state.settings.get("seed", 0), values["step"])
    _tell_of_other_division(state.accelerator, values)
    return values["step"]


def _tell_of_other_division(accelerator: Accelerator, values: dict[str, Any]) -> None:
    """Say that a run is continued by another number of processes, or with another number of batches a step."""
    before = (values["processes"], values["accumulation"])
    now = (accelerator.num_processes, accelerator.gradient_accumulation_steps)
    if before != now and accelerator.is_main_process:
        was, here = ("{} processes, {} batches a step".format(*pair) for pair in (before, now))
        print(
            f"saved with {was}; continued with {here}: noise differs from an undisturbed run, the order of the data "
            "does not"
        )


def saved_step(checkpoint: Path) -> int:
    """The step that `checkpoint` was made at. Raises AdapterError if it is damaged."""
    return read_json(checkpoint / STATE_FOLDER / "state.json")["step"]


def check_settings(checkpoint: Path, settings: dict[str, Any]) -> None:
    """Refuse what `load_checkpoint` would refuse, before anything is loaded.

    Args:
        settings: those that are known by now of what a continued run must share.

    Raises:
        ConfigError: the checkpoint was made with other settings.
        AdapterError: it is damaged.
    """
    values = read_json(checkpoint / STATE_FOLDER / "state.json")
    values["settings"] = {name: value for name, value in values.get("settings", {}).items() if name in settings}
    _check_settings(settings, values, checkpoint)


def _load_moments(state: TrainingState, file: TensorFile, values: list[dict[str, Any]]) -> None:
    for name in file:
        if not name.startswith("group ") and name.rpartition(":")[0] not in state.parameters:
            raise AdapterError(f"{file.path}: {name} belongs to nothing that is trained")
    for number, (optimizer, owned) in enumerate(state.optimizers()):
        try:
            join_state(optimizer, owned, file, values[number] if number < len(values) else {})
        except (KeyError, ValueError, RuntimeError) as error:
            raise AdapterError(f"{file.path} does not hold the state of this optimizer: {error}") from error


def _check_settings(settings: dict[str, Any], values: dict[str, Any], checkpoint: Path) -> None:
    if values.get("format_version") != FORMAT_VERSION:
        raise ConfigError(
            f"{checkpoint} has format {values.get('format_version')!r}; this release reads {FORMAT_VERSION}"
        )
    saved = values["settings"]
    for name in sorted(set(saved) | set(settings)):
        # Compared as JSON, which turns tuples into lists; 5 of a YAML file is 5.0 of the command line.
        before, now = (json.dumps(known.get(name)) for known in (saved, settings))
        unknown_and_off = name not in saved and settings[name] is False  # to the release that made the checkpoint
        if json.loads(before) != json.loads(now) and not unknown_and_off:
            raise ConfigError(
                f"{checkpoint} was made with {name}={before}; this run has {name}={now}. "
                "Begin anew in another folder, or here with --overwrite"
            )
