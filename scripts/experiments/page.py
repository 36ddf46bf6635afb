"""A page of claims and sections, as Markdown and as HTML with the same content."""

import html
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geopos_diffusers.metrics.bootstrap import Interval

# The last is for next checks, which claim nothing.
VERDICTS = ("reproduced", "in part", "not reproduced", "measured")
CLAIM_COLUMNS = ("id", "claim", "paper", "here, with 95% interval", "seeds", "setting", "verdict")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}"
    "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;vertical-align:top}"
    "img{max-width:100%}pre{background:#f4f4f4;padding:.6em;overflow-x:auto}"
)


@dataclass(frozen=True)
class ClaimRow:
    """A claim with its verdict; `verdict` is one of VERDICTS."""

    id: str
    claim: str
    paper: str
    here: str
    seeds: int
    setting: str
    verdict: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}; got {self.verdict!r}")

    def cells(self) -> tuple[str, ...]:
        return (self.id, self.claim, self.paper, self.here, str(self.seeds), self.setting, f"**{self.verdict}**")


@dataclass(frozen=True)
class Paragraph:
    """Text with `code` and **bold**."""

    text: str


@dataclass(frozen=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A file beside the page, and what it shows."""

    file: str
    caption: str


@dataclass(frozen=True)
class Place:
    """An experiment's results file, `results`, and the folder of the page, `page`.

    Pictures bear the results file's name with an ending, such as "paper_gan_hands" + "-curves.png".
    """

    results: Path
    page: Path

    def figure(self, ending: str) -> Path:
        """Where to draw a figure of the page."""
        return self.page / f"{self.results.stem}{ending}"

    def published(self, ending: str, caption: str) -> list[Picture]:
        """The picture that the experiment itself put beside its results, copied to the page; none if there is none."""
        source, target = self.results.with_name(f"{self.results.stem}{ending}"), self.figure(ending)
        if not source.is_file():
            return []
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)
        return [Picture(target.name, caption)]


@dataclass
class Section:
    """What one results file says. command, cpu_seconds and date are of the run that made it; the
    command is empty where a section only looks at others' runs."""

    title: str
    command: str
    date: str
    cpu_seconds: float
    claims: list[ClaimRow] = field(default_factory=list)
    blocks: list[Paragraph | Table | Picture] = field(default_factory=list)


def render_markdown(title: str, introduction: Sequence[Paragraph], sections: Sequence[Section]) -> str:
    parts = [f"# {title}", *(paragraph.text for paragraph in introduction)]
    parts += [_markdown_table(table) for table in (claims_table(sections), runs_table(sections))]
    for section in sections:
        parts.append(f"## {section.title}")
        for block in section.blocks:
            if isinstance(block, Table):
                parts.append(_markdown_table(block))
            elif isinstance(block, Picture):
                parts.append(f"![{block.caption}]({block.file})\n\n*{block.caption}*")
            else:
                parts.append(block.text)
    return "\n\n".join(parts) + "\n"


def render_html(title: str, introduction: Sequence[Paragraph], sections: Sequence[Section]) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{_inline(paragraph.text)}</p>" for paragraph in introduction)]
    parts += [_html_table(table) for table in (claims_table(sections), runs_table(sections))]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        for block in section.blocks:
            if isinstance(block, Table):
                parts.append(_html_table(block))
            elif isinstance(block, Picture):
                caption = html.escape(block.caption)
                parts.append(f'<figure><img src="{html.escape(block.file)}" alt="{caption}">')
                parts.append(f"<figcaption>{caption}</figcaption></figure>")
            else:
                parts.append(f"<p>{_inline(block.text)}</p>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def claims_table(sections: Sequence[Section]) -> Table:
    return Table(CLAIM_COLUMNS, [claim.cells() for section in sections for claim in section.claims])


def runs_table(sections: Sequence[Section]) -> Table:
    """Which command made what, and the processor time of all; sections without runs of their own are left out."""
    rows = [
        (section.title, f"`{section.command}`", section.date, _minutes(section.cpu_seconds))
        for section in sections
        if section.command
    ]
    total = _minutes(sum(section.cpu_seconds for section in sections))
    return Table(("section", "command", "date", "CPU time"), [*rows, ("all", "", "", total)])


def format_interval(interval: Interval, digits: int = 2, percent: bool = False) -> str:
    """ "0.52 [0.48, 0.57]"; one number where the ends are equal, a dash where there is nothing to estimate from."""
    if interval.value is None:
        return "-"
    factor, unit = (100, "%") if percent else (1, "")
    value, low, high = (f"{factor * number:.{digits}f}" for number in (interval.value, interval.low, interval.high))
    return f"{value}{unit}" if low == high else f"{value}{unit} [{low}, {high}]"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _markdown_table(table: Table) -> str:
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _html_table(table: Table) -> str:
    header = "".join(f"<th>{_inline(cell)}</th>" for cell in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows)
    return f"<table>\n<tr>{header}</tr>\n{rows}</table>"


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
