"""Tiny runs of every training of the project, and the losses that they had when the three loops became one.

`python tests/recorded_losses.py` writes tests/recorded_losses.json anew, only where losses are meant to change, and
`python tests/recorded_losses.py --check` compares to the last bit.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from PIL import Image

TESTS = Path(__file__).parent
sys.path[:0] = [path for path in (str(TESTS.parent), str(TESTS.parent / "scripts"), str(TESTS)) if path not in sys.path]

from tiny_models import tiny_stable_diffusion  # noqa: E402

from geopos_diffusers.training.loss_log import read_losses  # noqa: E402
from geopos_diffusers.training.tracking import build_accelerator  # noqa: E402

FILE = TESTS / "recorded_losses.json"
Lines = list[dict[str, float]]


def finetuning(folder: Path) -> Lines:
    """Accumulation, a moving average, two parts with their rates, warm-up and cosine; stopped and continued."""
    from geopos_diffusers.finetuning.text_to_image import main

    tiny_stable_diffusion().save_pretrained(folder / "model")
    (folder / "images").mkdir()
    lines = []
    for index, pixels in enumerate(torch.randint(256, (7, 40, 48, 3), generator=torch.Generator().manual_seed(0))):
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(folder / "images" / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": f"a hand with {index} fingers"}))
    (folder / "images" / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = (
        f"--model {folder / 'model'} --dataset {folder / 'images'} --output_dir {folder / 'run'} --report_to none "
        "--train geoconv+lora --train_batch_size 2 --gradient_accumulation_steps 2 --use_ema true --snr_gamma 5 "
        "--noise_offset 0.1 --random_flip true --lr_scheduler cosine --lr_warmup_steps 2 --lr_schedule_steps 6 "
        "--checkpointing_steps 3"
    ).split()
    main([*options, "--max_train_steps", "3"])
    AcceleratorState._reset_state(reset_partial_state=True)
    main([*options, "--max_train_steps", "6", "--resume_from_checkpoint", "latest"])
    return read_losses(folder / "run" / "losses.jsonl")


def comparison(folder: Path) -> Lines:
    """A trial with random shifts: short, without a moving average, and scored on the way."""
    from experiments.baselines.position_network import PositionNetwork, PositionTrial
    from experiments.center_of_mass.data import draw_points
    from experiments.comparison import ComparisonArguments, Task, run_trials, score_sets
    from torch.nn.functional import mse_loss

    args = ComparisonArguments(
        output_dir=str(folder),
        results="",
        steps=6,
        batch_size=4,
        train_count=32,
        size=16,
        warmup_steps=2,
        score_every=2,
    )

    def draw(data: str) -> tuple[torch.Tensor, torch.Tensor]:
        return draw_points(args.train_count, args.size, *data.split("/"), seed=1)

    task = Task(
        build=lambda trial: PositionNetwork(trial.widths, 2, trial.head, args.size),
        loss=lambda outputs, targets: {"loss": mse_loss(outputs, targets)},
        train_set=draw,
        scores=lambda network, trial: score_sets(network, {"validation": draw(trial.data)}, mse_loss),
    )
    trial = PositionTrial(data="all/everywhere", head="average", widths=(4, 4), kind="geo", seed=0)
    (record,) = run_trials([trial], task, args, build_accelerator(str(folder), None, 1, "none"), "trial")
    (log,) = folder.glob("*/losses.jsonl")
    return [*read_losses(log), record["scores"]]


def pretraining(folder: Path) -> Lines:
    """The autoencoder's stage: several losses, a moving average, validation by the averaged weights."""
    from accelerate.utils import set_seed
    from experiments.pretraining.arguments import PretrainingArguments
    from experiments.pretraining.run import HandData, train_autoencoder

    args = PretrainingArguments(
        train_data="unused", output_dir=str(folder), resolution=32, validation_count=4, report_to="none",
        vae_channels=[8, 8, 8], vae_latent_channels=4, vae_steps=5, vae_full_steps=2, vae_batch_size=2, vae_crop=16,
        warmup_steps=2, sample_every=3, checkpoint_every=3,
    )  # fmt: skip
    pixels = torch.randint(256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    set_seed(0)
    data = HandData(pixels, ["a hand"] * 16, args.validation_count)
    _, summary = train_autoencoder(args, build_accelerator(str(folder), "no", 1, "none"), data)
    return [*read_losses(folder / "vae" / "losses.jsonl"), {"psnr": summary["psnr"]}]


def gan(folder: Path) -> Lines:
    """Two optimizers, random shifts, running means; stopped and continued."""
    from experiments.gan.arguments import GanArguments
    from experiments.gan.training import train_gan

    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    settings = {"width": 4, "latent_size": 8, "batch_size": 16, "epochs": 5, "evaluate_every": 2, "samples": 24}

    def train(**more: int) -> None:
        args = GanArguments("unused", str(folder), **settings, **more)
        accelerator = build_accelerator(str(folder), "no", 1, "none")
        train_gan(args, accelerator, "geo", 0, images, lambda samples, epoch: {"covered": samples.mean().item()})

    train(stop_at_epoch=3)
    train()
    return read_losses(folder / "geo-seed0" / "losses.jsonl")


RUNS: dict[str, Callable[[Path], Lines]] = {run.__name__: run for run in (finetuning, comparison, pretraining, gan)}


def record(name: str, folder: Path) -> Lines:
    """The loss lines, and scores, of a run; without its times."""
    AcceleratorState._reset_state(reset_partial_state=True)
    lines = RUNS[name](folder)
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]


if __name__ == "__main__":
    recorded = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as temporary:
            recorded[name] = record(name, Path(temporary))
    if "--check" in sys.argv:
        before = json.loads(FILE.read_text(encoding="utf-8"))
        different = [name for name in RUNS if recorded[name] != before[name]]
        sys.exit(f"other losses: {', '.join(different)}" if different else 0)
    FILE.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
