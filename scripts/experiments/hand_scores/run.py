"""Score hands of known and unknown quality with both judges: photographs, rendered hands, the packaged model, adapters.

    python -m scripts.experiments.hand_scores.run --photographs sign-language-digits --adapters runs/trained_parts \
        --output runs/hand_scores --results docs/results/hand_scores.json

Three groups, each with its reference: photographs of the test subjects beside those of the training subjects; rendered
hands and the packaged model's, in the poses it knows; and, in free poses, the model before and after fine-tuning, with
the adapters of seed 0 of the experiment trained_parts. Without --photographs or --adapters their groups are left out.
Writes a JSON file and a page beside it, and the report of each group into the output folder.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from geopos_diffusers.cli.main import main as geopos
from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import DataError
from geopos_diffusers.files import atomic_directory, write_text
from geopos_diffusers.images.metadata import METADATA, read_rows
from geopos_diffusers.metrics.report import JSON_FILE
from geopos_diffusers.training.processes import run_script

from ..photographs import read_photographs
from ..rendered_hands import KNOWN_HANDS, render
from ..results import write_results
from .section import page

SIZE = 64
WORKERS = ["--num-workers", "2"]
ADAPTERS = {  # name here: folder of the arm in trained_parts, options of `geopos generate`
    "geometry": ("geometry", ("--geoconv",)),
    "bias": ("bias", ("--geoconv",)),
    "taps": ("taps", ("--geoconv",)),
    "LoRA r=4": ("LoRA-attention-r=4", ("--lora",)),
    "LoRA r=4 + geometry": ("LoRA-attention-r=4-+-geometry", ("--lora", "--geoconv")),
    "LoRA r=4 + bias": ("LoRA-attention-r=4-+-bias", ("--lora", "--geoconv")),
}


def command(*words: object) -> None:
    """Run a command of `geopos`; SystemExit where it fails."""
    if (code := geopos([str(word) for word in words])) != 0:
        sys.exit(code)


def export_photographs(source: Path, target: Path) -> Path:
    """A folder of images from a Parquet file of labelled photographs; labels 0 to 5 are raised fingers."""
    if target.exists():
        return target
    rows = read_photographs(source)
    with atomic_directory(target) as folder, open(folder / METADATA, "w", encoding="utf-8") as metadata:
        for index, row in enumerate(rows):
            name = f"{index:06d}.png"
            row["image"].save(folder / name)
            known = {"fingers": row["label"]} if row["label"] <= 5 else {}
            metadata.write(json.dumps({"file_name": name, "hands": 1, **known}) + "\n")
    return target


def draw(folder: Path, prompts: Path, count: int, seed: int, options: list[object]) -> Path:
    """Images of the packaged model for the captions of the first `count` rendered hands of a folder."""
    if not folder.exists():
        texts = [row["text"] for _, row in read_rows(prompts / METADATA)][:count]
        file = folder.with_suffix(".txt")
        write_text(file, "".join(f"{text}\n" for text in texts))
        command("generate", *options, "--prompts-file", file, "--seed", seed, "--output", folder)
    return folder


def evaluate(args: argparse.Namespace, group: str, images: dict[str, Path], reference: Path) -> dict[str, Any]:
    """Score folders by name; returns the report's JSON."""
    output = Path(args.output) / f"scores-{group}"
    command("evaluate", "--images", *images.values(), "--names", *images, "--reference", reference, "--seed", args.seed,
            "--output", output, "--overwrite")  # fmt: skip
    return json.loads((output / JSON_FILE).read_text(encoding="utf-8"))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    work, count, seed = Path(args.output), args.num_images, args.seed
    groups: dict[str, dict[str, Any]] = {}
    if args.photographs is not None:
        test, train = (
            export_photographs(args.photographs / f"{name}.parquet", work / f"photographs-{name}")
            for name in ("test", "train")
        )
        groups["photographs"] = evaluate(args, "photographs", {"test subjects": test}, train)
    known = render(work / "known-reference", 2 * count, SIZE, seed, [*KNOWN_HANDS, *WORKERS])
    rendered = render(work / "known-rendered", count, SIZE, seed + 1, [*KNOWN_HANDS, *WORKERS])
    base = draw(work / "known-base", known, count, seed, [])
    groups["known poses"] = evaluate(args, "known-poses", {"rendered hands": rendered, "packaged model": base}, known)
    if args.adapters is not None:
        free = render(work / "free-reference", 2 * count, SIZE, seed + 2, WORKERS)
        images = {"base": draw(work / "free-base", free, count, seed, [])}
        for name, (arm, options) in ADAPTERS.items():
            adapter = args.adapters / arm / "seed-0" / "final"
            if not adapter.is_dir():
                raise DataError(f"{adapter} is missing; run the experiment trained_parts into {args.adapters} first")
            words = [word for option in options for word in (option, adapter)]
            images[name] = draw(work / f"free-{arm}", free, count, seed, words)
        images["rendered hands"] = render(work / "free-rendered", count, SIZE, seed + 3, WORKERS)
        groups["free poses"] = evaluate(args, "free-poses", images, free)
    runs = [
        {"variant": name, "group": group, **scores} for group, report in groups.items() for name, scores in rows(report)
    ]
    comparisons = {group: report["comparisons"] for group, report in groups.items()}
    notes = {group: report["notes"] for group, report in groups.items()}
    settings = {"images": count, "seed": seed, "adapters_seed": 0}
    return write_results(args.results, "hand_scores", runs, settings, comparisons=comparisons, notes=notes)


def rows(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What is kept of a report's folders, the reference's last: scores, those of the matched reference, agreement."""
    folders = [*report["folders"], report["reference"]]
    names = ("scored", "scores", "reference_scores", "found_ratio", "quality", "agreement")
    return [(folder["name"], {name: folder[name] for name in names}) for folder in folders]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="folder with train.parquet and test.parquet")
    parser.add_argument("--adapters", type=Path, metavar="DIR", help="output folder of the experiment trained_parts")
    parser.add_argument("--output", default="runs/hand_scores", help="folder of images and reports (%(default)s)")
    parser.add_argument("--results", default="docs/results/hand_scores.json", help="results file (%(default)s)")
    parser.add_argument("--num-images", type=int, default=200, help="images of each set (%(default)s)")
    parser.add_argument("--seed", type=int, default=6000, help="of hands, noise and intervals (%(default)s)")
    args = parser.parse_args()
    Path(args.output).mkdir(parents=True, exist_ok=True)
    results = measure(args)
    write_text(Path(args.results).with_suffix(".md"), page(results))
    print(f"Written: {args.results}")


if __name__ == "__main__":
    run_script(main)
