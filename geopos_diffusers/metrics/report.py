"""The files of an evaluation: evaluation.json, and a table, a sheet of images and a page that are made of it."""

import os
from pathlib import Path
from typing import Any

from ..files import atomic_path, write_text
from .evaluation import Evaluation
from .report_document import document_text, evaluation_to_dict, printable, read_document
from .report_page import build_page
from .report_sheet import annotated_sheet
from .report_table import format_table

JSON_FILE, TABLE_FILE, SHEET_FILE, PAGE_FILE = "evaluation.json", "evaluation.txt", "evaluation.png", "report.html"


def write_report(evaluation: Evaluation, output: str | os.PathLike) -> dict[str, Path]:
    """Write evaluation.json and all that is made of it into the folder `output`; returns the paths by file name."""
    document = evaluation_to_dict(evaluation)
    path = Path(output) / JSON_FILE
    write_text(path, document_text(document) + "\n")
    return {JSON_FILE: path, **write_views(document, output)}


def rewrite_report(output: str | os.PathLike) -> dict[str, Path]:
    """Make the table, the sheet and the page of a report's folder again, from its evaluation.json and the images.

    Raises:
        DataError: there is no evaluation.json, or one of another version.
    """
    return write_views(read_document(Path(output) / JSON_FILE), output)


def write_views(document: dict[str, Any], output: str | os.PathLike) -> dict[str, Path]:
    """Write evaluation.txt, evaluation.png and report.html of a document as of `evaluation_to_dict`."""
    paths = {name: Path(output) / name for name in (TABLE_FILE, SHEET_FILE, PAGE_FILE)}
    write_text(paths[TABLE_FILE], printable(format_table(document)) + "\n")
    with atomic_path(paths[SHEET_FILE]) as temporary:
        annotated_sheet(document).save(temporary)
    write_text(paths[PAGE_FILE], build_page(document))
    return paths
