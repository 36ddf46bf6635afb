"""The main job from end to end: render hands, fine-tune the packaged model with GeoConv, draw, score, write a page.

    python scripts/demo.py --output runs/demo

Every stage is a `geopos` command, printed before it runs. The page, index.html, holds the pictures, the loss curve and
the table of scores of the base model, of the adapter and of rendered hands.
"""

import argparse
import base64
import html
import io
import json
import os
import shlex
import sys
import time
from pathlib import Path

from PIL import Image

from geopos_diffusers.cli.generate import side_by_side
from geopos_diffusers.cli.main import main as geopos
from geopos_diffusers.contact_sheet import contact_sheet
from geopos_diffusers.files import atomic_path, write_json, write_text

# The distribution that the packaged model was trained on (see its model card).
HANDS = shlex.split(
    "--size 64 --views palm back --max-tilt 12 --max-rotation 15 --poses canonical --backgrounds plain "
    "--colours white gray black yellow green teal blue purple --fill 0.7 0.88"
)
SHOWN = 24
CONFIG = os.path.relpath(Path(__file__).parents[1] / "configs" / "finetune_hands.yaml")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", default="runs/demo", help="folder of the run; it is replaced (default: %(default)s)"
    )
    parser.add_argument("--hands", type=int, default=3000, help="hands to render for training (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="fine-tuning steps (default: %(default)s)")
    parser.add_argument("--images", type=int, default=120, help="images to draw and score (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1000, help="first seed of data, training and images")
    args = parser.parse_args()
    output, started = Path(args.output), time.perf_counter()
    commands = build_commands(args, output)
    seconds = {}
    for name, command in commands.items():
        print(f"\n$ geopos {shlex.join(command)}", flush=True)
        start = time.perf_counter()
        if name.startswith("draw"):
            write_prompts(output, args.images)
        if (code := geopos(command)) != 0:
            return code
        seconds[name] = round(time.perf_counter() - start, 1)
    total = round(time.perf_counter() - started, 1)
    write_page(output, commands, seconds, total)
    print(f"\n{total:.0f} s in all; open {output / 'index.html'}")
    return 0


def build_commands(args: argparse.Namespace, output: Path) -> dict[str, list[str]]:
    """The `geopos` commands by stage name."""
    seed, workers = args.seed, str(min(2, os.cpu_count() or 1))

    def hands(count: int, seed: int, folder: str) -> list[str]:
        common = ["--count", str(count), "--seed", str(seed), "--workers", workers, "--overwrite"]
        return ["data", "hands", *common, *HANDS, "--output", str(output / folder)]

    run = output / "finetune"
    adapter = str(run / "final")
    drawing = ["--seed", str(seed), "--num-images", str(args.images), "--prompts-file", str(output / "prompts.txt")]
    scoring = ["--reference", str(output / "reference"), "--seed", str(seed)]
    return {
        "render training hands": hands(args.hands, seed, "hands"),
        "render reference hands": hands(2 * args.images, seed + 1, "reference"),
        "fine-tune": [
            *["train", "--config", CONFIG, "--dataset", str(output / "hands"), "--output_dir", str(run)],
            *["--max_train_steps", str(args.steps), "--seed", str(seed), "--overwrite", "true"],
        ],
        "draw with base and adapter": [
            *["generate", "--geoconv", adapter, "--compare", *drawing],
            *["--output", str(output / "images"), "--overwrite"],
        ],
        "score the base": [
            *["evaluate", "--images", str(output / "images" / "base"), *scoring],
            *["--output", str(output / "scores-base")],
        ],
        "score the adapter": [
            *["evaluate", "--images", str(output / "images"), *scoring],
            *["--output", str(output / "scores-adapter")],
        ],
    }


def write_prompts(output: Path, count: int) -> None:
    """The captions of the first rendered reference hands: prompts with just the attributes of the reference."""
    rows = (output / "reference" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    write_text(output / "prompts.txt", "".join(json.loads(row)["text"] + "\n" for row in rows[:count]))


def write_page(output: Path, commands: dict[str, list[str]], seconds: dict[str, float], total: float) -> None:
    """index.html with all pictures inside it, comparison.png, and summary.json with the figures."""
    rows = [json.loads(line) for line in (output / "images" / "metadata.jsonl").read_text().splitlines()]
    pairs = [
        side_by_side(
            Image.open(output / "images" / "base" / row["file_name"]), Image.open(output / "images" / row["file_name"])
        )
        for row in rows[:SHOWN]
    ]
    sheet = contact_sheet(pairs, [row["text"] for row in rows[:SHOWN]], columns=4, cell=4 * pairs[0].height)
    with atomic_path(output / "comparison.png") as temporary:
        sheet.save(temporary)
    scores = {
        name: json.loads((output / f"scores-{name}" / "evaluation.json").read_text()) for name in ("base", "adapter")
    }
    training = json.loads((output / "finetune" / "summary.json").read_text())
    write_json(
        output / "summary.json",
        {"seconds": seconds, "total_seconds": total, "training": training, "table": score_rows(scores)},
    )
    body = [
        "<h1>GeoConv on rendered hands</h1>",
        f"<p>{training['trained_parameters']:,} geometry weights, {training['steps']} steps of "
        f"{training['samples_per_step']} images, seed {training['seed']}; {total:.0f} s in all.</p>",
        "<h2>Same prompt, same noise: base model (left), with the adapter (right)</h2>",
        picture(sheet, "pairs of images"),
        "<h2>Scores</h2>",
        score_table(score_rows(scores)),
        "<p>In brackets: 95% intervals. Where the intervals of two columns overlap widely, no difference is shown. "
        "Rendered hands with the same attributes are the upper reference.</p>",
        "<h2>Loss</h2>",
        picture(Image.open(output / "finetune" / "losses.png"), "loss curve"),
        "<h2>What the detector saw: base, then adapter</h2>",
        *(picture(Image.open(output / f"scores-{name}" / "evaluation.png"), name) for name in scores),
        "<h2>Commands</h2>",
        "<pre>"
        + "\n".join(
            f"geopos {html.escape(shlex.join(command))}   # {seconds[name]} s" for name, command in commands.items()
        )
        + "</pre>",
    ]
    style = (
        "body{font-family:sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}img{max-width:100%}"
        "table{border-collapse:collapse}td,th{padding:.3em 1em;border-bottom:1px solid #ccc;text-align:right}"
        "td:first-child,th:first-child{text-align:left}pre{white-space:pre-wrap;background:#f4f4f4;padding:1em}"
    )
    head = f'<meta charset="utf-8"><title>GeoConv on rendered hands</title><style>{style}</style>'
    write_text(
        output / "index.html",
        f"<!doctype html>\n<html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>\n",
    )


def score_rows(scores: dict[str, dict]) -> list[list[str]]:
    """Rows of text: measure, base, adapter, rendered reference."""

    def percent(value: dict) -> str:
        if value["value"] is None:
            return "-"
        return f"{value['value']:.1%} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"

    def number(value: dict | None) -> str:
        return "-" if value is None else f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"

    base, adapter = scores["base"], scores["adapter"]
    columns = (base["images"], adapter["images"], adapter["reference"])
    kid = next(name for name in base if name.startswith("KID"))
    floor = next(name for name in base if name.startswith("KID") and "halves" in name)
    return [
        ["pictures", *(str(column["scored"]) for column in columns)],
        ["hand found", *(percent(column["found"]) for column in columns)],
        ["finger count right, if found", *(percent(column["count_right"]) for column in columns)],
        ["found and count right", *(percent(column["found_and_right"]) for column in columns)],
        [
            f"{kid} to the reference (lower is closer)",
            *(number(value) for value in (base[kid], adapter[kid], adapter[floor])),
        ],
    ]


def score_table(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("", "base", "with adapter", "rendered hands"))
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def picture(image: Image.Image, text: str) -> str:
    """An <img> with the picture inside it, so that the page is one file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<p><img alt="{html.escape(text)}" src="data:image/png;base64,{data}"></p>'


if __name__ == "__main__":
    sys.exit(main())
