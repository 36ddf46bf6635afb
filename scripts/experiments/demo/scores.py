"""The figures of a finished demo: loss ratios, hand scores and paired differences, with intervals, and the verdict."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from geopos_diffusers.metrics.bootstrap import bootstrap_interval, mean
from geopos_diffusers.metrics.features import EXTRACTOR
from geopos_diffusers.metrics.report import JSON_FILE
from geopos_diffusers.metrics.report_document import read_document

from ..frames.data import read_rows
from ..frames.places import image_columns, one_hand

ARM_NAMES = {"base": "base model", "geometry": "geometry", "bias": "bias alone", "lora": "LoRA"}
TRAINED = ("geometry", "bias", "lora")
CONTROLS = ("bias", "lora")
RENDERED = "rendered"  # beside the arms: what an ideal model would reach
MEDIAPIPE = ("found", "count_right", "found_and_right")
KID_NAME, KID = f"KID-{EXTRACTOR}", f"images/{EXTRACTOR}/kid"  # in words, and in evaluation.json
SCORES = "scores"  # folder of the report of all arms


def summarise(output: Path, seed: int) -> dict:
    """All figures by name; an interval is {"value", "low", "high"}, all None where there is nothing to measure.

    Reads held_out.json, places.json, scores/evaluation.json, reference/metadata.jsonl and, of each arm,
    train/summary.json.
    """
    losses = {name: np.array(values) for name, values in json.loads(read(output / "held_out.json")).items()}
    evaluation = read_document(output / SCORES / JSON_FILE)
    scores = {folder["name"]: folder for folder in evaluation["folders"]}
    training = {name: json.loads(read(output / name / "train" / "summary.json")) for name in TRAINED}
    rendered = scores["base"]["reference_scores"]
    found = json.loads(read(output / "places.json"))
    rows = read_rows(output / "reference")[: len(found["base"])]
    judged = {name: judged_columns(found[name], rows) for name in (*ARM_NAMES, RENDERED)}
    summary = {
        "steps": training["geometry"]["steps"],
        "samples_per_step": training["geometry"]["samples_per_step"],
        "training_images": training["geometry"]["images"],
        "held_out_images": len(losses["base"]),
        "drawn_images": len(rows),
        "seed": seed,
        "parameters": {name: training[name]["trained_parameters"] for name in TRAINED},
        "learning_rate": {name: max(training[name]["learning_rate"].values()) for name in TRAINED},
        "loss_ratio": {name: loss_ratio(losses["base"], losses[name], seed) for name in TRAINED},
        "loss_difference": {
            name: loss_difference(losses["base"], losses["geometry"], losses[name], seed) for name in CONTROLS
        },
        "judged": {
            measure: {
                name: asdict(bootstrap_interval(np.mean, values[measure], seed=seed)) for name, values in judged.items()
            }
            for measure in judged["base"]
        },
        "judged_difference": {
            measure: {
                name: paired_difference(judged["geometry"][measure], judged[name][measure], seed)
                for name in ("base", *CONTROLS)
            }
            for measure in judged["base"]
        },
        "kid": {name: scores[name]["quality"][KID] for name in ARM_NAMES}
        | {RENDERED: evaluation["reference"]["quality"][KID]},
        "mediapipe": {
            measure: {name: scores[name]["scores"][measure] for name in ARM_NAMES} | {RENDERED: rendered[measure]}
            for measure in MEDIAPIPE
        },
    }
    return {"verdict": verdict(summary), **summary}


def judged_columns(found: list[dict], rows: list[dict]) -> dict[str, np.ndarray]:
    """What the package's judge says of each image [N], 0 where it finds no hand.

    "iou": overlap of the hand with the box asked for. "one_hand": whether there is one, and nothing beside it.
    "fingers": whether as many are raised as asked for. "well_formed": how probably the hand is.
    """
    return image_columns(found, rows) | {"one_hand": one_hand(found).astype(float)}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def loss_ratio(base: np.ndarray, arm: np.ndarray, seed: int) -> dict:
    """Mean of `arm` over mean of `base`, [N] losses of the same images and noise, resampled in pairs."""
    return asdict(bootstrap_interval(lambda rows: rows[:, 1].mean() / rows[:, 0].mean(), columns(base, arm), seed=seed))


def loss_difference(base: np.ndarray, arm: np.ndarray, other: np.ndarray, seed: int) -> dict:
    """The loss ratio of `arm` minus that of `other`, resampled together; below 0 where `arm` is better."""

    def difference(rows: np.ndarray) -> float:
        return (rows[:, 1].mean() - rows[:, 2].mean()) / rows[:, 0].mean()

    return asdict(bootstrap_interval(difference, columns(base, arm, other), seed=seed))


def paired_difference(arm: np.ndarray, other: np.ndarray, seed: int) -> dict:
    """Mean of `arm` minus mean of `other`, [N] of the same prompts and noise; nan values are left out."""
    return asdict(bootstrap_interval(mean, arm - other, seed=seed))


def columns(*values: np.ndarray) -> np.ndarray:
    return np.stack(values, axis=1)


def verdict(summary: dict) -> str:
    """One sentence on what the intervals show: the geometry against the base and against its controls.

    Where the geometry is no better than the bias, the sentence begins with that.
    """
    ratio, parameters = summary["loss_ratio"]["geometry"], summary["parameters"]["geometry"]
    if ratio["high"] < 1:
        effect = "lower the loss on new images to"
    elif ratio["low"] > 1:
        effect = "raise the loss on new images to"
    else:
        effect = "do not change the loss on new images measurably:"
    loss = f"{effect} {with_interval(ratio)} of the base model's"
    overlap = {name: value["value"] for name, value in summary["judged"]["iou"].items()}
    pictures = (
        f"its hands overlap with the boxes asked for by {with_interval(summary['judged']['iou']['geometry'], 2)} "
        f"(IoU; base {overlap['base']:.2f}, bias {overlap['bias']:.2f}, LoRA {overlap['lora']:.2f}, rendered "
        f"{overlap[RENDERED]:.2f}), and the pictures as a whole are {closeness(summary['kid'])}"
    )
    bias = comparison(summary["loss_difference"]["bias"], "a bias alone")
    lora = comparison(summary["loss_difference"]["lora"], "LoRA")
    weights = f"{parameters:,} geometry weights, told the box and trained for {summary['steps']} steps"
    if bias.startswith("better"):
        return f"{weights}, {loss}, {bias} and {lora}; {pictures}."
    return f"The geometry is {bias}, and {lora}: {weights}, {loss}; {pictures}."


def closeness(kid: dict[str, dict]) -> str:
    """How the kernel distance of the geometry's pictures to rendered hands compares with that of the base's."""
    base, geometry = kid["base"], kid["geometry"]
    if base["value"] is None or geometry["value"] is None:
        return "too few to be compared with rendered hands"
    figures = f"({KID_NAME} {geometry['value']:.3f} against {base['value']:.3f})"
    if geometry["high"] < base["low"]:
        return f"closer to rendered hands {figures}"
    if geometry["low"] > base["high"]:
        return f"farther from rendered hands {figures}"
    return f"not measurably closer to rendered hands or farther from them {figures}"


def comparison(difference: dict, other: str) -> str:
    """Of a difference of loss ratios: "better than", "worse than", or "no better than" where the interval holds 0."""
    word = "better" if difference["high"] < 0 else "worse" if difference["low"] > 0 else "no better"
    return f"{word} than {other} (difference {with_interval(difference, sign='+')})"


def with_interval(value: dict | None, digits: int = 3, factor: int = 1, sign: str = "") -> str:
    """Such as "0.612 [0.598, 0.627]"; "-" where nothing was measured. factor: 100 for percent; sign: "+" to show it."""
    if value is None or value["value"] is None:
        return "-"
    middle, low, high = (f"{factor * value[name]:{sign}.{digits}f}" for name in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"
