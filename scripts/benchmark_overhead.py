"""What GeoConv costs, as ratios to the unpatched model measured in the same process, round after round.

    python scripts/benchmark_overhead.py --model sd15-unet --mode inference --results docs/results/overhead

Variants: unpatched; geoconv (the package, multilinear basis); geoconv-taps (the same with kernel taps); geoconv-concat
and coordconv-concat (plain concatenation of the coordinate channels, as the usual PyTorch implementations do it); lora
(PEFT, r=4, on the same layers). Models have their real widths and random weights, so nothing is downloaded. One model
is patched and unpatched between measurements; with --compile each variant has a model of its own, compiled once, and
peak memory is not measured.
Writes <results>-<model>-<mode>-b<batch>.json, prints a table, and draws all files of the same beginning as
<results>.png.
"""

import argparse
import platform
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path

import torch
from experiments.baselines.concatenation import ConcatenatingConv
from torch import nn
from tqdm import tqdm

from geopos_diffusers import (
    GeoConvConfig,
    GeoPosConfig,
    apply_geoconv,
    geoconv_parameters,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
    set_geoconv_frames,
)
from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_json

VARIANTS = ("unpatched", "geoconv", "geoconv-frames", "geoconv-taps", "geoconv-concat", "coordconv-concat", "lora")
MODES = ("inference", "adapter-step", "full-step")


# --- models at their real widths ------------------------------------------------------------------------------------


def sd15_unet(batch: int) -> tuple[nn.Module, Callable]:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(cross_attention_dim=768)  # the defaults are those of SD 1.5
    latents, text = torch.randn(batch, 4, 32, 32), torch.randn(batch, 77, 768)
    return unet, lambda model: model(latents, 10, text).sample


def sdxl_unet(batch: int) -> tuple[nn.Module, Callable]:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    latents, text = torch.randn(batch, 4, 32, 32), torch.randn(batch, 77, 2048)
    added = {"text_embeds": torch.randn(batch, 1280), "time_ids": torch.full((batch, 6), 256.0)}
    return unet, lambda model: model(latents, 10, text, added_cond_kwargs=added).sample


def sd_vae_decoder(size: int) -> Callable[[int], tuple[nn.Module, Callable]]:
    def build(batch: int) -> tuple[nn.Module, Callable]:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
        )
        latents = torch.randn(batch, 4, size // 8, size // 8)
        return vae.decoder, lambda model: model(latents)

    return build


MODELS = {
    "sd15-unet": sd15_unet,
    "sdxl-unet": sdxl_unet,
    "sd-vae-decode-256": sd_vae_decoder(256),
    "sd-vae-decode-512": sd_vae_decoder(512),
}


# --- variants: each patches the model and says which parameters it trains -------------------------------------------


def target_layers(model: nn.Module) -> dict[str, nn.Conv2d]:
    """The layers that all variants change: those that GeoConv patches by default."""
    convolutions = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return {name: conv for name, conv in convolutions if min(conv.kernel_size) >= 2}


@contextmanager
def patched(model: nn.Module, variant: str, samples: int = 1) -> Iterator[list[nn.Parameter]]:
    """Patch the model as `variant` says; yield the parameters that an adapter step trains.

    geoconv-frames has a frame of its own for each of `samples` samples.
    """
    layers = target_layers(model)
    if variant in ("geoconv", "geoconv-frames", "geoconv-taps"):
        apply_geoconv(model, GeoConvConfig(basis="taps" if variant == "geoconv-taps" else None))
        if variant == "geoconv-frames":
            set_geoconv_frames(model, [(0.1, 0.2, 0.6 + 0.3 * index / samples, 0.8) for index in range(samples)])
        yield list(geoconv_parameters(model).values())
        remove_geoconv(model)
    elif variant.endswith("-concat"):
        config = GeoPosConfig(encoding="product" if variant.startswith("geoconv") else "cartesian")
        wrapped = {name: ConcatenatingConv(layer, config) for name, layer in layers.items()}
        for name, layer in wrapped.items():
            model.set_submodule(name, layer)
        yield [layer.conv.weight for layer in wrapped.values()]
        for name, layer in layers.items():
            model.set_submodule(name, layer)
    elif variant == "lora":
        from diffusers.utils import recurse_remove_peft_layers
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(r=4, target_modules=list(layers)), model)
        yield [parameter for name, parameter in model.named_parameters() if "lora_" in name]
        recurse_remove_peft_layers(model)
        del model.peft_config
    else:
        yield []


# --- measuring ------------------------------------------------------------------------------------------------------


def step(model: nn.Module, call: Callable, mode: str, adapter: list[nn.Parameter]) -> None:
    """One inference, or one forward and backward pass and an SGD update of what is trained."""
    if mode == "inference":
        model.eval()
        with torch.no_grad():
            call(model)
        return
    model.train()
    trained = list(model.parameters()) if mode == "full-step" else adapter
    model.requires_grad_(mode == "full-step")
    for parameter in trained:
        parameter.requires_grad_(True)
    call(model).float().square().mean().backward()
    with torch.no_grad():
        for parameter in trained:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-6)
                parameter.grad = None
    model.requires_grad_(False)


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """Peak resident memory of this process within the block, MiB (Linux); NaN elsewhere."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not clear.exists():
        yield lambda: float("nan")
        return
    clear.write_text("5")  # resets VmHWM
    yield lambda: int(re.search(r"VmHWM:\s+(\d+)", status.read_text()).group(1)) / 1024


def interval(values: list[float]) -> dict[str, float]:
    """Median with a 95% interval from resampling."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return {"median": statistics.median(values), "low": medians[50], "high": medians[1949]}


def build(args: argparse.Namespace) -> tuple[nn.Module, Callable]:
    """The model with the seed's weights, and how it is called on the seed's input."""
    torch.manual_seed(args.seed)
    model, call = MODELS[args.model](args.batch_size)
    return model.requires_grad_(False), call


@contextmanager
def compiled_visit(args: argparse.Namespace, variant: str) -> Iterator[tuple]:
    """A model of the variant's own with its call and trained parameters, compiled and warm."""
    model, call = build(args)
    with patched(model, variant, args.batch_size) as adapter:
        model.compile()
        for _ in range(2):
            step(model, call, args.mode, adapter)
        yield model, call, adapter
        model._compiled_call_impl = None


def time_steps(args: argparse.Namespace, model: nn.Module, call: Callable, adapter: list[nn.Parameter]) -> float:
    """Mean seconds of `--repeats` steps."""
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    start = clock()
    for _ in range(args.repeats):
        step(model, call, args.mode, adapter)
    return (clock() - start) / args.repeats


def measure(args: argparse.Namespace) -> dict:
    modes = [v for v in args.variants if not (args.mode == "adapter-step" and v == "unpatched")]
    model, call = build(args)
    seconds, memory, patching = ({variant: [] for variant in modes} for _ in range(3))
    order = random.Random(args.seed)
    with ExitStack() as stack:
        compiled = {variant: stack.enter_context(compiled_visit(args, variant)) for variant in modes if args.compile}
        for _ in tqdm(range(args.rounds), desc=f"{args.model} {args.mode} b{args.batch_size}"):
            for variant in order.sample(modes, len(modes)):
                if args.compile:
                    seconds[variant].append(time_steps(args, *compiled[variant]))
                    continue
                start = time.perf_counter()
                with patched(model, variant, args.batch_size) as adapter:
                    patching[variant].append(time.perf_counter() - start)
                    step(model, call, args.mode, adapter)  # warms up
                    with peak_memory() as peak:
                        seconds[variant].append(time_steps(args, model, call, adapter))
                        memory[variant].append(peak())
    base = "unpatched" if "unpatched" in modes else "lora"
    return {
        "model": args.model,
        "mode": args.mode + (" (torch.compile)" if args.compile else ""),
        "batch": args.batch_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": len(target_layers(model)),
        "ratio_to": base,
        "variants": {
            variant: {
                "seconds": interval(seconds[variant]),
                "ratio": interval([a / b for a, b in zip(seconds[variant], seconds[base], strict=True)]),
            }
            | (
                {
                    "peak_mib": interval(memory[variant]),
                    "peak_ratio": interval([a / b for a, b in zip(memory[variant], memory[base], strict=True)]),
                    "patch_seconds": interval(patching[variant]),
                }
                if memory[variant]
                else {}
            )
            for variant in modes
        },
        "adapter_bytes": adapter_size(model),
        "load_seconds": interval([loading_time(model) for _ in range(5)]),
        "rounds": args.rounds,
        "repeats": args.repeats,
        "seed": args.seed,
        "clock": args.clock,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "date": date.today().isoformat(),
    }


def adapter_size(model: nn.Module) -> dict[str, int]:
    """Bytes on disk of the untrained adapter."""
    sizes = {}
    with patched(model, "geoconv"), tempfile.TemporaryDirectory() as folder:
        for name, dtype in (("float32", torch.float32), ("float16", torch.float16)):
            sizes[name] = save_geoconv_weights(model, folder, dtype=dtype).stat().st_size
    return sizes


def loading_time(model: nn.Module) -> float:
    """Seconds to patch an unpatched model with a saved adapter and fill in its weights."""
    with tempfile.TemporaryDirectory() as folder:
        with patched(model, "geoconv"):
            save_geoconv_weights(model, folder)
        start = time.perf_counter()
        load_geoconv_weights(model, folder)
        elapsed = time.perf_counter() - start
        remove_geoconv(model)
    return elapsed


def print_table(result: dict) -> None:
    title = f"{result['model']} {result['mode']} batch {result['batch']}"
    print(f"{title}: ratio to {result['ratio_to']}, {result['rounds']} rounds")
    for variant, row in result["variants"].items():
        ratio = row["ratio"]
        text = f"  {variant:17} {row['seconds']['median']:8.3f} s  "
        text += f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
        if "peak_ratio" in row:
            patching = row["patch_seconds"]["median"]
            text += f"  memory {row['peak_ratio']['median']:.3f}  patching {patching:.3f} s"
        print(text)
    sizes = result["adapter_bytes"]
    print(
        f"  adapter: {sizes['float32']:,} bytes, {sizes['float16']:,} in float16; "
        f"patched and loaded in {result['load_seconds']['median']:.3f} s"
    )


def draw_plot(output: str) -> None:
    """Ratios with intervals of all measurements whose files begin with `output`, one panel each."""
    import json

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = [json.loads(path.read_text()) for path in sorted(Path(output).parent.glob(f"{Path(output).name}-*.json"))]
    figure, panels = pyplot.subplots(
        len(results), 1, figsize=(7, 1.7 * len(results) + 0.6), squeeze=False, layout="constrained"
    )
    for panel, result in zip(panels[:, 0], results, strict=True):
        names = list(result["variants"])
        ratios = [result["variants"][name]["ratio"] for name in names]
        medians = [ratio["median"] for ratio in ratios]
        below = [max(0.0, ratio["median"] - ratio["low"]) for ratio in ratios]
        above = [max(0.0, ratio["high"] - ratio["median"]) for ratio in ratios]
        panel.barh(names, medians, xerr=(below, above), color="#7a9cc6", ecolor="#333333", capsize=3)
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.invert_yaxis()
        panel.set_title(f"{result['model']}, {result['mode']}, batch {result['batch']}", fontsize=9, loc="left")
        panel.set_xlabel(f"time, ratio to {result['ratio_to']}", fontsize=8)
        panel.tick_params(labelsize=8)
    figure.savefig(f"{output}.png", dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--mode", choices=MODES, default="inference")
    parser.add_argument("--batch-size", type=int, default=1, aliases=["--batch"])
    parser.add_argument("--rounds", type=int, default=7, help="visits to each variant, in random order (default: 7)")
    parser.add_argument("--repeats", type=int, default=1, help="timed steps a visit, after one untimed (default: 1)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: processor time, for one thread on a core that other work shares (default: wall)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", aliases=["--output"], help="path and first part of the JSON file's name")
    args = parser.parse_args()
    result = measure(args)
    print_table(result)
    if args.results:
        suffix = "-compile" if args.compile else ""
        write_json(f"{args.results}-{args.model}-{args.mode}-b{args.batch_size}{suffix}.json", result)
        draw_plot(args.results)


if __name__ == "__main__":
    main()
