"""report.html: a report's tables and images in one file that needs no network, made from `evaluation.json` alone.

The page gets its data as JSON and builds itself (`web/*.js`). Prompts, file names and folder names come from others:
in the file they stand escaped within the JSON, and the scripts put every text in as text.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report_document import escaped_surrogates
from .report_thumbnails import choose_images, make_thumbnails, ranking_measures, sets_of

WEB = Path(__file__).with_name("web")
SCRIPTS = ("widgets.js", "tables.js", "pictures.js", "page.js")
# A script element ends at "</script", and older parsers end a line at U+2028 and U+2029.
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
REGIONS = {"images": "Images as a set", "crops": "Crops of hands as a set"}
AGREEMENT = {
    "found_kappa": "a hand is there: kappa",
    "fingers_kappa": "raised fingers: kappa",
    "handedness_kappa": "left or right: kappa",
    "anatomy_correlation": "well formed and distance of anatomy: rank correlation",
    "presence_correlation": "well formed and presence: rank correlation",
}


def build_page(document: dict[str, Any]) -> str:
    """The HTML of a report's document (`evaluation_to_dict`). Images that are gone are left out and counted."""
    return self_contained_page(WEB, SCRIPTS, page_data(document))


def self_contained_page(
    folder: Path, scripts: Sequence[str], data: dict[str, Any], images: str = "data:", **parts: str
) -> str:
    """One HTML file with its data as JSON and its scripts, of the files page.html, page.css and `scripts` of a folder.

    Args:
        images: where the page may take images from, as the content security policy says it.
        parts: further HTML, for "{name}" in page.html.
    """
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in scripts)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Nothing but this very script runs, and nothing else is loaded.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts |= {
        "policy": f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "data": escaped_surrogates(text.translate(ESCAPES)),
        "script": script,
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], page)


def page_data(document: dict[str, Any]) -> dict[str, Any]:
    """What the scripts need: the document without landmarks, images as columns, and thumbnails."""
    chosen = choose_images(document)
    thumbnails, missing = make_thumbnails(document, chosen)
    numbers = {image: number for number, image in enumerate(thumbnails)}
    sentence = chosen.sentence
    if missing:
        sentence += f" {missing:,} of these files can no longer be read."
    elif len(thumbnails) < len(chosen.images):
        sentence += f" {len(chosen.images) - len(thumbnails):,} of these would make the page too large."
    texts: dict[str, int] = {}
    groups = group_numbers(document)
    sets = [set_data(place, part, document, texts, groups, numbers) for place, part in enumerate(sets_of(document))]
    sets[-1] |= {"name": "reference", "reference": True}
    reference = document["reference"]
    return {
        **{name: document[name] for name in ("measures", "comparisons", "notes", "settings", "versions", "seed")},
        "date": document["date"][:10],
        "quality": quality_columns(document),
        "agreement": agreement_columns(document),
        "models": [folder_data(folder) for folder in document["folders"]],
        "reference": folder_data(reference) | {"name": "reference"},
        "reference_rows": reference_rows(document),
        "sets": sets,
        "texts": list(texts),
        "thumbs": list(thumbnails.values()),
        "selection": sentence,
        "pairing": pairing_text(document),
        "main_measure": ranking_measures(document)[0]["name"],
    }


def folder_data(folder: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "path", "skipped", "scores", "quality", "agreement")
    return {name: folder[name] for name in names} | {"images": folder["scored"], "crops": folder["crops"]}


def set_data(
    place: int,
    folder: dict[str, Any],
    document: dict[str, Any],
    texts: dict[str, int],
    groups: dict[tuple[int, int], int],
    numbers: dict[tuple[int, int], int],
) -> dict[str, Any]:
    """The images of a folder, column by column; `texts` gives every prompt its number, and gets new ones."""
    images = folder["images"]
    return {
        "name": folder["name"],
        "reference": False,
        "file": [row["file_name"] for row in images],
        "text": [None if row["prompt"] is None else texts.setdefault(row["prompt"], len(texts)) for row in images],
        "seed": [None if row["seed"] is None else str(row["seed"]) for row in images],
        "hands": [len(row["hands"]) for row in images],
        "asked": [row["expected"]["fingers"] for row in images],
        "counted": [row["counted"] for row in images],
        "group": [groups.get((place, index)) for index in range(len(images))],
        "thumb": [numbers.get((place, index)) for index in range(len(images))],
        "values": {
            measure["name"]: [shortened(row["values"][measure["name"]], measure) for row in images]
            for measure in document["measures"]
        },
    }


def shortened(value: float | None, measure: dict[str, Any]) -> float | int | None:
    if value is None:
        return None
    return int(value) if value in (0.0, 1.0) else round(value, measure["digits"] + 2)


def group_numbers(document: dict[str, Any]) -> dict[tuple[int, int], int]:
    """By (set, image): the number of the pair or group that an image belongs to, the baseline's image."""
    numbers = {}
    for place, pairing in enumerate(document["pairings"], start=1):
        for first, second in zip(pairing["baseline_images"], pairing["other_images"], strict=True):
            numbers[0, first] = numbers[place, second] = first
    return numbers


def reference_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The reference's scores as matched to each model: one row where they are the same for all."""
    matched = {folder["name"]: folder["reference_scores"] for folder in document["folders"]}
    first = next(iter(matched.values()))
    if all(scores == first for scores in matched.values()):
        return [{"name": "reference, matched", "scores": first}]
    return [{"name": f"reference, matched to {name}", "scores": scores} for name, scores in matched.items()]


def quality_columns(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The scores of sets, such as "images/MobileNetV2-224/fid", as columns; each region and extractor is a table."""
    columns = []
    for measure in document["quality_measures"]:
        region, *extractor, _ = measure["name"].split("/")
        by = f", by features of {'/'.join(extractor)}" if extractor else ", by pairs of images"
        title = measure["title"].removesuffix(f", {'/'.join(extractor)}")
        facts = {"region": region, "table": f"{REGIONS[region]}{by}", "title": title, "kind": "number"}
        columns.append({**measure, **facts, "warning": few_images(measure)})
    return columns


def few_images(measure: dict[str, Any]) -> str | None:
    """What to know of a score of a set that is smaller than usual."""
    if measure["fewest_images"] >= measure["usual_images"]:
        return None
    return f"{measure['fewest_images']:,} images; usual are {measure['usual_images']:,}. Compare with as many only."


def agreement_columns(document: dict[str, Any]) -> list[dict[str, Any]]:
    keys = dict.fromkeys(key for folder in sets_of(document) for key in folder["agreement"])
    return [{"name": key, "title": AGREEMENT.get(key, key), "kind": "number", "digits": 2} for key in keys]


def pairing_text(document: dict[str, Any]) -> str:
    """By what the images of each model were paired with the baseline's."""
    meaning = {"prompt": "prompt, with other noise", "not paired": "nothing: none has a counterpart"}
    return " ".join(
        f"{pairing['other']} and {pairing['baseline']}: {len(pairing['other_images']):,} pairs by "
        f"{meaning.get(pairing['how'], pairing['how'])}."
        for pairing in document["pairings"]
    )
