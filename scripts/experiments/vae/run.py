"""Claim C4 and question Q2 of the paper: are GeoConv's VAEs better, more diverse and more alike from run to run?

    python -m scripts.experiments.vae.run --config configs/experiments/vae.yaml --data-name hands \
        --dataset TRAIN.parquet --test-dataset TEST.parquet --results docs/results/paper_vae_hands.json

Variational autoencoders with plain convolutions, CoordConv, GeoConv with its default shift and without one, on the same
photographs, over sizes of latents and seeds; at the middle size also with equal numbers of parameters. Losses on
validation and test images over the steps, scores of samples of the prior at the end, and pictures of the first seed.
Nothing is chosen by any of these scores: all kinds are reported. With `--learning_rates` each variant has its own best
rate of a sweep by the validation loss, at the middle latent size, and GeoConv in the multilinear basis is another.

Started again, it skips the runs that are finished and continues the one that is not; --overwrite begins anew.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from geopos_diffusers.errors import ConfigError, DataError
from geopos_diffusers.files import atomic_path
from geopos_diffusers.finetuning.image_text_data import ImageTextData, load_image_text
from geopos_diffusers.images.contact_sheet import contact_sheet
from geopos_diffusers.metrics.features import load_mobilenet
from geopos_diffusers.metrics.sample_scores import ImageScores
from geopos_diffusers.patching.config import GeoPosConfig
from geopos_diffusers.training.arguments import option, parse_arguments, required
from geopos_diffusers.training.processes import end_run, run_script

from ..baselines.trial import match_parameters
from ..comparison import ComparisonArguments, Task, begin, run_folder, run_trials, write_results
from ..gan.training import write_sheet
from ..own_rates.comparison import run_at_own_rates
from ..results import rounded
from .network import Vae, VaeTrial, fit_latents, interpolate, negative_elbo, score_elbo

# The same in every run: which images are held out, the noise of scores, the latents of samples, and pairs and subsets.
DATA_SEED, NOISE_SEED, LATENT_SEED, SCORE_SEED = 1, 2, 3, 0
KINDS = {
    "convolution": ("conv", GeoPosConfig()),
    "CoordConv": ("coord", GeoPosConfig()),
    "GeoConv": ("geo", GeoPosConfig()),
    "GeoConv without shift": ("geo", GeoPosConfig(shift_range=0.0)),
}
FITTED_TO = 1000  # training images, for the Gaussian of their latents
COLUMNS = 6  # pictures in a row of a sheet
ROWS = ("originals", "reconstructions", "samples of the prior", "samples of fitted latents", "interpolation")
LEAST_SAMPLES = 16


@dataclass(kw_only=True)
class VaeArguments(ComparisonArguments):
    """Options of this experiment. train_count and test_count are upper limits.

    Raises:
        ConfigError: as `ComparisonArguments`; or a number out of its range, no latent sizes, or a name with blanks.
    """

    train_data: str = required(
        "image folder with metadata.jsonl, or Parquet file; also of validation",
        resume="free",
        name="dataset",
        recorded=False,
    )
    test_data: str = required("the same, of the test images", resume="free", name="test_dataset", recorded=False)
    data_name: str = required("name of the data, in folders, results and figures: one for each data", resume="free")
    publish_samples: bool = option(
        False, "put a sheet of pictures beside the results (mind the data's licence)", resume="free"
    )
    latent_sizes: list[int] = option(
        [16, 64, 128], "numbers in a latent; the middle one is matched too", resume="free", at_least=1
    )
    widths: list[int] = option([16, 32, 64, 128], "channels of the strided convolutions", resume="free", at_least=1)
    variance: float = option(0.05, "of the Gaussian decoder, for values of pixels in [-1, 1]", resume="fixed", above=0)
    validation_count: int = option(
        128, "images held out of the training data", resume="fixed", name="validation_images", at_least=1
    )
    samples: int = option(500, "samples of the prior that are scored", resume="fixed", at_least=LEAST_SAMPLES)
    pairs: int = option(400, "pairs of samples for the mean MS-SSIM", resume="fixed", at_least=1)
    mobilenet: bool = option(
        True, "no scores by MobileNetV2's features, for which its weights are downloaded once", resume="fixed"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.latent_sizes)) < len(self.latent_sizes):
            raise ConfigError(f"latent_sizes must be one or more different numbers; got {self.latent_sizes}")
        if not re.fullmatch(r"[\w-]+", self.data_name):
            raise ConfigError(f"data_name must be letters, digits, - and _; got {self.data_name!r}")


@dataclass
class Photographs:
    """Images [N, 3, S, S] in [-1, 1] on the CPU."""

    train: Tensor
    validation: Tensor
    test: Tensor


def load_photographs(args: VaeArguments, show_progress: bool) -> Photographs:
    """Decode all images once. Which are held out and which are left out of too many is drawn by a fixed seed.

    Raises:
        DataError: no such data, or too few images.
    """
    train = load_image_text(args.train_data, args.size, show_progress=show_progress)
    test = load_image_text(args.test_data, args.size, show_progress=show_progress)
    needed = args.validation_count + 2 * LEAST_SAMPLES
    for path, data, least in ((args.train_data, train, needed), (args.test_data, test, COLUMNS)):
        if len(data) < least:
            raise DataError(f"{path} has {len(data)} images; at least {least} are needed")
    order = shuffled(len(train))
    held_out, rest = order[: args.validation_count], order[args.validation_count :][: args.train_count]
    return Photographs(
        decode(train, rest), decode(train, held_out), decode(test, shuffled(len(test))[: args.test_count])
    )


def shuffled(count: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(DATA_SEED)).tolist()


def decode(data: ImageTextData, indices: list[int]) -> Tensor:
    return torch.stack([data[index]["pixels"] for index in indices])


def build_task(args: VaeArguments, photographs: Photographs, diversity: ImageScores) -> Task:
    def scores(network: Vae, trial: VaeTrial) -> dict[str, float]:
        found = {}
        for name in ("validation", "test"):
            values = score_elbo(network, getattr(photographs, name), args.variance, NOISE_SEED)
            found |= {name if part == "loss" else f"{name}_{part}": value for part, value in values.items()}
        return found

    def finish(network: Vae, trial: VaeTrial, folder: Path) -> dict[str, Any]:
        latents = draw_latents(args.samples, trial.latent_size)
        center, factor = fit_latents(network, photographs.train[:FITTED_TO])
        prior, fitted = (network.decode_pictures(values) for values in (latents, center + latents @ factor.T))
        if trial.seed == 0:
            write_sheet(draw_pictures(network, photographs.test, prior, fitted), folder / "pictures.png", COLUMNS)
        scores = diversity(prior) | {f"fitted_{name}": value for name, value in diversity(fitted).items()}
        return {"sample_scores": rounded(scores)}

    return Task(
        build=partial(build_network, size=args.size),
        loss=partial(negative_elbo, variance=args.variance),
        train_set=lambda data: (photographs.train, photographs.train),
        scores=scores,
        finish=finish,
    )


def build_network(trial: VaeTrial, size: int) -> Vae:
    return Vae(trial.widths, trial.latent_size, size)


def draw_latents(count: int, latent_size: int) -> Tensor:
    """Latents [count, latent_size] of the prior, the same ones for every network of this latent size."""
    return torch.randn(count, latent_size, generator=torch.Generator().manual_seed(LATENT_SEED))


def draw_pictures(network: Vae, test: Tensor, *samples: Tensor) -> Tensor:
    """Pictures [5 * COLUMNS, 3, S, S], in the order of ROWS."""
    originals = test[:COLUMNS]
    means = network.encode(originals.to(next(network.parameters()).device))[0]
    between = interpolate(network, originals[0], originals[1], COLUMNS)
    return torch.cat([originals, network.decode_pictures(means), *(part[:COLUMNS] for part in samples), between])


def split_real(images: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Two sets of training images that share none: what samples are scored beside, and what is scored as samples are.

    Both have `count` images where there are that many.
    """
    count = min(count, len(images) // 2)
    return images[:count], images[count : 2 * count]


def comparison_trials(args: VaeArguments) -> Iterator[VaeTrial]:
    middle = args.latent_sizes[len(args.latent_sizes) // 2]
    for seed in range(args.seeds):
        for latent_size in args.latent_sizes:
            trials = {name: make_trial(args, name, latent_size, seed) for name in KINDS}
            yield from trials.values()
            if seed < args.matched_seeds and latent_size == middle:
                build = partial(build_network, size=args.size)
                yield from (match_parameters(trials[name], build) for name in ("convolution", "GeoConv"))


def own_rate_trials(args: VaeArguments, seed: int) -> Iterator[VaeTrial]:
    """The variants that are compared at their own rates: all kinds, and GeoConv in the other basis."""
    middle = args.latent_sizes[len(args.latent_sizes) // 2]
    trials = {name: make_trial(args, name, middle, seed) for name in KINDS}
    yield from (*trials.values(), replace(trials["GeoConv"], kind="geo-multilinear"))


def make_trial(args: VaeArguments, name: str, latent_size: int, seed: int) -> VaeTrial:
    kind, geometry = KINDS[name]
    return VaeTrial(
        data=args.data_name, widths=tuple(args.widths), kind=kind, seed=seed, geometry=geometry, latent_size=latent_size
    )


def publish_sheet(args: VaeArguments, target: Path) -> None:
    """One sheet of the first seed's pictures at the middle latent size: each row for every kind.

    Raises:
        DataError: a run of them is not finished.
    """
    middle = args.latent_sizes[len(args.latent_sizes) // 2]
    strips: dict[str, Image.Image] = {}
    for number, row in enumerate(ROWS):
        for name in KINDS:
            path = run_folder(make_trial(args, name, middle, 0), args)
            if not (path / "pictures.png").is_file():
                raise DataError(f"no pictures of {name}, latents of {middle}, seed 0: its run is not finished")
            with Image.open(path / "pictures.png") as opened:
                strip = opened.convert("RGB").crop((0, number * args.size, opened.width, (number + 1) * args.size))
            strips[row if row == "originals" else f"{row}, {name}"] = strip
    sheet = contact_sheet(list(strips.values()), list(strips), columns=1, cell=COLUMNS * args.size)
    with atomic_path(target) as temporary:
        # Few colours and no dithering keep the file small.
        sheet.quantize(64, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)


def main() -> None:
    args = parse_arguments(VaeArguments)
    accelerator = begin(args, "paper_vae")
    # Moments of weights without gradients fade to numbers below 1e-38, which take a CPU a hundred times as long.
    torch.set_flush_denormal(True)
    photographs = load_photographs(args, accelerator.is_main_process)
    reference, others = split_real(photographs.train, args.samples)
    diversity = ImageScores(reference, args.pairs, SCORE_SEED, load_mobilenet() if args.mobilenet else None)
    task = build_task(args, photographs, diversity)
    counts = {name: len(getattr(photographs, name)) for name in ("train", "validation", "test")}
    data = {"name": args.data_name, **counts}
    if args.learning_rates:
        run_at_own_rates("vae", partial(own_rate_trials, args), task, args, accelerator, data=data)
        return end_run(accelerator)
    records = run_trials(comparison_trials(args), task, args, accelerator, args.data_name)
    if accelerator.is_main_process and records:
        sheet = Path(args.results).with_name(f"{Path(args.results).stem}_pictures.png")
        if args.publish_samples:
            publish_sheet(args, sheet)
        write_results(
            "vae",
            records,
            args,
            data=data,
            real={"count": len(others), **rounded(diversity(others))},
            pictures=sheet.name if args.publish_samples else None,
        )
        print(f"wrote {len(records)} runs to {args.results}")
    end_run(accelerator)


if __name__ == "__main__":
    run_script(main)
