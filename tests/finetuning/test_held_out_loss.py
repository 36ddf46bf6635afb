"""The loss on held-out images while training: fixed, without a trace, and the one that chooses best/."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from torch.nn.functional import mse_loss

from geopos_diffusers import load_geoconv_weights
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.held_out_split import evenly_spaced_part, held_out, split_data
from geopos_diffusers.finetuning.image_text_data import load_image_text
from geopos_diffusers.finetuning.text_to_image import TextToImage
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training.loss_log import read_losses

OPTIONS = {
    "train": "geoconv",
    "learning_rate": 0.05,
    "use_ema": True,
    "max_train_steps": 6,
    "checkpointing_steps": 2,
    "caption_dropout": 0.5,
    "validation_split_share": 0.3,
    "validation_loss_steps": 2,
}
VALIDATION = tuple(name for name in OPTIONS if name.startswith("validation_loss"))


def rows(folder: Path) -> list[dict]:
    return read_losses(folder / "validation_losses.jsonl")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "geoconv_weights.safetensors")


def same(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def whole(finetune_into, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finetune_into(folder, report_to="tensorboard", **OPTIONS)
    return folder


class TestSplit:
    @pytest.mark.parametrize("share", [0.05, 0.3])
    def test_the_share_and_that_more_items_change_nothing(self, share):
        chosen = held_out(20_000, share)
        assert chosen.mean() == pytest.approx(share, abs=0.01)
        assert np.array_equal(held_out(15_000, share), chosen[:15_000])

    def test_neighbours_are_independent(self):
        chosen = held_out(100_000, 0.25)
        assert (chosen[1:] & chosen[:-1]).mean() == pytest.approx(0.25**2, abs=0.005)

    def test_parts_are_disjoint_and_whole(self, images):
        data = load_image_text(str(images), 32)
        train, held = split_data(data, 0.3)
        assert sorted([*train.captions, *held.captions]) == sorted(data.captions)
        assert len({train.fingerprint(), held.fingerprint(), data.fingerprint()}) == 3
        assert held[0]["caption"] == held.captions[0]
        assert train.skipped == held.skipped == data.skipped == 0
        few = evenly_spaced_part(data, 4)
        assert list(few.captions) == [data.captions[index] for index in (0, 2, 5, 7)]
        assert len(evenly_spaced_part(data, 99)) == 10

    def test_an_empty_part_is_refused(self):
        with pytest.raises(ConfigError, match=r"validation_split_share 0.001 holds out 0 of 10 images"):
            held_out(10, 0.001)


class TestARun:
    def test_values_are_written_and_tracked(self, whole):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        lines = rows(whole)
        assert [line["step"] for line in lines] == [0, 2, 4, 6]
        bands = [f"validation_loss_band_{band}" for band in range(4)]
        assert all(line.keys() == {"step", "validation_loss", *bands} for line in lines)
        for line in lines:
            assert line["validation_loss"] == pytest.approx(np.mean([line[name] for name in bands]))
        assert len({line["validation_loss"] for line in lines}) == 4
        events = EventAccumulator(str(whole / "logs" / "finetune")).Reload()
        for name in ("validation_loss", "validation_loss_band_3"):
            logged = [(event.step, event.value) for event in events.Scalars(name)]
            assert logged == [(line["step"], pytest.approx(line[name])) for line in lines]

    def test_training_is_the_same_with_and_without(self, whole, finetune):
        options = {name: value for name, value in OPTIONS.items() if name not in VALIDATION}
        plain, expected = finetune("rarer", validation_loss_steps=100, **options)
        assert read_losses(whole / "losses.jsonl") == expected
        state = Path("checkpoint-6", "training_state")
        for file in ("weights", "ema", "optimizer", "random_states"):
            one, two = (load_file(folder / state / f"{file}.safetensors") for folder in (plain, whole))
            assert all(torch.equal(one[name], two[name]) for name in one), file

    def test_best_holds_the_averaged_weights_of_the_lowest(self, whole):
        lines = rows(whole)
        lowest = min(lines, key=lambda line: line["validation_loss"])
        best = json.loads((whole / "best" / "best.json").read_text())
        assert best == {"step": lowest["step"], "measure": "validation_loss", "value": lowest["validation_loss"]}
        assert json.loads((whole / "summary.json").read_text())["best"] == best
        assert lowest["step"] > 0
        assert same(whole / "best", whole / f"checkpoint-{lowest['step']}")

    def test_values_are_those_of_the_saved_weights(self, whole, model, images):
        """Computed again from final/ and the formula."""
        args = TextToImageArguments(
            dataset=str(images), output_dir="o", model=str(model), max_train_steps=1, train="geoconv"
        )
        task = TextToImage(args, Accelerator(cpu=True))
        task.build()
        task.pipe.unet = tiny_stable_diffusion().unet
        load_geoconv_weights(task.pipe, whole / "final")
        task.pipe.unet.eval()
        _, held = split_data(load_image_text(str(images), 32), 0.3)
        generator, losses = torch.Generator().manual_seed(0), {}
        for start in range(0, len(held), 2):
            items = [held[index] for index in range(start, min(start + 2, len(held)))]
            with torch.no_grad():
                pixels = torch.stack([item["pixels"] for item in items])
                latents = task.pipe.vae.encode(pixels).latent_dist.mode() * task.pipe.vae.config.scaling_factor
                text = task.pipe.encode_prompt([item["caption"] for item in items], "cpu", 1, False)[0]
                for band in range(4):
                    noise = torch.randn(latents.shape, generator=generator)
                    steps = ((band + torch.rand(len(items), generator=generator)) * 250).long()
                    assert steps.min() >= 250 * band
                    assert steps.max() < 250 * (band + 1)
                    noisy = task.pipe.scheduler.add_noise(latents, noise, steps)
                    prediction = task.pipe.unet(noisy, steps, text).sample
                    losses.setdefault(band, []).extend(
                        mse_loss(a, b).item() for a, b in zip(prediction, noise, strict=True)
                    )
        for band, values in losses.items():
            assert rows(whole)[-1][f"validation_loss_band_{band}"] == pytest.approx(np.mean(values), rel=1e-5)

    def test_a_killed_run_continues_as_if_it_had_never_stopped(self, whole, finetune, tmp_path):
        copied = shutil.copytree(whole, tmp_path / "copied")
        for step in (4, 6):
            shutil.rmtree(copied / f"checkpoint-{step}")
        (copied / ".validation_losses-abcdefgh.jsonl").touch()
        finetune("copied", **OPTIONS)
        assert rows(copied) == rows(whole)
        assert (copied / "best" / "best.json").read_text() == (whole / "best" / "best.json").read_text()
        assert same(copied / "best", whole / "best")
        states = [
            json.loads((folder / "checkpoint-6" / "training_state" / "state.json").read_text())["counters"]
            for folder in (copied, whole)
        ]
        assert states[0] == states[1]
        assert not (copied / ".validation_losses-abcdefgh.jsonl").exists()

    def test_a_data_set_of_its_own_with_bands_and_cached_latents(self, finetune, images):
        options = {name: value for name, value in OPTIONS.items() if name != "validation_split_share"}
        more = {"validation_dataset": images, "validation_bands": 2, "validation_loss_images": 4, "cache_latents": True}
        folder, _ = finetune("own", **options | more)
        assert rows(folder)[0].keys() == {"step", "validation_loss", "validation_loss_band_0", "validation_loss_band_1"}
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["images"], summary["validation_images"]) == (10, 4)


@pytest.mark.slow
def test_two_processes(model, images, whole, tmp_path):
    """The first measures and decides for both: the values of the untrained model are those of one process."""
    command = [sys.executable, "-m", "geopos_diffusers.cli.main", "train", "--cpu", "--num_processes", "2"]
    stopping = {"learning_rate": 5.0, "use_ema": False, "validation_loss_steps": 1, "early_stopping": 2}
    values = OPTIONS | stopping | {"max_train_steps": 20, "train_batch_size": 2, "report_to": "none"}
    values |= {"model": model, "dataset": images, "output": tmp_path / "run"}
    done = subprocess.run(
        [*command, *(f"--{key}={value}" for key, value in values.items())], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = rows(tmp_path / "run")
    assert lines[0] == pytest.approx(rows(whole)[0], rel=1e-5)
    best = json.loads((tmp_path / "run" / "best" / "best.json").read_text())["step"]
    assert lines[-1]["step"] == best + 2 < 20
    assert f"ended early at step {best + 2} of 20" in done.stdout


class TestEarlyStopping:
    STOPPING = OPTIONS | {"learning_rate": 5.0, "use_ema": False, "validation_loss_steps": 1, "early_stopping": 2}

    def test_it_ends_and_stays_ended(self, finetune, capsys):
        options = self.STOPPING | {"max_train_steps": 40}
        folder, lines = finetune("stops", **options)
        values = [line["validation_loss"] for line in rows(folder)]
        best = int(np.argmin(values))
        assert len(values) == best + 3 < 40
        assert len(lines) == len(values) - 1
        assert (folder / f"checkpoint-{len(lines)}").is_dir()
        assert (folder / "final").is_dir()
        assert f"ended early at step {len(lines)} of 40" in capsys.readouterr().out
        assert json.loads((folder / "best" / "best.json").read_text())["step"] == best
        assert finetune("stops", **options)[1] == lines

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"early_stopping": 1},
                "early_stopping needs validation_dataset, validation_split_share or evaluate_every",
            ),
            ({"best_by": "validation_loss"}, "best_by is validation_loss, but this run measures nothing"),
            ({"validation_split_share": 0.3, "best_by": "found"}, "but this run measures validation_loss"),
            ({"validation_split_share": 0.3, "validation_dataset": "x"}, "validation_split_share, not both"),
            ({"validation_split_share": 0.7}, "validation_split_share must be a number .* 0.5; got 0.7"),
            ({"validation_loss_steps": 5}, "validation_loss_steps needs validation_dataset or"),
            ({"validation_bands": 5}, "validation_bands needs validation_dataset or"),
            (
                {
                    "validation_split_share": 0.3,
                    "evaluate_every": 5,
                    "evaluation_prompts": "p",
                    "evaluation_reference": "r",
                },
                "two measures could choose best/; give best_by: validation_loss or good",
            ),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_what_does_not_go_together(self, options, message):
        with pytest.raises(ConfigError, match=message):
            TextToImageArguments(dataset="d", output_dir="o", max_train_steps=1, **options)

    def test_the_measure_of_the_hands_may_be_named_by_best_by(self):
        pytest.importorskip("mediapipe")
        given = {"dataset": "d", "output_dir": "o", "max_train_steps": 1, "validation_split_share": 0.3}
        given |= {"evaluate_every": 5, "evaluation_prompts": "p", "evaluation_reference": "r"}
        args = TextToImageArguments(**given, best_by="found")
        assert (args.best_measure, args.hand_measure) == ("found", "found")
        args = TextToImageArguments(**given, best_by="validation_loss", evaluation_measure="found")
        assert (args.best_measure, args.hand_measure) == ("validation_loss", "found")
        with pytest.raises(ConfigError, match="best_by is good, but this run measures validation_loss and found"):
            TextToImageArguments(**given, best_by="good", evaluation_measure="found")
