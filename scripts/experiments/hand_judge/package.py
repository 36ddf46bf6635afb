"""Put a trained judge into the package, with a card that says how it was made and how well it judges.

    python -m scripts.experiments.hand_judge.package --judge runs/hand_judge/judge

The card's figures are read from the results file, so measure first. It prints the SHA-256 that `metrics/hand_judge.py`
must know.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geopos_diffusers.command_line import Parser
from geopos_diffusers.data.hand_defects import DEFECTS
from geopos_diffusers.files import write_text
from geopos_diffusers.metrics.hand_judge import FOLDER, WEIGHTS_FILE
from geopos_diffusers.metrics.wheel_files import sha256_of

from .evaluate import RESULTS

CARD = """---
license: apache-2.0
library_name: geopos-diffusers
tags: [hands, image-quality, synthetic]
---

# A judge of hands

A network of {parameters} M parameters for images of hands: is a hand shown, is it well formed, how many fingers are
raised (0 to 5), is it a right hand, and where are its 21 key points (MediaPipe's order)? It shares no weights and no
training data with MediaPipe, so the two can check each other.

```python
from geopos_diffusers.metrics.hand_judge import load_hand_judge

(judgement,) = load_hand_judge().judge([image])  # PIL images of any size
print(judgement.well_formed, judgement.fingers)
```

It looks at the whole image at 96 pixels, then at an upright square around the key points found there.

## How it was made
Trained from nothing on {train_images:,} hands rendered by this project, half of them with a defect made in the mesh or
the joints before rendering ({kinds}).
Both classes get the same random backgrounds, framing, light, blur, noise, JPEG, size and skin texture. No photograph
and no generated image was used. {runs} runs, each from the weights of the one before
(`configs/experiments/hand_judge*.yaml`, `python -m scripts.experiments.hand_judge.run`): {steps:,} steps of
{batch_size} in {minutes} minutes on one CPU core. "Well formed" is balanced: half of the training's hands are.

## How good it is
In brackets: 95% bootstrap intervals. All figures: docs/results/hand_judge.json.

{figures}

The photographs are of sign language digits (Arda Mavi et al., arXiv 2011.08927, Apache-2.0), which show nearly
only right hands. The labelled images are of `hands64`
(scripts/experiments/hand_judge/packaged_model_labels.json). Nothing was trained on either, but
both had been measured with earlier weights when it was decided how skin is varied in training, to render
fingertips that meet, and which of two last runs is packaged: their figures are no blind test.

## Limits
{limits}
"""
LIMITS = """\
What it calls well formed depends on what its rendered hands look like; on other kinds of pictures trust differences
between sets, not single images. Its score of real hands shows how far off it is there. One hand an image: with several
it looks at one or between them. In fists and from the side defects and fingers are hard to see. It judges shape alone,
not skin, and knows no sleeves, rings or held things."""


def percent(score: dict[str, Any]) -> str:
    low, high = (f"{100 * score[end]:.0f}" for end in ("low", "high"))
    return f"{100 * score['value']:.1f}% [{low}, {high}]"


def area(score: dict[str, Any]) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def figures(results: dict[str, Any]) -> str:
    """A table of the results."""
    rendered, photographs = results["rendered"], results["photographs"]
    kinds = rendered["well_formed_auc_by_kind"]
    rows = [
        ('rendered test hands: area under the ROC curve of "well formed"', area(rendered["well_formed_auc"])),
        *((f"- of {kind.replace('_', ' ')}", area(kinds[kind])) for kind in DEFECTS),
        ("- accuracy", percent(rendered["well_formed_accuracy"])),
        ("- number of raised fingers; seen from the front", both(rendered, "fingers")),
        ("- which hand; seen from the front", both(rendered, "handedness")),
        ("- key points: mean distance by the hand's size", percent(rendered["keypoint_error_by_hand_size"])),
    ]
    for part, scores in photographs.items():
        rows += [
            (
                f"photographs, {part} ({scores['subjects']} people): called well formed",
                percent(scores["called_well_formed"]),
            ),
            ("- number of raised fingers (digits 0 to 5)", percent(scores["fingers"])),
            ("- called right hands", percent(scores["right_hand"])),
        ]
    if labelled := results.get("labelled"):
        rows += [
            ("labelled generated images: area under the ROC curve", area(labelled["well_formed_auc"])),
            ("- agreement with the label", percent(labelled["well_formed_accuracy"])),
            ("- the same as Cohen's kappa", f"{labelled['well_formed_kappa']:.2f}"),
            ("- number of raised fingers", percent(labelled["fingers"])),
            ("- number of raised fingers of those labelled well formed", percent(labelled["fingers_of_well_formed"])),
        ]
    return "\n".join(["| measure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def both(rendered: dict[str, Any], name: str) -> str:
    return f"{percent(rendered[name])}; {percent(rendered[name + '_front'])}"


def page(card: str) -> str:
    """The card as a page of the results: without its head, with the figure."""
    return f"{card.split('---', 2)[2].strip()}\n\n![Areas and shares with their intervals](hand_judge.png)\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="folder of the run")
    parser.add_argument("--results", default=RESULTS, help="what evaluate.py wrote (default: %(default)s)")
    args = parser.parse_args(argv)
    results = json.loads(Path(args.results).read_text(encoding="utf-8"))
    training = results["training"]
    runs = [training]
    while "before" in runs[-1]:
        runs.append(runs[-1]["before"])
    card = CARD.format(
        parameters=f"{training['parameters'] / 1e6:.1f}",
        train_images=training["images"],
        kinds=", ".join(kind.replace("_", " ") for kind in DEFECTS),
        runs=len(runs),
        steps=sum(run["steps"] for run in runs),
        batch_size=training["batch_size"],
        minutes=round(sum(run["seconds"] for run in runs) / 60),
        figures=figures(results),
        limits=LIMITS,
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(args.judge) / WEIGHTS_FILE, FOLDER / WEIGHTS_FILE)
    write_text(FOLDER / "README.md", card)
    write_text(Path(args.results).with_suffix(".md"), page(card))
    print(f'WEIGHTS_SHA256 = "{sha256_of((FOLDER / WEIGHTS_FILE).read_bytes())}"')


if __name__ == "__main__":
    sys.exit(main())
