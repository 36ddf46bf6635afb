import io
import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geopos_diffusers.errors import ConfigError, DataError

REPOSITORY = Path(__file__).parents[3]
TINY = {
    "seeds": 2,
    "matched_seeds": 1,
    "latent_sizes": [2, 3],
    "size": 32,
    "widths": [2, 4, 8],
    "steps": 4,
    "batch_size": 4,
    "warmup_steps": 1,
    "score_every": 2,
    "train_count": 40,
    "test_count": 9,
    "validation_count": 6,
    "samples": 16,
    "pairs": 10,
    "checkpoint_every": 2,
    "mobilenet": False,
    "data_name": "squares",
}


@pytest.fixture(scope="module")
def script():
    return import_module("experiments.vae.run")


def draw_squares(count, seed):
    """Pictures of a coloured square at a random place."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        pixels = generator.integers(0, 30, (32, 32, 3), dtype=np.uint8)
        top, left = generator.integers(0, 20, 2)
        pixels[top : top + 12, left : left + 12] = generator.integers(100, 256, 3)
        yield Image.fromarray(pixels)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Training images in a folder, test images in a Parquet file."""
    import datasets

    folder = tmp_path_factory.mktemp("data")
    (folder / "train").mkdir()
    lines = []
    for index, picture in enumerate(draw_squares(48, 0)):
        picture.save(folder / "train" / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": "a square"}) + "\n")
    (folder / "train" / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    rows = []
    for picture in draw_squares(10, 1):
        picture.save(file := io.BytesIO(), format="PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "text": "a square"})
    table = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image(decode=False))
    table.to_parquet(str(folder / "test.parquet"))
    return folder


def run(script, data, output, **changes):
    argv = ["scripts/experiments/vae/run.py", "--config", str(REPOSITORY / "configs" / "experiments" / "vae.yaml")]
    options = {
        "train_data": data / "train",
        "test_data": data / "test.parquet",
        "output_dir": output / "runs",
        "results": output / "paper_vae_squares.json",
        **TINY,
        **changes,
    }
    for name, value in options.items():
        argv += [f"--{name}", *(str(item) for item in (value if isinstance(value, list) else [value]))]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", argv)
        try:
            script.main()
        finally:
            torch.set_flush_denormal(False)
    return json.loads((output / "paper_vae_squares.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(script, data, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    run(script, data, output, publish_samples=True)
    return output


@pytest.fixture(scope="module")
def results(whole):
    return json.loads((whole / "paper_vae_squares.json").read_text(encoding="utf-8"))


def without_times(results):
    return [{key: value for key, value in run.items() if "seconds" not in key} for run in results["runs"]]


def test_each_variant_at_its_own_rate(script, data, tmp_path):
    """Samples are scored of the comparison's runs alone."""
    found = run(script, data, tmp_path, learning_rates=[1e-3, 1e-2], sweep_seeds=1, seeds=1, steps=2, score_every=1)
    rates = {sweep["variant"]: sweep["learning_rate"] for sweep in found["rates"]}
    assert set(rates) == {"convolution", "CoordConv", "GeoConv", "GeoConv, no shift", "GeoConv, multilinear"}
    assert [run["variant"] for run in found["runs"]] == list(rates)
    assert all(run["learning_rate"] == rates[run["variant"]] for run in found["runs"])
    assert {run["latent_size"] for run in found["runs"]} == {3}
    assert all("vendi" in run["sample_scores"] for run in found["runs"])
    for sweep in found["rates"]:
        losses = {float(rate): loss for rate, loss in sweep["losses"].items() if loss is not None}  # None: diverged
        assert sweep["learning_rate"] == min(losses, key=losses.get)


class TestResults:
    def test_all_kinds_sizes_and_seeds(self, results):
        # Four kinds x two sizes x two seeds, and conv and geo matched at the second size and first seed.
        assert len(results["runs"]) == 4 * 2 * 2 + 2
        found = [(run["variant"], run["latent_size"], run["seed"]) for run in results["runs"]]
        plain = ("convolution", "CoordConv", "GeoConv", "GeoConv, no shift")
        assert {name for name, _, _ in found} == {*plain, "convolution, matched", "GeoConv, matched"}
        assert {(size, seed) for _, size, seed in found} == {(2, 0), (3, 0), (2, 1), (3, 1)}
        assert results["data"] == {"name": "squares", "train": 40, "validation": 6, "test": 9}

    def test_curves_and_parts(self, results):
        for run_results in results["runs"]:
            curves = run_results["curves"]
            assert curves["step"] == [2, 4]
            assert {"test", "validation", "train_loss", "train_reconstruction", "train_kl"} <= curves.keys()
            assert np.isfinite([value for values in curves.values() for value in values]).all()
            scores = run_results["scores"]
            assert scores["test"] == pytest.approx(scores["test_reconstruction"] + scores["test_kl"], rel=1e-6)
            assert scores["test"] == pytest.approx(curves["test"][-1], rel=1e-4)
            assert run_results["sample_scores"].keys() == {"vendi", "ms_ssim", "fitted_vendi", "fitted_ms_ssim"}
            assert 1 <= run_results["sample_scores"]["vendi"] <= TINY["samples"]
        assert results["real"]["count"] == 16
        assert results["real"].keys() == {"count", "vendi", "ms_ssim"}

    def test_no_paths_of_the_machine(self, results, whole, data):
        text = json.dumps(results)
        assert str(whole) not in text
        assert str(data) not in text
        assert str(REPOSITORY) not in text

    def test_pictures_of_the_first_seed(self, whole):
        pictures = sorted((whole / "runs").glob("*/pictures.png"))
        assert len(pictures) == 4 * 2 + 2
        assert all("seed0" in path.parent.name and Image.open(path).size == (6 * 32, 5 * 32) for path in pictures)

    def test_published_sheet(self, results, whole):
        sheet = Image.open(whole / results["pictures"])
        assert sheet.mode == "P"
        assert sheet.width > 6 * 32
        assert sheet.height > (1 + 4 * 4) * 32
        assert (whole / results["pictures"]).stat().st_size < 300_000

    def test_nothing_is_published_unless_asked(self, script, data, whole, tmp_path):
        results = run(script, data, tmp_path, output_dir=whole / "runs", finished_only=True)
        assert results["pictures"] is None
        assert [path.name for path in tmp_path.iterdir()] == ["paper_vae_squares.json"]

    def test_stopped_runs_continue_exactly(self, script, data, results, tmp_path):
        changes = {"seeds": 1, "latent_sizes": [3]}
        with pytest.raises(FileNotFoundError):  # no run is finished, so there are no results
            run(script, data, tmp_path, stop_at_step=3, **changes)
        torch.manual_seed(12345)
        resumed = without_times(run(script, data, tmp_path, **changes))
        wanted = [record for record in without_times(results) if record["seed"] == 0 and record["latent_size"] == 3]
        assert resumed == wanted

    def test_page(self, whole, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["paper_report.py", "--results", str(whole), "--output", str(whole)])
        import_module("experiments.report").main()
        page = (whole / "paper" / "vae.md").read_text(encoding="utf-8")
        assert "## VAE, squares, " in page
        assert page.count("\n| C4 |") == 9  # one of them at equal parameters
        assert page.count("\n| Q2 |") == 1
        for latent_size, kinds in ((2, 4), (3, 6)):  # in the table of losses, and twice in that of samples
            assert page.count(f"\n| {latent_size} | ") == 3 * kinds
        assert (whole / "paper_vae_squares_curves.png").stat().st_size > 1000
        assert "](../paper_vae_squares_pictures.png)" in page


def test_splits_share_no_image(script, data):
    args = script.VaeArguments(
        output_dir="o", results="", train_data=str(data / "train"), test_data=str(data / "test.parquet"),
        data_name="squares", size=32, validation_count=6, train_count=100, test_count=100,
    )  # fmt: skip
    first, second = (script.load_photographs(args, show_progress=False) for _ in range(2))
    assert torch.equal(first.train, second.train)
    assert (len(first.train), len(first.validation), len(first.test)) == (42, 6, 10)
    everything = torch.cat([first.train, first.validation, first.test]).flatten(1)
    assert len(everything.unique(dim=0)) == 58
    reference, others = script.split_real(first.train, 500)
    assert len(reference) == len(others) == 21
    assert len(torch.cat([reference, others]).flatten(1).unique(dim=0)) == 42


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"variance": 0}, ConfigError, "variance must be a number > 0; got 0.0"),
        ({"samples": 8}, ConfigError, "samples must be a whole number >= 16; got 8"),
        ({"latent_sizes": [4, 4]}, ConfigError, "different numbers"),
        ({"data_name": "my hands"}, ConfigError, "data_name"),
        ({"size": 48}, ConfigError, "size must be one of 32, 64, .* got 48"),
        ({"validation_count": 20}, DataError, "48 images; at least 52"),
        ({"train_data": "/nowhere/at/all"}, DataError, "no image folder"),
    ],
)
def test_bad_options_are_refused(script, data, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run(script, data, tmp_path, **changes)
