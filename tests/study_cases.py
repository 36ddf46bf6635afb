"""Results files of the study with known effects."""

import numpy as np
from experiments.results import write_results

SEEDS = (10, 11, 12, 13, 14)
COMMON = (0.000, 0.006, -0.004, 0.009, -0.007)  # what a seed does to every arm
OWN = {  # what it does to one arm beside that
    "bias": (0.001, -0.002, 0.000, 0.002, -0.001),
    "geometry": (-0.001, 0.001, 0.002, -0.002, 0.000),
    "LoRA r=2": (0.002, 0.000, -0.001, -0.002, 0.001),
    "LoRA r=4": (0.001, 0.002, -0.001, -0.001, -0.001),
    "LoRA r=4 + bias": (0.000, 0.002, -0.002, 0.001, -0.001),
    "LoRA r=4 + geometry": (0.002, -0.001, 0.001, -0.002, 0.000),
    "whole UNet": (0.001, -0.001, 0.002, -0.002, 0.000),
    "whole UNet + geometry": (-0.002, 0.002, 0.000, 0.001, -0.001),
}
# Better than the biases, equal to LoRA r=2 and to the whole UNet, worse beside LoRA.
LOSSES = {
    "bias": 0.64,
    "geometry": 0.60,
    "LoRA r=2": 0.601,
    "LoRA r=4": 0.59,
    "LoRA r=4 + bias": 0.56,
    "LoRA r=4 + geometry": 0.58,
    "whole UNet": 0.50,
    "whole UNet + geometry": 0.50,
}


def variant(number, options="--train bias"):
    """An entry of an arm, each with its own size and best rate."""
    sweep = {"0.1": 0.7, "0.3": 0.61, "1": float("nan") if number == 0 else 0.8}
    return {
        "options": options,
        "swept": "learning_rate",
        "parameters": 3560 + number,
        "sweep": sweep,
        "best_rate": 0.3,
        "bracketed": number != 1,
    }


def records(losses, seeds=SEEDS, primary="loss", **more):
    """Runs of the base, the held-out images, and each arm; losses: mean of each."""
    found = [
        {"variant": "held-out images", "seed": 0, "scores": {"found": 0.97, "well_formed": 0.92, "diversity": 1.0}},
        {"variant": "base", "seed": 0, "scores": {"loss": 1.0, "forgetting": 1.0, "found": 0.31, primary: 1.0}},
    ]
    for arm, mean in losses.items():
        for index, seed in enumerate(seeds):
            value = mean + COMMON[index] + OWN[arm][index]
            bands = {f"loss band {band}": value + 0.1 * (1 - band) for band in range(4)}
            images = {"found": 0.9 - value / 10, "kid": 0.1 * value, "64x128 one_hand": 1 - value / 2, **more}
            scores = {"loss": value, "forgetting": 1.1, **bands, **images, primary: value}
            found.append({"variant": arm, "seed": seed, "scores": scores, "seconds": 90.0 + index, "bytes": 15_000})
    return found


def write_task(folder, name, losses, seeds=SEEDS, primary="loss", **more):
    settings = {"model": "hands64", "max_train_steps": 300, "sweep_seed": 200}
    variants = {arm: variant(number) for number, arm in enumerate(losses)}
    file = folder / "study" / f"{name}.json"
    write_results(
        file, "study", records(losses, seeds, primary, **more), settings, base_loss={"loss": 0.2}, variants=variants
    )
    return file


def values(arm, count=5):
    return LOSSES[arm] + np.array(COMMON[:count]) + np.array(OWN[arm][:count])
