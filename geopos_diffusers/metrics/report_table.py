"""evaluation.txt: a report's figures as text, at most 120 columns wide, made from `evaluation.json`."""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .comparison import BY_PROMPT
from .finger_count import COUNTS

WIDTH = 120
SURE, PERHAPS = "*", "(*)"  # different from the baseline after Holm's correction, and before it alone
LEVEL = 0.05
CAUTION = "!"  # after the title of a measure that fails a control
SMALL = "~"  # after the title of a score of fewer images than usual


class Column(NamedTuple):
    """A column of the main table: a model, or the reference as it is matched to one."""

    title: str
    folder: dict[str, Any]
    scores: dict[str, Any]
    quality: dict[str, Any] | None
    agreement: dict[str, Any] | None
    is_model: bool
    images: str


def format_table(document: dict[str, Any]) -> str:
    """The figures of a report's document as text: a column for each model, and the reference."""
    parts = [*main_tables(document), legend(document)]
    if document["comparisons"]:
        baseline = document["folders"][0]["name"]
        parts += [f"Differences from {baseline}; of shares, in points:", *difference_tables(document)]
    for folder in document["folders"]:
        if any(row["images"] for row in folder["fingers"]["by_number"].values()):
            parts.append(fingers_table(folder, document["reference"], len(document["folders"]) > 1))
    parts.append("\n".join(f"- {note}" for note in document["notes"]))
    return "\n\n".join(part for part in parts if part).rstrip()


def main_tables(document: dict[str, Any]) -> list[str]:
    """The main table, broken into several where the columns would be wider than WIDTH together."""
    columns = table_columns(document)
    labels = ["", *(label for label, _ in table_rows(document))]
    cells = [[column.title, *(cell(column) for _, cell in table_rows(document))] for column in columns]
    kept = [row for row in range(len(labels)) if row < 2 or any(column[row] not in ("", "-") for column in cells)]
    labels, cells = [labels[row] for row in kept], [[column[row] for row in kept] for column in cells]
    first = max(map(len, labels))
    tables, wide = [], first
    part: list[list[str]] = []
    for column in cells:
        width = max(map(len, column)) + 2
        if part and wide + width > WIDTH:
            tables.append(align(list(zip(labels, *part, strict=True))))
            part, wide = [], first
        part.append(column)
        wide += width
    return [*tables, align(list(zip(labels, *part, strict=True)))]


def table_columns(document: dict[str, Any]) -> list[Column]:
    folders, reference = document["folders"], document["reference"]
    columns = [
        Column(
            folder["name"], folder, folder["scores"], folder["quality"], folder["agreement"], True, image_count(folder)
        )
        for folder in folders
    ]
    of_reference = [folder["reference_scores"] for folder in folders]
    same = all(scores == of_reference[0] for scores in of_reference)
    for place, folder in enumerate(folders[:1] if same else folders):
        title = "reference, matched" if same else f"reference for {folder['name']}"
        quality, agreement = (reference["quality"], reference["agreement"]) if place == 0 else (None, None)
        images = image_count(reference)
        if folder["matching"] and folder["matching"]["reference_images"] < reference["scored"]:
            images += f", {folder['matching']['reference_images']} match"
        columns.append(Column(title, reference, of_reference[place], quality, agreement, False, images))
    return columns


def table_rows(document: dict[str, Any]) -> list[tuple[str, Callable[[Column], str]]]:
    """Label and cell of each row."""
    found = {(row["other"], row["measure"]): row for row in document["comparisons"]}

    def measured(measure: dict[str, Any]) -> Callable[[Column], str]:
        def cell(column: Column) -> str:
            row = found.get((column.folder["name"], measure["name"])) if column.is_model else None
            return f"{interval_text(column.scores[measure['name']], measure)}{significance(row)}"

        return cell

    def of_set(name: str, digits: int, part: str) -> Callable[[Column], str]:
        def cell(column: Column) -> str:
            scores = getattr(column, part)
            return "" if scores is None or name not in scores else decimal(scores[name], digits)

        return cell

    agreement = dict.fromkeys(key for folder in document["folders"] for key in folder["agreement"])
    return [
        ("images", lambda column: column.images),
        ("images with a hand", lambda column: str(column.folder["crops"])),
        *((titled(measure), measured(measure)) for measure in document["measures"]),
        ("found, images / reference", lambda column: decimal(column.folder["found_ratio"], 3)),
        *(
            (
                f"{row['name'].partition('/')[0]}: {row['title']}{few(row)}",
                of_set(row["name"], row["digits"], "quality"),
            )
            for row in document["quality_measures"]
        ),
        *((f"judges: {name.replace('_', ' ')}", of_set(name, 2, "agreement")) for name in agreement),
    ]


def few(quality_measure: dict[str, Any]) -> str:
    return f" {SMALL}" if quality_measure["fewest_images"] < quality_measure["usual_images"] else ""


def titled(measure: dict[str, Any]) -> str:
    return f"{measure['title']} {CAUTION}" if measure["warning"] else measure["title"]


def legend(document: dict[str, Any]) -> str:
    lines = [
        "In brackets: 95% intervals. Scores of sets are beside the reference; its own are those of its halves.",
        "These are of half as many images, on which FID and Vendi depend.",
    ]
    if document["comparisons"]:
        lines.append(
            f"{SURE} differs from {document['folders'][0]['name']} at 5% after Holm's correction for all comparisons, "
            f"{PERHAPS} before it alone."
        )
    if small := [row for row in document["quality_measures"] if few(row)]:
        usual = " or ".join(f"{number:,}" for number in sorted({row["usual_images"] for row in small}))
        lines.append(f"{SMALL} fewer images than the usual {usual}; compare only with scores of as many.")
    for row in document["measures"]:
        if row["warning"]:
            lines += textwrap.wrap(f"{CAUTION} {row['title']}: {row['warning']}", WIDTH, subsequent_indent="  ")
    return "\n".join(lines)


def difference_tables(document: dict[str, Any]) -> list[str]:
    """For each model but the first, its differences from the first."""
    measures = {measure["name"]: measure for measure in document["measures"]}
    tables = []
    for pairing in document["pairings"]:
        other, how = pairing["other"], pairing["how"]
        noise = ", with other noise" if how == BY_PROMPT else ""
        rows = [(f"{other} ({how}{noise})", "difference", "better", "worse", "same", "p", "p, Holm")]
        for row in (row for row in document["comparisons"] if row["other"] == other):
            difference = interval_text(row["difference"], measures[row["measure"]], "+")
            counts = (str(row[name]) for name in ("wins", "losses", "ties"))
            title = measures[row["measure"]]["title"]
            rows.append((title, f"{difference}{significance(row)}", *counts, p_text(row["p"]), p_text(row["p_holm"])))
        tables.append(align(rows))
    return tables


def significance(comparison: dict[str, Any] | None) -> str:
    """The mark of a difference, padded to one width; nothing without a comparison."""
    if comparison is None:
        return ""
    if comparison["p"] is None or comparison["p"] >= LEVEL:
        return "    "
    sure = comparison["p_holm"] is not None and comparison["p_holm"] < LEVEL
    return f" {SURE if sure else PERHAPS:<3}"


def fingers_table(folder: dict[str, Any], reference: dict[str, Any], named: bool) -> str:
    """Found and count right by the number of fingers asked for, and the confusion of numbers."""
    numbers = [str(number) for number in COUNTS]
    ours, theirs = folder["fingers"]["by_number"], reference["fingers"]["by_number"]

    def shares(part: dict[str, Any], name: str) -> list[str]:
        values = (part[number][name]["value"] for number in numbers)
        return ["-" if value is None else f"{value:.0%}" for value in values]

    title = f"{folder['name']}: fingers asked for" if named else "fingers asked for"
    rows: list[Sequence[str]] = [
        (title, *numbers),
        ("images", *(str(ours[number]["images"]) for number in numbers)),
        ("hand found", *shares(ours, "found")),
        ("  reference", *shares(theirs, "found")),
        ("count right, if found", *shares(ours, "count_right")),
        ("  reference", *shares(theirs, "count_right")),
    ]
    confusion = folder["fingers"]["confusion"]["images"]
    counted: list[Sequence[str]] = [("asked for \\ counted", *numbers, "no hand")]
    counted += [(number, *map(str, confusion[int(number)])) for number in numbers]
    return f"{align(rows)}\n\n{align(counted)}"


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def image_count(folder: dict[str, Any]) -> str:
    skipped = f" ({len(folder['skipped'])} skipped)" if folder["skipped"] else ""
    return f"{folder['scored']} of {folder['available']}{skipped}"


def interval_text(interval: dict[str, Any], measure: dict[str, Any], sign: str = "") -> str:
    """Such as "93.3% [88.1, 97.0]" or "0.612 [0.598, 0.627]", with a sign as "+4.0 [1.2, 6.9]"; "-" without a value."""
    if measure["kind"] == "number":
        return decimal(interval, measure["digits"], sign)
    if interval["value"] is None:
        return "-"
    value = f"{100 * interval['value']:{sign}.1f}{'' if sign else '%'}"
    if interval["low"] is None:
        return value
    return f"{value} [{100 * interval['low']:{sign}.1f}, {100 * interval['high']:{sign}.1f}]"


def decimal(interval: dict[str, Any] | None, digits: int, sign: str = "") -> str:
    if interval is None or interval["value"] is None:
        return "-"
    value = f"{interval['value']:{sign}.{digits}f}"
    if interval["low"] is None:
        return value
    return f"{value} [{interval['low']:{sign}.{digits}f}, {interval['high']:{sign}.{digits}f}]"


def p_text(p: float | None) -> str:
    if p is None:
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.001 else f"{p:.3f}"
