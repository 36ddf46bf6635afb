"""The page of the demo's figures, from its results file alone.

python -m scripts.experiments.demo.section docs/results/demo.json
"""

from pathlib import Path
from typing import Any

from ..arms_page import write_pages
from ..page import markdown_table
from .page import score_rows
from .scores import ARM_NAMES


def page(results: dict[str, Any], file: Path) -> str:
    """Markdown."""
    summary = results["summary"]
    rates = "; ".join(f"{ARM_NAMES[name]} {rate:g}" for name, rate in summary["learning_rate"].items())
    picture = f"![Each arm's first pictures]({file.stem}.png)\n\n" if file.with_suffix(".png").is_file() else ""
    return f"""# The demo

{summary["verdict"]}

`make demo` makes these figures on any machine, and a page with them. {summary["steps"]} steps of
{summary["samples_per_step"]} of {summary["training_images"]:,} rendered hands at all places, from captions that do not
say where; {summary["drawn_images"]} images of each arm, from the same prompts and noise. The geometry is told the box
by its coordinates; bias and LoRA cannot be told. Learning rates, the best of those tried on other hands: {rates}.
Intervals are 95% over the images; differences are paired. One training of each arm: what another seed changes is not
covered. How geometry compares with other ways to tell a model the box stands in [the results on frames](frames.md).

```bash
{results["command"]}
```

{results["date"]}, {summary["total_seconds"]:.0f} s.

{markdown_table(["", *ARM_NAMES.values(), "rendered hands"], score_rows(summary))}

{picture}The judge is the package's own, which sees small hands, too. An image without a hand counts as no overlap and
as a wrong number of fingers.
"""


if __name__ == "__main__":
    write_pages(__doc__, "demo", page)
