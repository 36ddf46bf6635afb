"""The model card shows facts as they are, whatever characters they hold."""

import html
import re

import pytest
import yaml
from torch import nn

from geopos_diffusers import apply_geoconv, save_geoconv_weights
from geopos_diffusers.adapters.files import CARD_NAME

FACTS = (
    "<script>alert(1)</script> & <b>bold</b>",
    "![x](http://example.org/x.png) [link](http://example.org)",
    "# a heading\n- a list\n1. one\n---\n===\n> quoted\n    code",
    "`code` *emphasis* _emphasis_ ~~struck~~ | cell |\n```",
    "a_file_name*.png, 1.5 x 2",
)


def card(folder, **facts) -> str:
    model = nn.Sequential(nn.Conv2d(1, 1, 3))
    apply_geoconv(model)
    save_geoconv_weights(model, folder, card={name.replace("_", " "): value for name, value in facts.items()})
    return (folder / CARD_NAME).read_text(encoding="utf-8")


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def section(text: str, heading: str) -> str:
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0].rstrip("\n")


@pytest.mark.parametrize("fact", FACTS)
def test_text_is_shown_as_it_is(tmp_path, fact):
    """CommonMark's rules for backslashes, applied by hand: what is left unescaped must start no markup."""
    written = section(card(tmp_path, Training_data=fact), "Training data")
    shown = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", written)
    assert shown == "\n".join(line.strip() for line in fact.splitlines())
    markup = re.sub(r"\\[!-/:-@\[-`{-~]", "x", written)
    assert not re.search(r"[`*_\[\]<>&#|~!]", markup)
    assert not re.search(r"^ |^[-+=]|^\d+[.)]", markup, re.MULTILINE)
    assert html.unescape(markup) == markup


def test_a_heading_stays_one(tmp_path):
    text = card(tmp_path, **{"Base\n\n<b>model</b>": "x"})
    assert section(text, r"Base \<b\>model\</b\>") == "x"


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("owner/name-1.5", "owner/name-1.5"),
        ("a/b\nlicense: mit", None),
        ("a: b/c", None),
        ("./a", None),
        ("a/b # c", None),
    ],
)
def test_only_a_hub_id_is_the_base_model(tmp_path, base, expected):
    values = front_matter(card(tmp_path, Base_model=base))
    assert values.get("base_model") == expected
    assert "license" not in values


def test_a_fence_within_json_does_not_end_the_block(tmp_path):
    written = section(card(tmp_path, Training={"note": "```\n# heading", "list": ["```"]}), "Training")
    assert len(re.findall(r"^ {0,3}```", written, re.MULTILINE)) == 2
