"""The README.md that is saved with an adapter."""

import json
import re
from typing import Any


def model_card(values: dict[str, Any], status: Any, facts: dict[str, Any]) -> str:
    """Markdown with the Hub's front matter.

    Args:
        values: the adapter's config, as it is saved.
        status: `GeoConvStatus` of the patched model.
        facts: further sections by heading; strings, which are plain text and not Markdown, or mappings and lists that
            are shown as JSON.
    """
    classes = ", ".join(f"`{name}` ({cls})" for name, cls in values["base_classes"].items())
    lines = [
        "---",
        "library_name: geopos_diffusers",
        "tags: [geoconv, geopos, diffusers, adapter]",
    ]
    # Not the path of a folder, and nothing that YAML could read otherwise.
    if isinstance(base := facts.get("Base model"), str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", base, re.ASCII):
        lines.append(f"base_model: {base}")
    lines += [
        "---",
        "# GeoConv adapter",
        "",
        f"Geometry weights for the convolutions of {classes}: {len(status.scales)} layers, "
        f"{status.geometry_parameters:,} parameters. Method: GeoPos / GeoConv, arXiv 2401.01951.",
        "",
        "```python",
        "from geopos_diffusers import load_geoconv_weights",
        "",
        'load_geoconv_weights(pipe, "path or Hub id of this adapter")',
        "```",
        "",
        "## Configuration",
        "```json",
        json.dumps({key: value for key, value in values.items() if value is not None}, indent=2),
        "```",
    ]
    for heading, content in facts.items():
        lines += ["", f"## {plain_text(' '.join(heading.split()))}"]
        if isinstance(content, str):
            lines.append(plain_text(content))
        else:
            lines += ["```json", json.dumps(content, indent=2, default=str), "```"]
    return "\n".join(lines) + "\n"


def plain_text(text: str) -> str:
    """Text that Markdown shows as it is, but for indentation: no markup, links, HTML, headings or lists come of it."""
    lines = []
    for line in text.splitlines():
        line = re.sub(r"([\\`*_\[\]<>&#|~!])", r"\\\1", line.strip())
        # What makes lists and underlined headings, at the start of a line alone.
        line = re.sub(r"^([-+=])", r"\\\1", line)
        lines.append(re.sub(r"^(\d+)([.)])", r"\1\\\2", line))
    return "\n".join(lines)
