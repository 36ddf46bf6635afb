import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_figures_of_the_readme_stand_on_the_page():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    page = (REPOSITORY / "docs" / "results" / "paper.md").read_text(encoding="utf-8")
    table = readme.split("| experiment | seeds | what was found |")[1].split("\n\n")[0]
    figures = re.findall(r"-?[\d.]+%? \[-?[\d.]+, -?[\d.]+\]", table)
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in page] == []
