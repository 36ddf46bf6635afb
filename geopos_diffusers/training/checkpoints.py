"""Checkpoints of a run: the trained parts in their final format, and the exact state to continue from.

`checkpoint-N/` holds what `save_trained_parts` writes and, in `training_state/`, the raw trained weights, the
optimizer's moments, the moving average and the random states as safetensors, and the counters and settings as JSON.
accelerate's own `save_state` is not used: its optimizer and random state files are pickles, which this project never
loads.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from ..errors import AdapterError, ConfigError
from ..files import atomic_directory, remove_leftovers
from .loss_log import VALIDATION_LOSSES
from .optimizer_state import join_state, split_state

FORMAT_VERSION = 1
STATE_FOLDER = "training_state"
FILES = ("summary.json", "losses.png", VALIDATION_LOSSES)  # of a run, beside losses.jsonl


@dataclass
class TrainingState:
    """All that changes while training, beyond the step.

    parameters: what is trained, by name. optimizer: as `accelerator.prepare` returned it, over those parameters in that
    order; or several, each over the parameters that follow those of the one before. settings: what a continued run must
    share, JSON-ready. buffers: what else the forward pass changes, such as the running means of batch normalisation.
    counters: what else a continued run needs, JSON-ready, such as the best score so far.
    """

    accelerator: Accelerator
    parameters: dict[str, Parameter]
    optimizer: Any
    ema: EMAModel | None
    settings: dict[str, Any]
    buffers: dict[str, Tensor] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)

    def optimizers(self) -> Iterator[tuple[Any, list[str]]]:
        """Each optimizer with the names of its parameters, in the order of its state's indices."""
        names = iter(self.parameters)
        for optimizer in self.optimizer if isinstance(self.optimizer, (list, tuple)) else [self.optimizer]:
            yield optimizer, list(islice(names, sum(len(group["params"]) for group in optimizer.param_groups)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving average, if there is one, in the place of the trained weights for a while.

        It is `ema`, or that of an optimizer that keeps one itself (schedule-free ones).
        """
        averaging = [one for optimizer, _ in self.optimizers() if hasattr(one := unwrapped(optimizer), "eval")]
        if self.ema is None and not averaging:
            yield
            return
        # Kept aside, since schedule-free optimizers compute the trained weights back, with other roundings.
        kept = [parameter.detach().to("cpu", copy=True) for parameter in self.parameters.values()]
        for optimizer in averaging:
            optimizer.eval()
        if self.ema is not None:
            self.ema.copy_to(self.parameters.values())
        try:
            yield
        finally:
            for optimizer in averaging:
                optimizer.train()
            with torch.no_grad():
                for parameter, value in zip(self.parameters.values(), kept, strict=True):
                    parameter.copy_(value)


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

    Args:
        save_parts: writes the trained parts into a folder; called with the moving average in place, if there is one.
    """
    target = Path(output_dir) / f"checkpoint-{step}"
    random_states = _gather_random_states(state.accelerator)
    if state.accelerator.is_main_process:
        with atomic_directory(target) as folder:
            with state.averaged():
                save_parts(folder)
            _write_state(state, step, random_states, folder / STATE_FOLDER)
        for old in list_checkpoints(output_dir)[: -limit if limit else 0]:
            shutil.rmtree(old)
    state.accelerator.wait_for_everyone()
    return target


def _write_state(state: TrainingState, step: int, random_states: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir()
    save_file(
        {name: value.detach().contiguous() for name, value in state.parameters.items()}, folder / "weights.safetensors"
    )
    moments: dict[str, Tensor] = {}
    optimizers = []
    for number, (optimizer, owned) in enumerate(state.optimizers()):
        tensors, more = split_state(optimizer, owned, number)
        moments |= tensors
        optimizers.append(more)
    save_file(moments, folder / "optimizer.safetensors")
    save_file(random_states, folder / "random_states.safetensors")
    if state.buffers:
        save_file({name: value.contiguous() for name, value in state.buffers.items()}, folder / "buffers.safetensors")
    if state.ema is not None:
        average = {
            name: value.contiguous() for name, value in zip(state.parameters, state.ema.shadow_params, strict=True)
        }
        save_file(average, folder / "ema.safetensors")
    values = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "processes": state.accelerator.num_processes,
        "settings": state.settings,
        "optimizers": optimizers,
        "counters": state.counters,
        "ema_steps": state.ema.optimization_step if state.ema else None,
        "loss_scaler": state.accelerator.scaler.state_dict() if state.accelerator.scaler else None,
    }
    (folder / "state.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def load_checkpoint(state: TrainingState, checkpoint: Path) -> int:
    """Put the saved state back and return its step. All processes must call it.

    Raises:
        ConfigError: the checkpoint was made with other settings or another number of processes.
        AdapterError: its files are missing, damaged, or do not fit what is trained.
    """
    folder = checkpoint / STATE_FOLDER
    values = _read_json(folder / "state.json")
    _check_settings(state, values, checkpoint)
    weights = _read_tensors(folder / "weights.safetensors")
    _check_names(weights, state.parameters, folder / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(weights[name])

    _load_moments(state, folder / "optimizer.safetensors", values.get("optimizers", []))
    state.counters.update(values.get("counters", {}))
    if state.buffers:
        buffers = _read_tensors(folder / "buffers.safetensors")
        _check_names(buffers, state.buffers, folder / "buffers.safetensors")
        for name, value in state.buffers.items():
            value.copy_(buffers[name])
    if state.ema is not None:
        average = _read_tensors(folder / "ema.safetensors")
        _check_names(average, state.parameters, folder / "ema.safetensors")
        for name, shadow in zip(state.parameters, state.ema.shadow_params, strict=True):
            shadow.copy_(average[name])
        state.ema.optimization_step = values["ema_steps"]
    if state.accelerator.scaler is not None:
        state.accelerator.scaler.load_state_dict(values["loss_scaler"])
    _restore_random_states(state.accelerator, _read_tensors(folder / "random_states.safetensors"))
    return values["step"]


def saved_step(checkpoint: Path) -> int:
    """The step that `checkpoint` was made at. Raises AdapterError if it is damaged."""
    return _read_json(checkpoint / STATE_FOLDER / "state.json")["step"]


def check_settings(checkpoint: Path, settings: dict[str, Any], accelerator: Accelerator) -> None:
    """Refuse what `load_checkpoint` would refuse, before anything is loaded.

    Args:
        settings: those that are known by now of what a continued run must share.

    Raises:
        ConfigError: the checkpoint was made with other settings or another number of processes.
        AdapterError: it is damaged.
    """
    values = _read_json(checkpoint / STATE_FOLDER / "state.json")
    values["settings"] = {name: value for name, value in values.get("settings", {}).items() if name in settings}
    _check_settings(TrainingState(accelerator, {}, None, None, settings), values, checkpoint)


def _load_moments(state: TrainingState, file: Path, values: list[dict[str, Any]]) -> None:
    moments = _read_tensors(file)
    for name in moments:
        if not name.startswith("group ") and name.rpartition(":")[0] not in state.parameters:
            raise AdapterError(f"{file}: {name} belongs to nothing that is trained")
    for number, (optimizer, owned) in enumerate(state.optimizers()):
        try:
            join_state(optimizer, owned, moments, values[number] if number < len(values) else {})
        except (KeyError, ValueError, RuntimeError) as error:
            raise AdapterError(f"{file} does not hold the state of this optimizer: {error}") from error


def _check_settings(state: TrainingState, values: dict[str, Any], checkpoint: Path) -> None:
    if values.get("format_version") != FORMAT_VERSION:
        raise ConfigError(
            f"{checkpoint} has format {values.get('format_version')!r}; this release reads {FORMAT_VERSION}"
        )
    if values["processes"] != state.accelerator.num_processes:
        raise ConfigError(
            f"{checkpoint} was made with {values['processes']} processes; "
            f"this run has {state.accelerator.num_processes}"
        )
    saved = values["settings"]
    for name in sorted(set(saved) | set(state.settings)):
        # Compared as JSON, which turns tuples into lists; 5 of a YAML file is 5.0 of the command line.
        before, now = (json.dumps(settings.get(name)) for settings in (saved, state.settings))
        if json.loads(before) != json.loads(now):
            raise ConfigError(
                f"{checkpoint} was made with {name}={before}; this run has {name}={now}. "
                "Begin anew in another folder, or here with --overwrite"
            )


def _check_names(tensors: dict[str, Tensor], parameters: Mapping[str, Tensor], file: Path) -> None:
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    expected = {name: tuple(value.shape) for name, value in parameters.items()}
    if found != expected:
        name = next(name for name in {**expected, **found} if found.get(name) != expected.get(name))
        raise AdapterError(f"{file}: {name} has shape {found.get(name)} here and {expected.get(name)} in the model")


def _gather_random_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """The global random states of every process: [processes, bytes] uint8, of the CPU and of the device."""
    states = {"cpu": torch.get_rng_state()}
    if accelerator.device.type != "cpu":
        states["device"] = torch.get_device_module(accelerator.device).get_rng_state()
    return {name: accelerator.gather(value.to(accelerator.device)[None]).cpu() for name, value in states.items()}


def _restore_random_states(accelerator: Accelerator, states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"][accelerator.process_index].clone())
    if accelerator.device.type != "cpu":
        if "device" not in states:
            raise ConfigError(
                f"the checkpoint was made on a CPU and cannot be continued exactly on {accelerator.device}"
            )
        device_state = states["device"][accelerator.process_index].clone()
        torch.get_device_module(accelerator.device).set_rng_state(device_state)


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{file} is missing or damaged: {error}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{file} is missing or damaged: {error}") from error
