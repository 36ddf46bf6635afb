"""Write docs/supported_models.md from the table of tested models (tests/model_cases.py).

python tests/make_supported_models.py            # write the page
python tests/make_supported_models.py --check    # exit with 1 where the page is not what the table says
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from model_case import ModelCase  # noqa: E402
from model_cases import MODEL_CASES  # noqa: E402

from geopos_diffusers import GeoConvConfig, apply_geoconv, geoconv_status  # noqa: E402
from geopos_diffusers.errors import SurgeryError  # noqa: E402
from geopos_diffusers.files import write_text  # noqa: E402

PAGE = ROOT / "docs" / "supported_models.md"

_INTRODUCTION = """\
# Supported models

This page is made by `python tests/make_supported_models.py` from the table in `tests/model_cases.py`; a test fails
when the two differ. Every row is the real class of diffusers or transformers at a tiny size, and for every row
`tests/patching/test_architectures.py` checks that

- patching leaves the output bitwise equal, and every key of the state dict;
- in training gradients reach every geometry weight, and one optimiser step changes the output;
- a saved adapter, loaded into a fresh copy, gives the same output bit for bit;
- removing the patch restores the output bit for bit, and every module's class, attributes and hooks;
- a patched model can be deep-copied and pickled, and both copies are patched;
- with `shift_scope="model"` all layers share a shift that begins and ends with a call, also where a model is called by
  its parts (`vae.encode`, `vae.decode`).

All rows are tested with the default basis of the geometry weights, `multilinear`; one or two of each kind also with
`taps`.

Classes that are not listed are patched by the same rules. `geopos info` and `geoconv_status` say for any model which
layers are patched, which are not, and why.

How to read the table:

- **By default** counts the convolutions that `apply_geoconv(model)` patches, of all that the tiny model has. The
  default is every convolution with two taps or more along every axis. Kernel taps (`basis="taps"`) need them: with one
  tap along an axis a kernel cannot take the difference along it, so the product encoding cannot tell that axis from the
  others. Coefficients (`basis="multilinear"`, the default) do not depend on the kernel.
- **Left alone** names the kernels that are left out, with their number. A layer of them is patched when
  `target_modules` names it; rows that are tested so show the value.
- **Nothing to patch**: `apply_geoconv` raises `SurgeryError` and leaves the model as it was. The message gives the
  reasons of the column "left alone", or says that the model has no convolution.
- Autoencoders are tested by `encode` and `decode`, as pipelines call them; all others as a whole.
"""

_NOTES = """
## What to know about some kinds of models

- **Kernels with one tap along an axis** (`1x1` convolutions, `1x2x2` patch embeddings, `1x3x3` and `3x1x1` convolutions
  of video models): name them with `target_modules`. Coefficients then have all their terms. Under `basis="taps"` and
  `encoding="product"` the term is multiplied by that axis's coordinate, which is 0 in the middle of the axis and on an
  axis of one pixel (a single frame); `encoding="squares"` or `"cartesian"` (CoordConv) have no such zero.
- **Causal video autoencoders** pad in time by themselves and often work through a clip in chunks with a cache. The
  geometry channel spans what one convolution is given: the padded chunk, not the whole clip. So it does where a class
  splits a large convolution along time to save memory (`CogVideoXSafeConv3d`, `KVAESafeConv3d`,
  `Kandinsky6SRSafeConv3d`).
- **Tiles**: a tiled autoencoder passes each tile its own place in the image, read off the slice that the tile is.
  Where a class copies its tiles first (Allegro), each tile is a whole image to the geometry channel, and a warning
  says so.
- **Conversion from another model** (`UNetMotionModel.from_unet2d`, `ControlNetModel.from_unet`) copies state dicts
  layer by layer and refuses the patched source's `geo_weight`: convert first, or `remove_geoconv` first, then patch.
- **Layers with weight norm** (audio autoencoders): `weight` is computed from its parts at each call; the geometry
  weight is not normalised.
- **Convolutions that compute by themselves** (own `forward` around `torch.nn.functional.conv*`) are out of reach and
  are left alone with that reason. Operations with fixed filters (blur, resampling, wavelets) are no convolution modules
  and never touched.
"""


def supported_models_page(cases: tuple[ModelCase, ...] = MODEL_CASES) -> str:
    """The page as Markdown. Builds every model of the table (a few seconds)."""
    parts = [_INTRODUCTION]
    for kind in dict.fromkeys(case.kind for case in cases):
        header = ["", f"## {kind}", "", "| class | layout | by default | left alone | notes |", "|---|---|---|---|---|"]
        parts += [*header, *(_row(case) for case in cases if case.kind == kind)]
    return "\n".join(parts) + "\n" + _NOTES


def _row(case: ModelCase) -> str:
    model = case.build()
    try:
        status = apply_geoconv(model, GeoConvConfig())
    except SurgeryError:
        status = geoconv_status(model)
    total = len(status.patched) + len(status.skipped)
    notes = [case.note] if case.note else []
    if case.target_modules is not None:
        patched = len(apply_geoconv(case.build(), case.geoconv).patched)
        value = case.target_modules if isinstance(case.target_modules, str) else list(case.target_modules)
        notes.insert(0, f"{patched} with `target_modules={value!r}`")
    count = f"{len(status.patched)} of {total}" if total else "no convolution"
    cells = [f"`{case.model}`", case.layout, count, _left_alone(status.skipped), "; ".join(notes)]
    return "| " + " | ".join(cells) + " |"


def _left_alone(skipped: dict[str, str]) -> str:
    """ "kernel 1x1 (5), kernel 3x1x1 (2)" from the reasons that `geoconv_status` gives."""
    short = (re.sub(r" has one tap along an axis.*", "", reason) for reason in skipped.values())
    return ", ".join(f"{reason} ({count})" for reason, count in sorted(Counter(short).items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 where the page is out of date")
    check = parser.parse_args().check
    page = supported_models_page()
    if check:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page)
    write_text(PAGE, page)
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
