"""What a step of `geopos train` costs beside the model: data and bookkeeping, and memory against LoRA by peft.

    OMP_NUM_THREADS=1 python scripts/benchmark_training_step.py --steps 60 --output docs/results/training_step.json

Times are processor time of this process, so other work on the machine hardly matters. Memory is the peak of each
variant's own process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from experiments.results import write_results
from PIL import Image

from geopos_diffusers.finetuning.engine import build_loader, build_run
from geopos_diffusers.finetuning.text_to_image import TextToImage
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training import gradient_step
from geopos_diffusers.training.gradient_step import GradientStep
from geopos_diffusers.training.loop import Training, train
from geopos_diffusers.training.tracking import build_accelerator, start_trackers

SIZE, IMAGES, WARMUP = 64, 64, 5
CONVOLUTIONS = ("conv1", "conv2", "conv_in", "conv_out", "conv")  # of the UNet: the layers that geoconv patches
VARIANTS = {
    "geoconv": {"train": "geoconv"},
    "LoRA of the same layers": {"train": "lora", "lora_rank": 4, "lora_target_modules": list(CONVOLUTIONS)},
    "LoRA of the same layers, loop without the engine": {
        "train": "lora",
        "lora_rank": 4,
        "lora_target_modules": list(CONVOLUTIONS),
    },
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="timed steps, after 5 to warm up")
    parser.add_argument("--memory-steps", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--model", default="hands64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="results file")
    parser.add_argument("--measure-memory", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        draw_images(Path(folder) / "images", args.seed)
        if args.measure_memory:
            print(peak_memory(args, args.measure_memory, Path(folder)))
            return
        runs = [measure_times(args, Path(folder), cached) for cached in (False, True)]
    for name in VARIANTS:
        command = [sys.executable, __file__, "--measure-memory", name, "--model", args.model, "--seed", str(args.seed)]
        command += ["--memory-steps", str(args.memory_steps), "--batch-size", str(args.batch_size)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append({"variant": name, "seed": args.seed, "peak_memory_mb": float(done.stdout.split()[-1])})
    for run in runs:
        print(json.dumps(run))
    if args.output:
        settings = {"model": args.model, "size": SIZE, "batch_size": args.batch_size, "steps": args.steps}
        write_results(args.output, "training_step", runs, settings)


def draw_images(folder: Path, seed: int) -> None:
    """Smooth random images with captions: as PNG files they decode as fast as rendered ones."""
    folder.mkdir()
    generator, lines = torch.Generator().manual_seed(seed), []
    for index in range(IMAGES):
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        pixels = torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)[0]
        Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a photo of a left hand"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def arguments(args: argparse.Namespace, folder: Path, steps: int, **options: Any) -> TextToImageArguments:
    return TextToImageArguments(
        dataset=[str(folder / "images")],
        output_dir=str(folder / "run"),
        model=args.model,
        max_train_steps=steps,
        train_batch_size=args.batch_size,
        seed=args.seed,
        checkpointing_steps=10 * steps,
        **options,
    )


class Clock:
    """Processor time within functions, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def around(self, name: str, function: Callable) -> Callable:
        def timed(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began

        return timed


def measure_times(args: argparse.Namespace, folder: Path, cached: bool) -> dict[str, Any]:
    """Shares of a step's processor time: the real loop with its log and TensorBoard, without a checkpoint."""
    folder = folder / ("cached" if cached else "decoded")
    folder.mkdir()
    (folder / "images").symlink_to(folder.parent / "images")
    options = arguments(args, folder, WARMUP + args.steps + 1, cache_latents=cached, train="geoconv", use_ema=True)
    run = build_run(TextToImage(options, build_accelerator(options.output_dir, "no", 1, "tensorboard")))
    run.task.prepare_data()
    set_seed(args.seed)
    start_trackers(run.state.accelerator, "benchmark", {})
    clock, marks = Clock(), []
    gradient_step.backward = clock.around("backward", gradient_step.backward)
    optimizer, accelerator = run.state.optimizer, run.state.accelerator
    optimizer.step = clock.around("optimizer", optimizer.step)
    run.state.ema.step = clock.around("average", run.state.ema.step)
    accelerator.clip_grad_norm_ = clock.around("clipping", accelerator.clip_grad_norm_)

    def batches(first: int) -> Any:
        loader = iter(build_loader(run, first))
        read = clock.around("data", lambda: next(loader))
        while True:
            yield read()

    losses = clock.around("forward", run.task.losses)
    rate = options.peak_learning_rate("geoconv")
    step = GradientStep(run.state, run.task.model, losses, batches, lambda group, number: rate, options.max_grad_norm)

    def marked(number: int) -> dict[str, Any]:
        marks.append((time.process_time(), dict(clock.seconds)))
        return step(number)

    training = Training(
        "benchmark", Path(options.output_dir), run.state, run.steps, marked, lambda target: None, 10 * run.steps
    )
    Path(options.output_dir).mkdir(exist_ok=True)
    train(training)
    (began, before), (ended, after) = marks[WARMUP], marks[WARMUP + args.steps]
    total = ended - began
    parts = {name: after[name] - before[name] for name in after}
    parts["bookkeeping"] = total - sum(parts.values())
    return {
        "variant": "a step with cached latents" if cached else "a step with images decoded in it",
        "seed": args.seed,
        "seconds_a_step": round(total / args.steps, 4),
        "cpu_seconds": round(total, 1),
        "shares": {name: round(seconds / total, 5) for name, seconds in parts.items()},
        "data_and_bookkeeping": round((parts["data"] + parts["bookkeeping"]) / total, 5),
    }


def peak_memory(args: argparse.Namespace, variant: str, folder: Path) -> float:
    """Peak resident memory of this process in MB, after a few steps."""
    options = arguments(args, folder, args.memory_steps, **VARIANTS[variant])
    if not variant.endswith("without the engine"):
        run = build_run(TextToImage(options, Accelerator(cpu=True)))
        rate = options.peak_learning_rate(options.train)
        step = GradientStep(
            run.state,
            run.task.model,
            run.task.losses,
            lambda first: build_loader(run, first),
            lambda group, number: rate,
            1.0,
        )
        for number in range(args.memory_steps):
            step(number)
    else:
        plain_peft_loop(options, args.memory_steps)
    # Not ru_maxrss, which begins with the parent's.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def plain_peft_loop(options: TextToImageArguments, steps: int) -> None:
    """LoRA as peft's users write it: the pipeline, `add_adapter`, AdamW, and a loop."""
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    from geopos_diffusers.finetuning.image_text_data import load_image_text
    from geopos_diffusers.pipelines.loading import load_pipeline

    pipe = load_pipeline(options.model, dtype=torch.float32)
    data = load_image_text(options.dataset[0], SIZE, show_progress=False)
    for module in (pipe.vae, pipe.text_encoder, pipe.unet):
        module.requires_grad_(False)
    config = LoraConfig(r=options.lora_rank, lora_alpha=options.lora_rank, target_modules=options.lora_target_modules)
    pipe.unet.add_adapter(config)
    trained = [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]
    optimizer, scheduler = torch.optim.AdamW(trained, lr=1e-2), DDPMScheduler.from_config(pipe.scheduler.config)
    pipe.unet.train()
    loader = torch.utils.data.DataLoader(data, options.train_batch_size, shuffle=True)
    batches = iter(loader)
    for _ in range(steps):
        batch = next(batches, None) or next(batches := iter(loader))
        with torch.no_grad():
            latents = pipe.vae.encode(batch["pixels"]).latent_dist.sample() * pipe.vae.config.scaling_factor
            text = pipe.encode_prompt(batch["caption"], "cpu", 1, False)[0]
        noise, timesteps = torch.randn_like(latents), torch.randint(1000, (len(latents),))
        prediction = pipe.unet(scheduler.add_noise(latents, noise, timesteps), timesteps, text).sample
        target = noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, timesteps)
        torch.nn.functional.mse_loss(prediction, target).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
