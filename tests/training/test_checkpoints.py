import json

import pytest
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file

from geopos_diffusers.errors import AdapterError, ConfigError
from geopos_diffusers.training.checkpoints import (
    TrainingState,
    clear_output,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def make_state(seed: int = 0, names=("b", "a"), settings=None) -> TrainingState:
    torch.manual_seed(seed)
    parameters = {name: torch.nn.Parameter(torch.randn(3, 2)) for name in names}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    ema = EMAModel(parameters.values(), decay=0.9)
    return TrainingState(
        Accelerator(cpu=True), parameters, optimizer, ema, settings or {"train": "lora", "size": [1, 2]}
    )


def advance(state: TrainingState, steps: int) -> list[torch.Tensor]:
    """Steps with random gradients; returns the parameters after each."""
    history = []
    for _ in range(steps):
        for parameter in state.parameters.values():
            parameter.grad = torch.randn_like(parameter)
        state.optimizer.step()
        state.ema.step(state.parameters.values())
        history.append(torch.cat([parameter.detach().flatten() for parameter in state.parameters.values()]))
    return history


def save(state: TrainingState, step: int, folder, limit=None):
    def save_parts(target):
        save_file({name: value.detach() for name, value in state.parameters.items()}, target / "parts.safetensors")

    return save_checkpoint(state, step, folder, save_parts, limit)


def test_a_restored_state_continues_bit_for_bit(tmp_path):
    state = make_state()
    advance(state, 3)
    folder = save(state, 3, tmp_path)
    expected = advance(state, 3)
    other = make_state(seed=5)
    assert load_checkpoint(other, folder) == 3
    assert all(torch.equal(a, b) for a, b in zip(advance(other, 3), expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(other.ema.shadow_params, state.ema.shadow_params, strict=True))


def test_two_optimizers_and_buffers_continue_bit_for_bit(tmp_path):
    def make(seed):
        state = make_state(seed, names=("b", "a", "c"))
        first, second = (list(state.parameters.values())[part] for part in (slice(1), slice(1, 3)))
        state.optimizer = (torch.optim.Adam(first, lr=0.1), torch.optim.AdamW(second, lr=0.01))
        state.ema, state.buffers = None, {"mean": torch.full((2,), float(seed)), "count": torch.tensor(seed)}
        return state

    def advance_both(state):
        for parameter in state.parameters.values():
            parameter.grad = torch.randn_like(parameter)
        for optimizer in state.optimizer:
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in state.parameters.values()])

    state, other = make(0), make(5)
    advance_both(state)
    folder = save(state, 1, tmp_path)
    expected = [advance_both(state) for _ in range(3)]
    assert load_checkpoint(other, folder) == 1
    assert torch.equal(other.buffers["mean"], torch.zeros(2))
    assert other.buffers["count"] == 0
    assert all(torch.equal(advance_both(other), value) for value in expected)
    other.buffers["mean"] = torch.zeros(3)
    with pytest.raises(AdapterError, match=r"mean has shape \(2,\) here and \(3,\)"):
        load_checkpoint(other, folder)


def test_parts_hold_the_average_and_saving_changes_nothing(tmp_path):
    state = make_state()
    advance(state, 3)
    before = {name: value.detach().clone() for name, value in state.parameters.items()}
    random_state = torch.get_rng_state()
    parts = load_file(save(state, 3, tmp_path) / "parts.safetensors")
    assert all(torch.equal(parts[name], average) for name, average in zip(before, state.ema.shadow_params, strict=True))
    assert all(torch.equal(state.parameters[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_no_file_is_a_pickle(tmp_path):
    folder = save(make_state(), 1, tmp_path)
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} == {".safetensors", ".json"}


def test_a_failed_save_leaves_nothing(tmp_path):
    def full_disk(folder):
        (folder / "half").write_text("x")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(make_state(), 1, tmp_path, full_disk)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_found_and_rotated_by_number(tmp_path):
    state = make_state()
    for step in (2, 9, 10, 100):
        save(state, step, tmp_path, limit=3)
    (tmp_path / "checkpoint-old").mkdir()
    (tmp_path / "checkpoint-200").write_text("a file")
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert find_checkpoint(tmp_path, "latest").name == "checkpoint-100"
    assert find_checkpoint(tmp_path, "checkpoint-9") == find_checkpoint("elsewhere", str(tmp_path / "checkpoint-9"))
    with pytest.raises(ConfigError, match="checkpoint-old is not a checkpoint"):
        find_checkpoint(tmp_path, "checkpoint-old")
    with pytest.raises(ConfigError, match="holds no checkpoint to resume from"):
        find_checkpoint(tmp_path / "none", "latest")


@pytest.mark.parametrize(
    ("limit", "kept"), [(None, [10, 20, 23, 30, 40]), (4, [10, 20, 23, 40]), (2, [20, 23]), (1, [23])]
)
def test_a_resumed_run_keeps_its_own_checkpoints_before_those_of_later_steps(tmp_path, limit, kept):
    state = make_state()
    for step in (10, 20, 30, 40):
        save(state, step, tmp_path)
    assert save(state, 23, tmp_path, limit).is_dir()
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in kept]


def test_clearing_takes_only_what_a_run_wrote(tmp_path):
    save(make_state(), 1, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    for name, file in (("best", "best.json"), ("evaluation", "evaluation.json")):  # the second of `geopos evaluate`
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    clear_output(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation", "notes.txt"]


def test_a_number_of_a_file_is_that_of_the_command_line(tmp_path):
    checkpoint = save(make_state(settings={"snr_gamma": 5}), 3, tmp_path)
    assert load_checkpoint(make_state(settings={"snr_gamma": 5.0}), checkpoint) == 3
    with pytest.raises(ConfigError, match=r"made with snr_gamma=5; this run has snr_gamma=4\.0\. .* --overwrite"):
        load_checkpoint(make_state(settings={"snr_gamma": 4.0}), checkpoint)


def test_a_switch_that_an_older_release_did_not_have_is_off(tmp_path):
    checkpoint = save(make_state(settings={"size": 1}), 3, tmp_path)
    assert load_checkpoint(make_state(settings={"size": 1, "frame_window": False}), checkpoint) == 3
    with pytest.raises(ConfigError, match="made with frame_window=null; this run has frame_window=true"):
        load_checkpoint(make_state(settings={"size": 1, "frame_window": True}), checkpoint)


class TestRefusals:
    def test_other_settings(self, tmp_path):
        folder = save(make_state(settings={"train": "lora", "size": (1, 2)}), 1, tmp_path)
        load_checkpoint(make_state(settings={"train": "lora", "size": [1, 2]}), folder)
        with pytest.raises(ConfigError, match='made with train="lora"; this run has train="full"'):
            load_checkpoint(make_state(settings={"train": "full", "size": [1, 2]}), folder)
        with pytest.raises(ConfigError, match="made with extra=null; this run has extra=1"):
            load_checkpoint(make_state(settings={"train": "lora", "size": [1, 2], "extra": 1}), folder)

    def test_other_parameters(self, tmp_path):
        folder = save(make_state(), 1, tmp_path)
        with pytest.raises(AdapterError, match=r"c has shape None here and \(3, 2\) in the model"):
            load_checkpoint(make_state(names=("a", "b", "c")), folder)

    def test_other_format(self, tmp_path):
        file = save(make_state(), 1, tmp_path) / "training_state" / "state.json"
        values = {name: value for name, value in json.loads(file.read_text()).items() if name != "checksum"}
        file.write_text(json.dumps({**values, "format_version": 9}))
        with pytest.raises(ConfigError, match="has format 9"):
            load_checkpoint(make_state(), tmp_path / "checkpoint-1")

    @pytest.mark.parametrize("name", ["weights", "optimizer", "ema", "random_states", "state"])
    def test_any_bit_that_changed(self, tmp_path, name):
        state = make_state()
        advance(state, 1)
        folder = save(state, 1, tmp_path)
        file = next((folder / "training_state").glob(f"{name}.*"))
        data = bytearray(file.read_bytes())
        data[-20 if name != "state" else data.index(b'"step": 1') + 8] ^= 2
        file.write_bytes(data)
        with pytest.raises(AdapterError, match=f"{name}.* is missing or damaged: its checksum"):
            load_checkpoint(make_state(), folder)

    @pytest.mark.parametrize("name", ["weights", "optimizer", "ema", "random_states", "state"])
    def test_missing_or_cut_files(self, tmp_path, name):
        state = make_state()
        advance(state, 1)
        folder = save(state, 1, tmp_path)
        file = next((folder / "training_state").glob(f"{name}.*"))
        file.write_bytes(file.read_bytes()[:20])
        with pytest.raises(AdapterError, match=f"{name}.* is missing or damaged"):
            load_checkpoint(make_state(), folder)
        file.unlink()
        with pytest.raises(AdapterError, match=f"{name}.* is missing or damaged"):
            load_checkpoint(make_state(), folder)
