"""Shards of tensors on the disk: named by content, kept over kills, checked."""

import copy

import pytest
import torch
from accelerate import Accelerator

from geopos_diffusers.errors import DataError
from geopos_diffusers.finetuning import tensor_shards
from geopos_diffusers.finetuning.tensor_shards import TensorShards, make_shards, weights_digest

COUNT = 10


@pytest.fixture(autouse=True)
def few_items(monkeypatch):
    monkeypatch.setattr(tensor_shards, "SHARD_ITEMS", 4)


def value(index: int) -> torch.Tensor:
    return torch.arange(6.0).reshape(2, 3) * (index // 2)  # neighbours are equal


class Computation:
    """Notes which items are computed, and can be killed at one of them."""

    def __init__(self, folder, dies_at=None, salt="") -> None:
        self.folder, self.dies_at, self.salt, self.computed = folder, dies_at, salt, []

    def compute(self, indices: range):
        self.computed += indices
        if self.dies_at in indices:
            raise KeyboardInterrupt
        distinct = list(dict.fromkeys(index // 2 for index in indices))
        places = [distinct.index(index // 2) for index in indices]
        return places, ({"value": value(2 * half), "half": torch.tensor(half)} for half in distinct)

    def run(self) -> TensorShards:
        digest = lambda index: f"{self.salt if index == 9 else ''}{index}".encode()  # noqa: E731
        files = make_shards(self.folder, "kind", COUNT, "settings", digest, self.compute, Accelerator(cpu=True))
        return TensorShards(files, ("value", "half"))


def test_every_item_comes_back(tmp_path):
    shards = Computation(tmp_path).run()
    assert len([*tmp_path.iterdir()]) == 3
    for index in (9, 0, 5, 4, 8, 1):
        assert torch.equal(shards[index]["value"], value(index))
        assert shards[index]["half"] == index // 2
    assert torch.equal(copy.deepcopy(shards)[7]["value"], value(7))  # as it goes to a worker


def test_a_killed_computation_goes_on_with_what_is_there(tmp_path):
    killed = Computation(tmp_path, dies_at=6)
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    assert killed.computed == list(range(8))
    assert len([*tmp_path.iterdir()]) == 1
    later = Computation(tmp_path)
    later.run()
    assert later.computed == list(range(4, 10))
    again = Computation(tmp_path)
    again.run()
    assert again.computed == []


def test_what_depends_on_other_contents_is_computed_anew(tmp_path):
    Computation(tmp_path).run()
    changed = Computation(tmp_path, salt="changed")
    changed.run()
    assert changed.computed == [8, 9]
    assert len([*tmp_path.iterdir()]) == 4


@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
def test_damage_is_named(tmp_path, damage):
    shards = Computation(tmp_path).run()
    file = shards.files[1]
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        position = data.index(value(4).numpy().tobytes()) + 4
        data[position] ^= 1
        file.write_bytes(data[:100] if damage == "cut" else data)
    with pytest.raises(DataError, match=rf"{file.name} is damaged .*; remove it to have it made anew"):
        TensorShards(shards.files, ("value", "half"))[4]
    assert torch.equal(TensorShards(shards.files, ("value", "half"))[0]["value"], value(0))
    if damage == "cut":
        with pytest.raises(DataError, match=f"{file.name} is damaged"):
            Computation(tmp_path).run()


def test_few_files_are_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_shards, "OPEN_SHARDS", 2)
    shards = Computation(tmp_path).run()
    for index in (0, 4, 8, 0, 9):
        assert torch.equal(shards[index]["value"], value(index))
        assert len(shards._open) <= 2


def test_the_digest_of_weights_follows_every_value():
    layer = torch.nn.Linear(3, 2)
    before = weights_digest(layer)
    assert weights_digest(layer) == before
    with torch.no_grad():
        layer.weight[1, 2] += 1e-6
    assert weights_digest(layer) != before
