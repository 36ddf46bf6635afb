"""Pages of claims and sections, as Markdown and as HTML with the same content."""

import html
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geopos_diffusers.metrics.bootstrap import Interval

from .verdict import Judgement, Test, in_short, judge

CLAIM_COLUMNS = ("id", "claim", "paper", "here, with 95% interval", "seeds", "setting", "p, corrected", "verdict")
SUMMARY_COLUMNS = ("id", "claim", "paper", "here, with 95% interval", "verdict", "page")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}"
    "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;vertical-align:top}"
    "img{max-width:100%}pre{background:#f4f4f4;padding:.6em;overflow-x:auto}"
)


@dataclass(frozen=True)
class Headline:
    """A row in short, for the first page, where all rows of one claim share a line.

    place: which of the claim's settings this is. figures: what was measured. counted: what the row's `seeds` counts.
    """

    claim: str
    place: str
    figures: str
    counted: str = "n"


@dataclass(frozen=True)
class ClaimRow:
    """What one setting says of a claim.

    test: what the verdict is computed from; a string is the verdict itself. headline: None for rows that are on the
    experiment's own page alone.
    """

    id: str
    claim: str
    paper: str
    here: str
    seeds: int
    setting: str
    test: Test
    headline: Headline | None = None

    def cells(self, judgement: Judgement) -> tuple[str, ...]:
        p = "" if judgement.p is None else f"{judgement.p:.3f}" if judgement.p >= 0.0005 else "<0.001"
        verdict = f"**{judgement.verdict}**"
        return (self.id, self.claim, self.paper, self.here, str(self.seeds), self.setting, p, verdict)


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


Block = Paragraph | Table | Picture


@dataclass
class Section:
    """What one results file says. command, cpu_seconds and date are of the run that made it; the
    command is empty where a section only looks at others' runs."""

    title: str
    command: str
    date: str
    cpu_seconds: float
    claims: list[ClaimRow] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def judgements(self) -> list[Judgement]:
        """Of the claims, in their order: p values are corrected for the tests of this section."""
        return judge([claim.test for claim in self.claims])

    def all_blocks(self) -> list[Block]:
        """The claims with their verdicts, then the rest."""
        if not self.claims:
            return self.blocks
        rows = [claim.cells(judged) for claim, judged in zip(self.claims, self.judgements(), strict=True)]
        return [Table(CLAIM_COLUMNS, rows), *self.blocks]


def summary_table(pages: dict[str, Sequence[Section]]) -> Table:
    """One row a claim, over all settings that have it as their headline.

    Args:
        pages: sections by the link to their page.
    """
    found: dict[tuple[str, str], list[tuple[ClaimRow, Judgement, str]]] = {}
    for link, sections in pages.items():
        for section in sections:
            for claim, judged in zip(section.claims, section.judgements(), strict=True):
                if claim.headline is not None:
                    found.setdefault((claim.id, claim.headline.claim), []).append((claim, judged, link))
    rows = []
    for (name, headline), entries in found.items():
        here = "; ".join(_in_a_line(claim) for claim, _, _ in entries)
        verdict = in_short([judged.verdict for _, judged, _ in entries])
        links = ", ".join(f"[{Path(link).stem}]({link})" for link in dict.fromkeys(link for _, _, link in entries))
        rows.append((name, headline, entries[0][0].paper, here, f"**{verdict}**", links))
    return Table(SUMMARY_COLUMNS, sorted(rows, key=lambda row: row[0]))


def _in_a_line(claim: ClaimRow) -> str:
    short = claim.headline
    return f"{short.place}: {short.figures} ({short.counted} = {claim.seeds})"


def markdown(title: str, blocks: Sequence[Block], folder: str = "") -> str:
    """Args:
    folder: from the page to the pictures, such as "../".
    """
    return "\n\n".join([f"# {title}", *markdown_blocks(blocks, folder)]) + "\n"


def markdown_sections(title: str, sections: Sequence[Section], folder: str = "") -> str:
    """A page of sections, each under a heading."""
    parts = [f"# {title}"]
    for section in sections:
        parts += [f"## {section.title}", *markdown_blocks(section.all_blocks(), folder)]
    made_by = runs_table(sections)
    parts += ["## Commands", markdown_table(made_by.header, made_by.rows)]
    return "\n\n".join(parts) + "\n"


def markdown_blocks(blocks: Sequence[Block], folder: str) -> list[str]:
    parts = []
    for block in blocks:
        if isinstance(block, Table):
            parts.append(markdown_table(block.header, block.rows))
        elif isinstance(block, Picture):
            parts.append(f"![{block.caption}]({folder}{block.file})\n\n*{block.caption}*")
        else:
            parts.append(block.text)
    return parts


def html_page(title: str, blocks: Sequence[Block], sections: Sequence[Section]) -> str:
    """The blocks and all sections on one page."""
    parts = [f"<h1>{html.escape(title)}</h1>", *html_blocks(blocks)]
    for section in sections:
        parts += [f"<h2>{html.escape(section.title)}</h2>", *html_blocks(section.all_blocks())]
    parts += ["<h2>Commands</h2>", _html_table(runs_table(sections))]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def html_blocks(blocks: Sequence[Block]) -> list[str]:
    """HTML of the blocks; their text is escaped."""
    parts = []
    for block in blocks:
        if isinstance(block, Table):
            parts.append(_html_table(block))
        elif isinstance(block, Picture):
            caption = html.escape(block.caption)
            parts.append(f'<figure><img src="{html.escape(block.file)}" alt="{caption}">')
            parts.append(f"<figcaption>{caption}</figcaption></figure>")
        else:
            parts.append(f"<p>{_inline(block.text)}</p>")
    return parts


def runs_table(sections: Sequence[Section]) -> Table:
    """Which command made what, and the processor time of all; sections without runs of their own are left out."""
    rows = [
        (section.title, f"`{section.command}`", section.date, minutes(section.cpu_seconds))
        for section in sections
        if section.command
    ]
    total = minutes(sum(section.cpu_seconds for section in sections))
    return Table(("section", "command", "date", "CPU time"), [*rows, ("all", "", "", total)])


def format_interval(interval: Interval, digits: int = 2, percent: bool = False) -> str:
    """ "0.52 [0.48, 0.57]"; one number where there are no ends or equal ones, a dash where there is no estimate."""
    if interval.value is None:
        return "-"
    factor, unit = (100, "%") if percent else (1, "")
    if interval.low is None:
        return f"{factor * interval.value:.{digits}f}{unit}"
    value, low, high = (f"{factor * number:.{digits}f}" for number in (interval.value, interval.low, interval.high))
    return f"{value}{unit}" if low == high else f"{value}{unit} [{low}, {high}]"


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _html_table(table: Table) -> str:
    header = "".join(f"<th>{_inline(cell)}</th>" for cell in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows)
    return f"<table>\n<tr>{header}</tr>\n{rows}</table>"


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)
