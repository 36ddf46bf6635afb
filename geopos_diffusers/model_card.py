"""The README.md that is saved with an adapter."""

import json
from typing import Any


def model_card(values: dict[str, Any], status: Any, facts: dict[str, Any]) -> str:
    """Markdown with the Hub's front matter.

    Args:
        values: the adapter's config, as it is saved.
        status: `GeoConvStatus` of the patched model.
        facts: further sections by heading; strings, or mappings and lists that are shown as JSON.
    """
    classes = ", ".join(f"`{name}` ({cls})" for name, cls in values["base_classes"].items())
    lines = [
        "---",
        "library_name: geopos_diffusers",
        "tags: [geoconv, geopos, diffusers, adapter]",
    ]
    if isinstance(base := facts.get("Base model"), str) and base.count("/") == 1 and not base.startswith((".", "/")):
        lines.append(f"base_model: {base}")
    lines += [
        "---",
        "# GeoConv adapter",
        "",
        f"Geometry weights for the convolutions of {classes}: {len(status.patched)} layers, "
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
        lines += ["", f"## {heading}"]
        if isinstance(content, str):
            lines.append(content)
        else:
            lines += ["```json", json.dumps(content, indent=2, default=str), "```"]
    return "\n".join(lines) + "\n"
