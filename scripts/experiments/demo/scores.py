"""The figures of a finished demo: loss ratios, hand scores and paired differences, with intervals, and the verdict."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from geopos_diffusers.metrics.bootstrap import bootstrap_interval, mean
from geopos_diffusers.metrics.features import EXTRACTOR
from geopos_diffusers.metrics.report import JSON_FILE
from geopos_diffusers.metrics.report_document import read_document

ARM_NAMES = {"base": "base model", "geometry": "geometry", "bias": "bias alone", "lora": "LoRA"}
TRAINED = ("geometry", "bias", "lora")
CONTROLS = ("bias", "lora")
EDGE = 8  # rows, of 64, whose brightness is that of the upper and of the lower edge
KID_NAME, KID = f"KID-{EXTRACTOR}", f"images/{EXTRACTOR}/kid"  # in words, and in evaluation.json
SCORES = "scores"  # folder of the report of all arms


def summarise(output: Path, seed: int) -> dict:
    """All figures by name; an interval is {"value", "low", "high"}, all None where there is nothing to measure.

    Reads held_out.json, scores/evaluation.json and, of each arm, images/ and train/summary.json.
    """
    losses = {name: np.array(values) for name, values in json.loads(read(output / "held_out.json")).items()}
    evaluation = read_document(output / SCORES / JSON_FILE)
    scores = {folder["name"]: folder for folder in evaluation["folders"]}
    training = {name: json.loads(read(output / name / "train" / "summary.json")) for name in TRAINED}
    rendered = scores["base"]["reference_scores"]
    falls = {name: brightness_falls(output / name / "images") for name in ARM_NAMES}
    rendered_falls = brightness_falls(output / "reference")
    measures = ("found", "count_right", "found_and_right")
    summary = {
        "steps": training["geometry"]["steps"],
        "samples_per_step": training["geometry"]["samples_per_step"],
        "training_images": training["geometry"]["images"],
        "held_out_images": len(losses["base"]),
        "drawn_images": scores["base"]["scored"],
        "seed": seed,
        "parameters": {name: training[name]["trained_parameters"] for name in TRAINED},
        "learning_rate": {name: max(training[name]["learning_rate"].values()) for name in TRAINED},
        "loss_ratio": {name: loss_ratio(losses["base"], losses[name], seed) for name in TRAINED},
        "loss_difference": {
            name: loss_difference(losses["base"], losses["geometry"], losses[name], seed) for name in CONTROLS
        },
        "fall": {
            name: asdict(bootstrap_interval(np.mean, values, seed=seed))
            for name, values in {**falls, "rendered": rendered_falls}.items()
        },
        "fall_difference": {
            name: paired_difference(falls["geometry"], falls[name], seed) for name in ("base", *CONTROLS)
        },
        "kid": {name: scores[name]["quality"][KID] for name in ARM_NAMES}
        | {"rendered": evaluation["reference"]["quality"][KID]},
        **{
            measure: {name: scores[name]["scores"][measure] for name in ARM_NAMES} | {"rendered": rendered[measure]}
            for measure in measures
        },
        "found_and_right_difference": {
            name: paired_difference(outcomes(scores["geometry"]), outcomes(scores[name]), seed)
            for name in ("base", *CONTROLS)
        },
    }
    return {"verdict": verdict(summary), **summary}


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


def brightness_falls(folder: Path) -> np.ndarray:
    """How much darker the background is at the lower edge than at the upper one, [N] in shares of white.

    Medians over the outermost columns, which hands seldom reach: 0 for a plain background. It was added after a first
    full run had shown that the kernel distance and the hand scores do not improve, so it stands beside them, not
    in their place.
    """
    falls = []
    for path in sorted(folder.glob("0*.png")):
        with Image.open(path) as image:
            gray = np.asarray(image.convert("L"), float)[:, [0, 1, 2, -3, -2, -1]] / 255
        falls.append(np.median(gray[:EDGE]) - np.median(gray[-EDGE:]))
    return np.array(falls)


def outcomes(folder: dict) -> np.ndarray:
    """[N] of 1.0 where a hand was found with the number of fingers that was asked for, else 0.0; by file name.

    nan where the prompt names no number.
    """
    rows = sorted(folder["images"], key=lambda row: row["file_name"])
    return np.array([row["values"]["found_and_right"] for row in rows], dtype=float)


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
    fall = {name: value["value"] for name, value in summary["fall"].items()}
    pictures = (
        f"their backgrounds fade by {with_interval(summary['fall']['geometry'], 2)} of white from top to bottom (base "
        f"{fall['base']:.2f}, bias {fall['bias']:.2f}, LoRA {fall['lora']:.2f}, rendered {fall['rendered']:.2f}), and "
        f"the pictures as a whole are {closeness(summary['kid'])}"
    )
    bias = comparison(summary["loss_difference"]["bias"], "a bias alone")
    lora = comparison(summary["loss_difference"]["lora"], "LoRA")
    weights = f"{parameters:,} geometry weights, trained for {summary['steps']} steps"
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
