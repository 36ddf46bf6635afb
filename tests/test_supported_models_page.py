"""docs/supported_models.md says what the table of tested models says."""

import runpy
from pathlib import Path

from model_cases import MODEL_CASES, UNPATCHABLE

SCRIPT = Path(__file__).with_name("make_supported_models.py")


def test_the_page_is_what_the_table_says():
    script = runpy.run_path(str(SCRIPT))
    page = script["supported_models_page"]()
    assert script["PAGE"].read_text(encoding="utf-8") == page, f"run python tests/{SCRIPT.name}"


def test_every_row_has_a_name_of_its_own():
    names = [case.name for case in MODEL_CASES]
    assert sorted(set(names)) == sorted(names)


def test_rows_that_cannot_be_patched_are_not_called():
    assert all(case.inputs is None and case.error for case in UNPATCHABLE)
