"""index.html of a finished demo: one file with its pictures inside it, for any width of screen, the verdict first."""

import base64
import html
import io
import json
from pathlib import Path

from PIL import Image

from geopos_diffusers.files import write_text
from geopos_diffusers.metrics.report import PAGE_FILE

from ..frames.data import read_rows
from .figures import asked_rows, boxed, detector_pictures, loss_curves, save_comparison, score_bars
from .scores import ARM_NAMES, CONTROLS, KID_NAME, RENDERED, SCORES, TRAINED, with_interval

PAIRS, ALL_ARMS, DETECTED, COMPARED = 16, 8, 12, 8
STYLE = """
body { font: 1rem/1.5 sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; color: #222; background: #fff }
h1 { font-size: 1.15rem; font-weight: 600; line-height: 1.45; border-left: .3rem solid #1b6ca8; padding-left: .8rem }
h2 { font-size: 1.1rem; margin-top: 2.5rem }
figure { margin: 0 }
figcaption { font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere }
img { max-width: 100%; height: auto; vertical-align: top }
.pixels { image-rendering: pixelated; width: 100% }
.grid { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fill, minmax(min(12rem, 45%), 1fr)) }
.plots { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)) }
.plots img { width: 100%; max-width: 32rem }
.places { grid-template-columns: repeat(3, minmax(0, 1fr)); max-width: 30rem }
.small { grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)) }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px }
.legend { font-size: .9rem; color: #555 }
.box { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; white-space: nowrap; font-size: .9rem }
td, th { padding: .3rem .7rem; border-bottom: 1px solid #ccc; text-align: right }
td:first-child, th:first-child { text-align: left }
.arms td { text-align: left; white-space: normal; min-width: 4.5rem; vertical-align: top }
.arms th { text-align: left }
.arms td:last-child { min-width: 12rem }
.arms .pixels { width: 4.5rem }
.slider { position: sticky; top: 0; background: #fff; padding: .5rem 0; z-index: 1 }
input[type=range] { width: 100%; margin: 0 }
pre { overflow-x: auto; background: #f4f4f4; padding: .8rem; font-size: .8rem }
"""
SCRIPT = """
const frames = JSON.parse(document.getElementById("frames").textContent);
const slider = document.getElementById("scale");
const pictures = document.querySelectorAll("#strength img");
slider.addEventListener("input", () => {
  const step = Number(slider.value);
  document.getElementById("shown").value = frames.scales[step];
  slider.setAttribute("aria-valuetext", frames.scales[step]);
  pictures.forEach((picture, index) => { picture.src = frames.pictures[index][step]; });
});
"""


def write_page(output: Path) -> None:
    """Write index.html and comparison.png into the folder of a demo that has its summary.json."""
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    save_comparison(output, COMPARED)
    body = [
        f'<h1 id="verdict">{html.escape(summary["verdict"])}</h1>',
        hands_paragraph(summary),
        introduction(summary),
        places_section(output),
        pairs_section(output),
        slider_section(output),
        scores_section(output, summary),
        arms_section(output),
        detector_section(output),
        commands_section(summary),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>GeoConv on rendered hands</title><style>{STYLE}</style>"
    )
    page = ["<!doctype html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>"]
    write_text(output / "index.html", "".join(f"{part}\n" for part in page))


def hands_paragraph(summary: dict) -> str:
    """What became of the hands themselves, whichever way it went."""
    judged, difference = summary["judged"]["fingers"], summary["judged_difference"]["fingers"]
    shares = {name: f"{100 * value['value']:.0f}%" for name, value in judged.items()}
    minus = ", ".join(f"{ARM_NAMES[name]} {with_interval(difference[name], 0, 100, '+')}" for name in difference)
    return (
        "<p>A judge finds a hand with as many raised fingers as asked for in "
        f"{shares['geometry']} of the geometry's pictures, {shares['bias']} of the bias's, {shares['lora']} of LoRA's "
        f"and {shares['base']} of the base model's, which draws large hands in the middle alone. Geometry minus each, "
        f"in points: {minus}.</p>"
    )


def introduction(summary: dict) -> str:
    rates = "; ".join(
        f"{ARM_NAMES[name]} {summary['parameters'][name]:,} weights at a learning rate of "
        f"{summary['learning_rate'][name]:g}"
        for name in TRAINED
    )
    return (
        f"<p>The packaged 64-pixel model was trained for {summary['steps']} steps of {summary['samples_per_step']} on "
        f"{summary['training_images']:,} rendered hands at all places and of all sizes. It knew such hands, but in the "
        "middle of the image and before fewer colours. Captions do not say where a hand is. Three kinds of weights "
        f"were trained, each by itself, with the same images, batches and seed: {rates}. The geometry's coordinates "
        "count from the hand's box, and its term is added in the box alone. So the geometry is told where the hand "
        "goes; the controls cannot be, and learn the hands alone. The geometry contains the bias (its constant "
        "coefficient). How it compares with other ways to tell a model the box stands in docs/results/frames.md. Each "
        "rate is the best of those tried on other hands. Intervals are 95% over the images, and do not cover other "
        "training seeds.</p>"
    )


def places_section(output: Path) -> str:
    """One prompt and one noise in the boxes of a grid."""
    folder = output / "geometry" / "places"
    rows = read_rows(folder)
    figures = "".join(f"<figure>{embedded(png(boxed(folder, row)), 'a hand in its box')}</figure>" for row in rows)
    return (
        f'<h2>One prompt, one noise, {len(rows)} boxes</h2><p class="legend">{html.escape(rows[0]["text"])}</p>'
        f'<div class="grid places">{figures}</div>'
    )


def pairs_section(output: Path) -> str:
    figures = []
    for row in asked_rows(output, PAIRS):
        images = "".join(with_box(output, name, row) for name in ("base", "geometry"))
        figures.append(f'<figure><div class="pair">{images}</div>{caption(row["text"])}</figure>')
    return (
        "<h2>Same prompt, same noise</h2>"
        '<p class="legend">Left: the base model. Right: the same model with the trained geometry weights. The frame is '
        "the box that was asked for. Nothing was selected: these are the first prompts and seeds.</p>"
        f'<div class="grid">{"".join(figures)}</div>'
    )


def slider_section(output: Path) -> str:
    """Pictures at the strengths of `set_geoconv_scale`, exchanged by a range input."""
    folders = {float(path.name.removeprefix("scale-")): path for path in (output / "geometry").glob("scale-*")}
    rows = read_rows(next(iter(folders.values())))
    folders = dict(sorted({0.0: output / "base" / "images", 1.0: output / "geometry" / "images", **folders}.items()))
    pictures = [[data_url(folder / row["file_name"]) for folder in folders.values()] for row in rows]
    frames = json.dumps({"scales": [f"{scale:g}" for scale in folders], "pictures": pictures})
    last = len(folders) - 1
    figures = [
        f'<figure><img class="pixels" alt="{html.escape(row["text"])}" src="{urls[last]}">'
        f"{caption(row['text'])}</figure>"
        for row, urls in zip(rows, pictures, strict=True)
    ]
    return (
        '<h2>From the base to the adapter</h2><div class="slider"><label for="scale">Strength of the geometry, '
        'set_geoconv_scale(pipe, <output id="shown" for="scale">1</output>): 0 is the base model, 1 the adapter</label>'
        f'<input type="range" id="scale" min="0" max="{last}" step="1" value="{last}" aria-valuetext="1"></div>'
        f'<div class="grid" id="strength">{"".join(figures)}</div>'
        f'<script type="application/json" id="frames">{frames}</script><script>{SCRIPT}</script>'
    )


def scores_section(output: Path, summary: dict) -> str:
    rows = [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in score_rows(summary)]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *ARM_NAMES.values(), "rendered hands"))
    return (
        "<h2>Loss and scores</h2>"
        f'<div class="grid plots">{plot(loss_curves(output), "loss of the three trainings by step")}'
        f"{plot(score_bars(summary), 'bars of the scores in the table below')}</div>"
        f'<div class="box" tabindex="0" role="region" aria-label="table of scores"><table><tr>{head}</tr>'
        f"{''.join(rows)}</table></div>"
        f'<p class="legend">In brackets: 95% intervals. Loss on {summary["held_out_images"]} new images, the same '
        f"noise for all; pictures: {summary['drawn_images']} of each model. A lower loss and a smaller {KID_NAME} are "
        "better. The judge is the package's own; it sees small hands, too, which MediaPipe often misses. An image "
        "without a hand counts as no overlap. Differences are paired; an interval that holds 0 shows none. "
        "Rendered hands are what an ideal model "
        "would reach; their distance is that of two halves of the reference. "
        f'<a href="{SCORES}/{PAGE_FILE}">The report of all images</a> has every measure of both judges.</p>'
    )


def score_rows(summary: dict) -> list[list[str]]:
    """Rows of text, six cells each: measure, base, geometry, bias, LoRA, rendered hands."""
    names = (*ARM_NAMES, RENDERED)
    judged, difference, mediapipe = summary["judged"], summary["judged_difference"], summary["mediapipe"]

    def row(label: str, values: dict, digits: int = 3, factor: int = 1, sign: str = "") -> list[str]:
        return [label, *(with_interval(values.get(name), digits, factor, sign) for name in names)]

    return [
        ["weights trained", "0", *(f"{summary['parameters'][name]:,}" for name in TRAINED), "-"],
        ["held-out loss, ratio to base", "1", *(with_interval(summary["loss_ratio"][name]) for name in TRAINED), "-"],
        [
            "geometry's ratio minus this",
            with_interval(minus_one(summary["loss_ratio"]["geometry"]), sign="+"),
            "-",
            *(with_interval(summary["loss_difference"][name], sign="+") for name in CONTROLS),
            "-",
        ],
        row("overlap with the box (IoU)", judged["iou"]),
        row("geometry's overlap minus this", difference["iou"], sign="+"),
        row("judge: fingers right, %", judged["fingers"], 1, 100),
        row("geometry's share right minus this, %", difference["fingers"], 1, 100, "+"),
        row("judge: one hand, %", judged["one_hand"], 1, 100),
        row("judge: well formed, mean probability", judged["well_formed"]),
        row(f"{KID_NAME} to rendered hands", summary["kid"], 4),
        row("MediaPipe: hand found, %", mediapipe["found"], 1, 100),
        row("MediaPipe: finger count right, if found, %", mediapipe["count_right"], 1, 100),
    ]


def minus_one(value: dict) -> dict:
    return {name: number - 1 for name, number in value.items()}


def arms_section(output: Path) -> str:
    rows = []
    for row in asked_rows(output, ALL_ARMS):
        cells = (f"<td>{with_box(output, name, row)}</td>" for name in ARM_NAMES)
        rows.append(f"<tr>{''.join(cells)}<td>{html.escape(row['text'])}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in (*ARM_NAMES.values(), "prompt"))
    return (
        "<h2>The controls, from the same noise</h2>"
        '<div class="box" tabindex="0" role="region" aria-label="pictures of all models">'
        f'<table class="arms"><tr>{head}</tr>{"".join(rows)}</table></div>'
    )


def detector_section(output: Path) -> str:
    grids = []
    for name in ("base", "geometry"):
        pictures = (
            f"<figure>{embedded(png(image), f'{ARM_NAMES[name]}: {text}')}{caption(text)}</figure>"
            for image, text in detector_pictures(output, name, DETECTED)
        )
        grids.append(f'<h3>{ARM_NAMES[name].capitalize()}</h3><div class="grid small">{"".join(pictures)}</div>')
    return (
        "<h2>What the hand detector saw</h2>"
        '<p class="legend">The same prompts and noise in both grids: the first of those scored. Frame: green, as many '
        "fingers as asked for; orange, another number; red, no hand found.</p>" + "".join(grids)
    )


def commands_section(summary: dict) -> str:
    lines = [f"{stage['seconds']:6.1f} s  {stage['command'] or name}" for name, stage in summary["stages"].items()]
    return (
        f"<h2>Commands</h2><p>{summary['total_seconds']:.0f} s in all; two commands ran at a time.</p>"
        f'<pre tabindex="0">{html.escape(chr(10).join(lines))}</pre>'
    )


def with_box(output: Path, name: str, row: dict) -> str:
    """An arm's picture of a row, with the box that was asked for."""
    return embedded(png(boxed(output / name / "images", row)), ARM_NAMES[name])


def caption(text: str) -> str:
    return f"<figcaption>{html.escape(text)}</figcaption>"


def plot(data: bytes, text: str) -> str:
    return f'<img alt="{html.escape(text)}" src="data:image/svg+xml;base64,{base64.b64encode(data).decode()}">'


def embedded(data: bytes, text: str) -> str:
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def data_url(path: Path) -> str:
    """A PNG file as the address of a picture, without the settings that are stored in it."""
    with Image.open(path) as image:
        return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
