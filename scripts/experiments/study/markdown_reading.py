"""Reading the Markdown that the laboratory's sections write, for a page that is HTML as well."""

import re

from ..page import Block, Paragraph, Picture, Table


def read_markdown(text: str) -> list[Block]:
    """Blocks of tables, pictures, paragraphs, list items and headings (in bold) that blank lines or "- " set apart."""
    return [block for part in re.split(r"\n{2,}|\n(?=- )", text.strip()) for block in _read(part.strip())]


def _read(part: str) -> list[Block]:
    if part.startswith("|"):
        rows = [_cells(line) for line in part.splitlines()]
        return [Table(rows[0], rows[2:])]
    if match := re.fullmatch(r"!\[(.*)\]\((.+)\)", part):
        return [Picture(match[2], match[1])]
    if part.startswith("#"):
        return [Paragraph(f"**{part.lstrip('# ')}**")]
    return [Paragraph(re.sub(r"\s*\n\s*", " ", part))]


def _cells(line: str) -> list[str]:
    """The cells of a table's row, in which a pipe within a cell stands behind a backslash."""
    cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return [cell.strip().replace("\\|", "|") for cell in cells]
