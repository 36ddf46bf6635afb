"""Other forms of the geometry term beside the multilinear basis: do they learn more in the same steps?

    python -m scripts.experiments.geometry_forms.run --output runs/trained_parts \
        --results docs/results/geometry_forms.json

Uses the images of the experiment trained_parts in `--output` (run it first) and trains the packaged model's UNet with
each form, the same batches, noise and timesteps for all. Every form has its learning rate chosen on validation
images with a seed of its own; then it is measured on test images with other seeds. What is finished is not run again.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from safetensors.torch import load_file
from torch import nn

from geopos_diffusers import GeoConvConfig, apply_geoconv, geoconv_parameters, load_pipeline
from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_json
from geopos_diffusers.finetuning.diffusion_loss import diffusion_loss, prediction_target
from geopos_diffusers.finetuning.held_out_loss import image_losses, load_images
from geopos_diffusers.finetuning.latents import sample_latents
from geopos_diffusers.finetuning.loss_weighting import LossWeighting
from geopos_diffusers.finetuning.text_conditions import CaptionEncoder
from geopos_diffusers.patching.layers import GeometryTerm
from geopos_diffusers.patching.taps import Axis, axis_powers
from geopos_diffusers.training.data_order import DataOrder
from geopos_diffusers.training.learning_rate import learning_rate_factor

from ..results import select, write_results

SIZE, BATCH, WARMUP = 64, 16, 20
WEIGHTING = LossWeighting("min_snr")
RATES, SWEEP_SEED = (0.1, 0.3, 1.0), 100
LATENT_SIZE = 16

# What a form returns: pairs of a trained tensor and a factor on its learning rate.
Trained = list[tuple[nn.Parameter, float]]


def coefficients(pipe: Any, **options: Any) -> Trained:
    """The multilinear basis, as the surgery has it."""
    apply_geoconv(pipe, GeoConvConfig(components=("unet",), **options))
    return [(parameter, 1.0) for parameter in geoconv_parameters(pipe).values()]


def without_shift(pipe: Any) -> Trained:
    """The multilinear basis, its coordinates never shifted."""
    return coefficients(pipe, shift_range=0.0)


def scaled_coefficients(pipe: Any) -> Trained:
    """A rate for each layer in proportion to the root mean square of its output, over a few batches of noise."""
    trained, layers = coefficients(pipe), [*geometry_layers(pipe)]
    squares: dict[nn.Module, list[float]] = {layer: [] for layer in layers}
    handles = [
        layer.register_forward_hook(lambda layer, _, output: squares[layer].append(output.square().mean().item()))
        for layer in layers
    ]
    predict_noise(pipe, batches=3)
    for handle in handles:
        handle.remove()
    scales = np.sqrt([np.mean(squares[layer]) for layer in layers])
    return [(parameter, float(scale)) for (parameter, _), scale in zip(trained, scales / scales.mean(), strict=True)]


def preconditioned_taps(pipe: Any) -> Trained:
    """Kernel taps, moved by coefficients of the polynomials that they stand for: taps = A_y^+ C (A_x^+)^T.

    A [2, k] is what taps of one axis amount to, a constant and a coordinate, at the size that is trained.
    """
    apply_geoconv(pipe, GeoConvConfig(components=("unet",), basis="taps"))
    sizes = input_sizes(pipe)
    trained: Trained = []
    for layer in geometry_layers(pipe):
        inverses = []
        for size, kernel, dilation in zip(sizes[layer], layer.kernel_size, layer.dilation, strict=True):
            offsets = (torch.arange(kernel) - (kernel - 1) / 2) * dilation * 2 / (size - 1)
            inverses.append(torch.linalg.pinv(torch.stack([offsets, torch.ones(kernel)])))
        weights = nn.Parameter(torch.zeros(layer.out_channels, 2, 2))
        del layer._parameters["geo_weight"]

        def write_taps(layer, _, weights=weights, inverses=inverses):
            layer.geo_weight = torch.einsum("yi,oij,xj->oyx", inverses[0], weights, inverses[1])[:, None]

        layer.register_forward_pre_hook(write_taps)
        trained.append((weights, 1.0))
    return trained


def with_squares(pipe: Any) -> Trained:
    """The multilinear basis and the square of each coordinate."""
    trained = coefficients(pipe)
    for layer in geometry_layers(pipe):
        weights = nn.Parameter(torch.zeros(layer.out_channels, 2))

        def add_squares(layer, inputs, output, weights=weights):
            sizes = [*zip(inputs[0].shape[2:], output.shape[2:], strict=True)]
            longest = max(inputs[0].shape[2:])
            ys, xs = (
                axis_powers(layer, Axis(axis, *size, longest), layer.geo_config, weights).coordinates[:, 1].square()
                for axis, size in enumerate(sizes)
            )
            columns = weights.unbind(1)
            return output + columns[0].view(-1, 1, 1) * ys.view(-1, 1) + columns[1].view(-1, 1, 1) * xs

        layer.register_forward_hook(add_squares)
        trained.append((weights, 1.0))
    return trained


def with_one_tap_kernels(pipe: Any) -> Trained:
    """The multilinear basis in convolutions of one tap as well."""
    return coefficients(pipe, target_modules=".*")


def with_linear_layers(pipe: Any) -> Trained:
    """The multilinear basis also in every linear layer over image tokens: of attention and of feed-forward blocks."""
    trained = coefficients(pipe)
    for name, module in pipe.unet.named_modules():
        over_text = ".attn2.to_k" in name or ".attn2.to_v" in name
        if not isinstance(module, nn.Linear) or ".transformer_blocks." not in name or over_text:
            continue
        weights = nn.Parameter(torch.zeros(module.out_features, 4))

        def add_term(module, _, output, weights=weights):
            side = round(output.shape[1] ** 0.5)
            line = torch.linspace(-1, 1, side)
            ys, xs = torch.meshgrid(line, line, indexing="ij")
            basis = torch.stack([torch.ones_like(xs), xs, ys, xs * ys], dim=-1).flatten(0, 1)
            return output + basis @ weights.T

        module.register_forward_hook(add_term)
        trained.append((weights, 1.0))
    return trained


FORMS: dict[str, Callable[[Any], Trained]] = {
    "multilinear": coefficients,
    "no shift": without_shift,
    "preconditioned taps": preconditioned_taps,
    "a scale for each layer": scaled_coefficients,
    "squares added": with_squares,
    "one-tap convolutions too": with_one_tap_kernels,
    "linear layers too": with_linear_layers,
}


def geometry_layers(pipe: Any) -> list[GeometryTerm]:
    return [layer for layer in pipe.unet.modules() if isinstance(layer, GeometryTerm)]


def input_sizes(pipe: Any) -> dict[nn.Module, tuple[int, int]]:
    """Pixels that each geometry layer reads along its axes at the size that is trained."""
    sizes: dict[nn.Module, tuple[int, int]] = {}
    handles = [
        layer.register_forward_pre_hook(lambda layer, inputs: sizes.update({layer: tuple(inputs[0].shape[2:])}))
        for layer in geometry_layers(pipe)
    ]
    predict_noise(pipe, batches=1)
    for handle in handles:
        handle.remove()
    return sizes


@torch.no_grad()
def predict_noise(pipe: Any, batches: int) -> None:
    """Calls of the UNet on noise, for hooks to look at."""
    generator = torch.Generator().manual_seed(0)
    text = CaptionEncoder(pipe, torch.device("cpu"))(["a photo of a hand"] * 4, torch.zeros(4, 6))
    for _ in range(batches):
        latents = torch.randn(4, pipe.unet.config.in_channels, LATENT_SIZE, LATENT_SIZE, generator=generator)
        pipe.unet.eval()(latents, torch.randint(1000, (4,), generator=generator), **text)


def train(pipe: Any, trained: Trained, work: Path, rate: float, seed: int, steps: int) -> None:
    """Fine-tune as configs/finetune_hands.yaml does, without the moving average."""
    (file,) = work.glob("latents-*.safetensors")
    moments = load_file(file)["moments"]
    rows = (work / "train/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    captions = [json.loads(row)["text"] for row in rows]
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    encode = CaptionEncoder(pipe, torch.device("cpu"))
    groups = [{"params": [parameter], "factor": factor} for parameter, factor in trained]
    pipe.unet.requires_grad_(False).train()
    for parameter, _ in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.0)
    torch.manual_seed(seed)
    order = [*DataOrder(len(captions), 0, steps * BATCH, seed)]
    for step in range(steps):
        indices = order[step * BATCH : (step + 1) * BATCH]
        # One generator's state a step: forms that draw more shifts than others see the same noise.
        torch.manual_seed(seed * 1_000_003 + step)
        latents = sample_latents(pipe.vae, moments[indices])
        noise = torch.randn_like(latents)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (BATCH,))
        conditions = encode([captions[index] for index in indices], torch.zeros(BATCH, 6), 0.1)
        prediction = pipe.unet(scheduler.add_noise(latents, noise, timesteps), timesteps, **conditions).sample
        target = prediction_target(scheduler, latents, noise, timesteps)
        diffusion_loss(prediction, target, scheduler, timesteps, WEIGHTING).backward()
        nn.utils.clip_grad_norm_([parameter for parameter, _ in trained], 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["factor"] * learning_rate_factor("cosine", step, WARMUP, steps)
        optimizer.step()
        optimizer.zero_grad()


def run(args: argparse.Namespace, form: str, rate: float, seed: int, images: str) -> dict[str, Any]:
    """Mean held-out loss and number of parameters of one training."""
    work = Path(args.output)
    file = work / "forms" / f"{form.replace(' ', '-')}-{rate:g}-{seed}-{args.max_train_steps}.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    pipe = load_pipeline("hands64")
    pipe.unet.requires_grad_(False)
    trained = FORMS[form](pipe)
    train(pipe, trained, work, rate, seed, args.max_train_steps)
    loss = mean_loss(pipe, work / images)
    result = {"loss": loss, "parameters": sum(parameter.numel() for parameter, _ in trained)}
    write_json(file, result)
    print(f"{form}, rate {rate:g}, seed {seed}: {loss:.4f} on {images}", flush=True)
    return result


def mean_loss(pipe: Any, folder: Path) -> float:
    pixels, captions = load_images(folder, SIZE, SIZE)
    return float(image_losses(pipe, pixels, captions, 0).mean())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train all, and write the results file; scores are ratios to the base model's loss."""
    base = load_pipeline("hands64")
    base_loss = {name: mean_loss(base, Path(args.output) / name) for name in ("validation", "test-64")}
    variants, runs = {}, []
    for form in args.forms:
        swept = {rate: run(args, form, rate, SWEEP_SEED, "validation") for rate in RATES}
        best = min(swept, key=lambda rate: swept[rate]["loss"])
        variants[form] = {
            "parameters": swept[best]["parameters"],
            "sweep": {f"{rate:g}": result["loss"] / base_loss["validation"] for rate, result in swept.items()},
            "best_rate": best,
        }
        for seed in range(args.num_seeds):
            ratio = run(args, form, best, seed, "test-64")["loss"] / base_loss["test-64"]
            runs.append({"variant": form, "seed": seed, "scores": {"64": ratio}})
    settings = {"steps": args.max_train_steps, "seeds": [*range(args.num_seeds)], "sweep_seed": SWEEP_SEED}
    return write_results(args.results, "geometry_forms", runs, settings, base_loss=base_loss, variants=variants)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, aliases=["--work"], help="folder of the experiment trained_parts")
    parser.add_argument("--results", required=True, help="JSON file to write")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS), metavar="FORM")
    parser.add_argument(
        "--max-train-steps",
        type=int,
        default=100,
        aliases=["--steps"],
        help="optimizer steps a run (default: %(default)s)",
    )
    parser.add_argument(
        "--num-seeds",
        type=int,
        default=3,
        aliases=["--seeds"],
        help="runs a form at its best rate (default: %(default)s)",
    )
    args = parser.parse_args()
    result = measure(args)
    for form, values in result["variants"].items():
        ratios = ", ".join(f"{found['scores']['64']:.4f}" for found in select(result["runs"], variant=form))
        print(f"{form:28}{values['parameters']:>8,}  rate {values['best_rate']:g}  {ratios}")


if __name__ == "__main__":
    sys.exit(main())
