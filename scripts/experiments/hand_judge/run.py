"""Train the second judge of hands on rendered hands. `evaluate.py` measures it.

    python -m scripts.experiments.hand_judge.data --output runs/hand_judge/data
    python -m scripts.experiments.hand_judge.run --config configs/experiments/hand_judge.yaml

The hands of `data.py` are placed before backgrounds and degraded anew in every step, in both classes alike. Started
again, it continues; --overwrite begins anew.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file
from torch import Tensor

from geopos_diffusers.data.hand_defects import DEFECTS
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.files import atomic_path, write_json
from geopos_diffusers.metrics.hand_judge import WEIGHTS_FILE, network_of
from geopos_diffusers.metrics.hand_judge_network import HandJudgeNetwork
from geopos_diffusers.training.arguments import (
    CONTINUED,
    OVERWRITE_HELP,
    check_arguments,
    fixed_settings,
    option,
    parse_arguments,
    required,
)
from geopos_diffusers.training.learning_rate import cosine_schedule
from geopos_diffusers.training.processes import end_run, run_script
from geopos_diffusers.training.resuming import discard_run
from geopos_diffusers.training.stage import Stage, train_stage
from geopos_diffusers.training.tracking import build_accelerator, start_trackers

from ..statistics import area_under_curve
from .backgrounds import draw_backgrounds
from .batches import BatchMaker
from .data import SIZE, Hands, load_hands
from .loss import JudgeLoss

BACKGROUNDS = {"train": 4000, "validation": 500}
VALIDATION_IMAGES = 1024
STAGE = "train"  # folder of checkpoints and losses in a run's
SUMMARY = "training.json"  # of the run and of those that it began from


@dataclass
class JudgeArguments:
    """Options of this experiment.

    Raises:
        ConfigError: a value that is out of its range.
    """

    output_dir: str = required(
        f"folder of the run: checkpoints, logs, and the network; {CONTINUED}", resume="free", name="output"
    )
    data: str = required("folder of the arrays that data.py wrote", resume="free")
    left_out: list[str] = option([], f"kinds of defects to leave out, of {', '.join(DEFECTS)}", resume="fixed")
    shards: int | None = option(None, "the first so many files of training hands; all by default", resume="fixed")
    init: str | None = option(None, "folder of a run whose weights to begin with", resume="fixed")
    seed: int = option(0, "seed of the weights, of the data order and of all noise", resume="fixed", at_least=0)
    mixed_precision: str = option("no", "no or bf16", resume="fixed")
    steps: int = option(9000, "optimizer steps", resume="fixed", name="max_train_steps", at_least=1)
    batch_size: int = option(64, "images a step", resume="fixed", at_least=1)
    learning_rate: float = option(2e-3, "peak, before the cosine down to 0", resume="fixed", above=0)
    warmup_steps: int = option(200, "steps of linear rise", resume="fixed", name="lr_warmup_steps", at_least=0)
    weight_decay: float = option(0.02, "AdamW's", resume="fixed", name="adam_weight_decay", at_least=0)
    ema_decay: float = option(0.998, "of the moving average of the weights", resume="fixed")
    max_grad_norm: float = option(2.0, "norm that gradients are clipped to", resume="fixed", above=0)
    checkpoint_every: int = option(
        300, "steps between checkpoints", resume="free", name="checkpointing_steps", at_least=1
    )
    sample_every: int = option(600, "steps between validations", resume="free", name="validation_steps", at_least=1)
    stop_at_step: int | None = option(None, "end at this step, with a checkpoint", resume="free")
    report_to: str = option("none", "an accelerate tracker, or none", resume="free")
    overwrite: bool = option(False, OVERWRITE_HELP, resume="free")

    def __post_init__(self) -> None:
        check_arguments(self)
        if unknown := sorted(set(self.left_out) - set(DEFECTS)):
            raise ConfigError(f"left_out: {unknown[0]} given; known are {', '.join(DEFECTS)}")


def batch_maker(folder: Path, part: str, limit: int | None, left_out: list[str]) -> BatchMaker:
    """Batches of a part of the rendered data, without some kinds of defects."""
    hands = load_hands(folder, part, limit)
    hands = without(hands, left_out)
    heads = np.load(folder / f"heads-{part}.npy")
    generator = np.random.default_rng([7, sorted(BACKGROUNDS).index(part)])
    return BatchMaker(hands, draw_backgrounds(BACKGROUNDS[part], SIZE, heads, generator), heads)


def without(hands: Hands, left_out: list[str]) -> Hands:
    if not left_out:
        return hands
    return hands.select(~np.isin(hands.defects, [DEFECTS.index(kind) for kind in left_out]))


@torch.no_grad()
def validate(network: HandJudgeNetwork, maker: BatchMaker, count: int) -> dict[str, float]:
    """Scores of single looks at degraded validation hands."""
    network.eval()
    generator = torch.Generator().manual_seed(1)
    batches = [maker(list(range(start, start + 64)), 0, generator) for start in range(0, count, 64)]
    outputs = [network(batch["images"]) for batch in batches]
    network.train()

    def joined(name: str) -> tuple[Tensor, Tensor]:
        found = torch.cat([getattr(output, "right_hand" if name == "right" else name) for output in outputs])
        return found, torch.cat([batch[name] for batch in batches])

    present, shown = joined("present")
    hand = shown > 0.5
    well_formed, sound = joined("well_formed")
    counted = hand & (torch.cat([batch["fingers_weight"] for batch in batches]) > 0)
    sided = hand & (torch.cat([batch["right_weight"] for batch in batches]) > 0)
    fingers, asked = joined("fingers")
    right, is_right = joined("right")
    keypoints, places = joined("keypoints")
    return {
        "present_auc": area_under_curve(present[~hand].numpy(), present[hand].numpy()),
        "well_formed_auc": area_under_curve(
            well_formed[hand & (sound <= 0.5)].numpy(), well_formed[hand & (sound > 0.5)].numpy()
        ),
        "fingers": (fingers.argmax(1) == asked)[counted].float().mean().item(),
        "right": ((right > 0) == (is_right > 0.5))[sided].float().mean().item(),
        "keypoint_error": (keypoints - places)[hand].norm(dim=2).mean().item(),
    }


def train(args: JudgeArguments) -> HandJudgeNetwork:
    """The trained network, whose weights lie in the run's folder in half precision too."""
    accelerator = build_accelerator(args.output_dir, args.mixed_precision, 1, args.report_to)
    settings = fixed_settings(args)
    if args.overwrite:
        discard_run(Path(args.output_dir) / STAGE)
    start_trackers(accelerator, "hand_judge", settings)
    set_seed(args.seed)
    torch.set_flush_denormal(True)
    folder = Path(args.data)
    maker = batch_maker(folder, "train", args.shards, args.left_out)
    held_out = batch_maker(folder, "validation", None, args.left_out)
    network = network_of(load_file(Path(args.init) / WEIGHTS_FILE)) if args.init else HandJudgeNetwork()
    network = network.to(memory_format=torch.channels_last)
    loss = JudgeLoss(network)
    count = min(VALIDATION_IMAGES, len(held_out.pixels)) // 64 * 64
    stage = Stage(
        name=STAGE,
        number=0,
        loss=loss,
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=cosine_schedule(args.learning_rate, args.warmup_steps, args.steps),
        draw_batch=maker,
        validate=lambda _, step: validate(network, held_out, count),
        save_parts=partial(save_weights, network),
        buffers=dict(loss.named_buffers()),
    )
    summary = train_stage(stage, args, accelerator, len(maker.pixels), settings)
    save_weights(network, Path(args.output_dir))
    parameters = sum(value.numel() for value in network.parameters())
    described = {"images": len(maker.pixels), "parameters": parameters, **fixed_settings(args), **summary}
    if args.init and (before := Path(args.init) / SUMMARY).is_file():
        described["before"] = json.loads(before.read_text(encoding="utf-8"))
    write_json(Path(args.output_dir) / SUMMARY, described)
    end_run(accelerator)
    return network


def save_weights(network: HandJudgeNetwork, folder: Path) -> None:
    """Write the network's weights in half precision."""
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(weights, temporary)


def main() -> None:
    train(parse_arguments(JudgeArguments))


if __name__ == "__main__":
    run_script(main)
