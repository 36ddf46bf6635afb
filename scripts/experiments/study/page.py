"""The pages docs/results/study.md and study.html: does geometry help a pretrained diffusion model, and in what?

    python -m scripts.experiments.study.page --results docs/results

Reads the results files of the study's tasks (study/TASK.json), of hands in boxes (frames.json), of decoding
(vae_decoder.json) and of the mechanism (study/mechanism.json), as far as they are there. What is not there is named on
the pages. Writes the figures study/TASK-bands.png beside the results.
"""

import argparse
from pathlib import Path
from typing import Any

from geopos_diffusers.files import write_text

from ..page import Picture, markdown_blocks
from ..results import read_results
from .bands_figure import draw_bands
from .chapters import Chapter, advice_chapter, commands_chapter, summary_blocks
from .comparisons import primary_comparisons
from .forest_page import build_page, page_data
from .markdown_reading import read_markdown
from .mechanism_results import EXPERIMENT as MECHANISM
from .mechanism_section import mechanism_section
from .task_results import read_tasks
from .task_section import task_blocks

TITLE = "Does geometry help a pretrained diffusion model?"
MARKDOWN, HTML = "study.md", "study.html"


def write_pages(folder: Path) -> None:
    """Write both pages and the figures. folder: of the results, such as docs/results."""
    tasks = read_tasks(folder)
    found = [(task, primary_comparisons(task)) for task in tasks]
    mechanism = read_mechanism(folder)
    summary = summary_blocks(found)
    chapters = [
        Chapter(f"{task.name}: {task.title}", task_blocks(task, comparisons, draw_bands(task), folder), of_task=True)
        for task, comparisons in found
    ]
    explained = "Not run yet." if mechanism is None else mechanism_section(mechanism)
    before = [*chapters, advice_chapter(found)]
    commands = commands_chapter(tasks, mechanism, "python -m scripts.experiments.study.page --results docs/results")
    parts = [
        f"# {TITLE}",
        *markdown_blocks(summary, ""),
        f"The same as a page with a plot to explore: [{HTML}]({HTML}).",
    ]
    for chapter in before:
        parts += chapter_markdown(chapter)
    parts += ["## Why: the mechanism", explained, *chapter_markdown(commands)]
    write_text(folder / MARKDOWN, "\n\n".join(parts) + "\n")
    pictures = {
        task.name: [block for block in chapter.blocks if isinstance(block, Picture)]
        for task, chapter in zip(tasks, chapters, strict=True)
    }
    all_chapters = [*before, Chapter("Why: the mechanism", read_markdown(explained)), commands]
    write_text(folder / HTML, build_page(TITLE, summary, all_chapters, page_data(tasks, pictures)))


def chapter_markdown(chapter: Chapter) -> list[str]:
    return [f"## {chapter.title}", *markdown_blocks(chapter.blocks, "")]


def read_mechanism(folder: Path) -> dict[str, Any] | None:
    file = folder / "study" / "mechanism.json"
    return read_results(file, MECHANISM) if file.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, type=Path, help="folder of the results, and of the pages")
    write_pages(parser.parse_args().results)


if __name__ == "__main__":
    main()
