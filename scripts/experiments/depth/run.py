"""Part of claim C6: do CoordConv and GeoConv predict depth better than plain convolutions?

    python -m scripts.experiments.depth.run --config configs/experiments/depth.yaml

Metric depth of rendered hands and heads from one image, by a small encoder-decoder. Images are drawn once and kept in
the output folder. Nothing is chosen by the test images: the package's default, the same without the shift, and the
same numbers of parameters are all reported, beside a constant.

Started again, it skips the runs that are finished and continues the one that is not; --overwrite begins anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geopos_diffusers.errors import DataError
from geopos_diffusers.files import atomic_path
from geopos_diffusers.patching.config import GeoPosConfig
from geopos_diffusers.training.arguments import option, parse_arguments
from geopos_diffusers.training.processes import end_run, run_script

from ..baselines.trial import Trial, match_parameters
from ..comparison import ComparisonArguments, Task, begin, run_folder, run_trials, write_results
from ..own_rates.comparison import run_at_own_rates
from .data import FOCAL, UNITS, load_depth
from .errors import depth_errors
from .loss import scale_invariant_log_loss
from .network import DepthNetwork
from .samples import depth_sheet

SEEDS = {"train": 1, "validation": 2, "test": 3}  # of the images
SAMPLES = 4  # test images of each kind of data in the picture
SAMPLES_FILE = "predictions.safetensors"
CHUNK = 64  # images at a time; all at once would not stay in the processor's cache
NO_SHIFT = GeoPosConfig(shift_range=0.0)


@dataclass
class DepthArguments(ComparisonArguments):
    """Options of this experiment."""

    widths: list[int] = option([8, 16, 32, 64], "channels of the encoder", resume="free", at_least=1)


# The images [N, 3, S, S] and depth [N, 1, S, S] of a kind of data and of train, validation or test.
Images = Callable[[str, str], tuple[Tensor, Tensor]]


def image_sets(args: DepthArguments, accelerator: Accelerator) -> Images:
    """The images of the experiment, each set drawn or read once."""

    @cache
    def load(data: str, part: str) -> tuple[Tensor, Tensor]:
        count = args.train_count if part == "train" else args.test_count
        with accelerator.main_process_first():
            return load_depth(
                Path(args.output_dir) / "images", data, count, args.size, SEEDS[part], accelerator.is_main_process
            )

    return load


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Depth [N, 1, S, S] of images [N, 3, S, S], on the CPU."""
    device = next(network.parameters()).device
    return torch.cat([network(chunk.to(device)).cpu() for chunk in images.split(CHUNK)])


def mean_errors(predicted: Tensor, depth: Tensor) -> dict[str, float]:
    return {name: values.mean().item() for name, values in depth_errors(predicted, depth).items()}


def build_task(args: DepthArguments, images: Images, means: dict[str, float]) -> Task:
    """`means`: the mean depth of the training images, where networks start from."""

    def scores(network: nn.Module, trial: Trial) -> dict[str, float]:
        validation, depth = images(trial.data, "validation")
        found = {"validation": mean_errors(predict(network, validation), depth)["abs_rel"]}
        tests, depth = images(trial.data, "test")
        return found | mean_errors(predict(network, tests), depth)

    def finish(network: nn.Module, trial: Trial, folder: Path) -> dict[str, float]:
        tests, _ = images(trial.data, "test")
        with atomic_path(folder / SAMPLES_FILE) as temporary:
            save_file({"depth": predict(network, tests[:SAMPLES])}, temporary)
        return {}

    return Task(
        build=lambda trial: DepthNetwork(trial.widths, means[trial.data]),
        loss=lambda predicted, depth: {"loss": scale_invariant_log_loss(predicted, depth)},
        train_set=lambda data: images(data, "train"),
        scores=scores,
        finish=finish,
    )


def variants(args: DepthArguments, data: str, seed: int) -> dict[str, Trial]:
    shared = {"data": data, "widths": tuple(args.widths), "seed": seed}
    return {
        "convolution": Trial(kind="conv", **shared),
        "CoordConv": Trial(kind="coord", **shared),
        "GeoConv": Trial(kind="geo", **shared),
        "GeoConv, no shift": Trial(kind="geo", geometry=NO_SHIFT, **shared),
    }


def comparison_trials(args: DepthArguments) -> Iterator[Trial]:
    for seed in range(args.seeds):
        for data in UNITS:
            kinds = variants(args, data, seed)
            yield from kinds.values()
            if seed < args.matched_seeds:
                yield from (
                    match_parameters(kinds[name], lambda trial: DepthNetwork(trial.widths))
                    for name in ("convolution", "GeoConv")
                )


def own_rate_trials(args: DepthArguments, seed: int) -> Iterator[Trial]:
    """The variants that are compared at their own rates: those of the comparison, and GeoConv in the other basis."""
    for data in UNITS:
        kinds = variants(args, data, seed)
        yield from (*kinds.values(), replace(kinds["GeoConv"], kind="geo-multilinear"))


def write_samples(args: DepthArguments, images: Images, target: Path) -> None:
    """The picture of the first seed's networks, all of which must be trained.

    Raises:
        DataError: the predictions of a run are missing or damaged.
    """
    inputs, depths, predictions = [], [], {}
    for data in UNITS:
        tests, depth = images(data, "test")
        inputs.append(tests[:SAMPLES])
        depths.append(depth[:SAMPLES])
        for name, trial in variants(args, data, 0).items():
            file = run_folder(trial, args) / SAMPLES_FILE
            try:
                predictions.setdefault(name, []).append(load_file(file)["depth"])
            except (OSError, KeyError, SafetensorError) as error:
                raise DataError(f"{file} is missing or damaged; remove its folder to run this again") from error
    joined = {name: torch.cat(maps) for name, maps in predictions.items()}
    sheet = depth_sheet(torch.cat(inputs), torch.cat(depths), joined)
    with atomic_path(target) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def main() -> None:
    args = parse_arguments(DepthArguments)
    accelerator = begin(args, "paper_depth")
    torch.set_flush_denormal(True)
    images = image_sets(args, accelerator)
    means, constant = {}, {}
    for data in UNITS:
        depth = images(data, "train")[1]
        means[data] = depth[depth > 0].mean().item()
        tests = images(data, "test")[1]
        constant[data] = {"depth": means[data], **mean_errors(torch.full_like(tests, means[data]), tests)}
    task, head = build_task(args, images, means), {"units": UNITS, "focal": FOCAL, "constant": constant}
    if args.learning_rates:
        run_at_own_rates("depth", partial(own_rate_trials, args), task, args, accelerator, **head)
        return end_run(accelerator)
    trials = list(comparison_trials(args))
    records = run_trials(trials, task, args, accelerator, "comparison")
    if accelerator.is_main_process and records:
        write_results("depth", records, args, **head)
        print(f"wrote {len(records)} runs to {args.results}")
        if len(records) == len(trials):
            results = Path(args.results)
            write_samples(args, images, results.with_name(f"{results.stem}_samples.png"))
    end_run(accelerator)


if __name__ == "__main__":
    run_script(main)
