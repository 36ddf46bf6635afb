"""Why do geometry weights change a pretrained denoiser? Adapters that `run` trained, taken apart.

    python -m scripts.experiments.study.mechanism poses --output runs/study --results docs/results/study/mechanism.json

For each task and seed it measures how large the learnt fields are and of which terms, what the held-out loss is without
some of the terms or layers and with shifted coordinates, and how well a pixel's place can be read from the UNet's
features. Writes the file of all tasks after each seed, and two figures for each task beside it. What stands in the
file is not measured again.
"""

import argparse
from pathlib import Path

from geopos_diffusers.adapters.loading import load_geoconv_weights
from geopos_diffusers.command_line import Parser
from geopos_diffusers.errors import DataError
from geopos_diffusers.training.processes import run_script

from ..arms import arm_folder
from .ablations import WHOLE, Ablations
from .encoded_images import EncodedImages
from .learnt_fields import LearntField, check_basis, energy_scores, measure_fields
from .mechanism_figures import draw_fields, draw_layers
from .mechanism_results import BASE, ENERGY, ONE_LAYER, POSITION, REMOVAL, SHIFT, ResultsFile
from .padding import load_padded
from .position_probe import position_scores
from .tasks import TASKS

ARM = "geometry"
TEST_FOLDERS = ("test", "photographs-test")


class Mechanism:
    """One task's pipeline and images, which all seeds' adapters are put into and measured on."""

    def __init__(self, args: argparse.Namespace, task: str, results: ResultsFile) -> None:
        self.task, self.results, self.size = task, results, TASKS[task].size
        work = Path(args.output) / task
        folder = next((work / name for name in TEST_FOLDERS if (work / name).is_dir()), None)
        if folder is None:
            raise DataError(f"{work} holds no test images ({' or '.join(TEST_FOLDERS)})")
        runs = work / "arms" / arm_folder(ARM)
        finals = {seed: runs / f"seed-{seed}" / "final" for seed in args.seeds}
        self.adapters = {seed: final for seed, final in finals.items() if final.is_dir()}
        if not self.adapters:
            raise DataError(f"{runs} holds no adapter of the seeds {', '.join(map(str, args.seeds))}")
        self.pipe = load_padded(args.model, TASKS[task].padding)
        self.images = EncodedImages(self.pipe, folder, self.size, args.test_images)
        self.probed = {
            size: EncodedImages(self.pipe, folder, size, args.probe_images) for size in (self.size, 2 * self.size)
        }
        if not results.known(task, variant=BASE):
            losses = {"loss": float(self.images.losses().mean())}
            results.add(task, 0, {BASE: losses | self.decoded_positions()})
        (base,) = results.known(task, variant=BASE)
        self.base_loss = base["scores"]["loss"]

    def decoded_positions(self) -> dict[str, float]:
        scores: dict[str, float] = {}
        for size, images in self.probed.items():
            scores |= position_scores(images, size)
        return scores

    def load(self, seed: int) -> dict[str, LearntField]:
        """Put a seed's adapter in, and return what its layers add."""
        load_geoconv_weights(self.pipe, self.adapters[seed])
        check_basis(self.images.model)
        return measure_fields(self.probed[self.size])

    def measure(self, seed: int) -> None:
        fields = self.load(seed)
        ablations = Ablations(self.images, self.base_loss, list(fields))
        removal = ablations.removal()
        parts = {
            ENERGY: energy_scores(fields),
            REMOVAL: removal,
            ONE_LAYER: ablations.one_layer(removal[WHOLE]),
            SHIFT: ablations.shifted(),
            POSITION: self.decoded_positions(),
        }
        self.results.add(self.task, seed, parts)
        print(f"{self.task}, seed {seed}: {removal}", flush=True)

    def run(self) -> None:
        for seed in self.adapters:
            if not self.results.known(self.task, variant=REMOVAL, seed=seed):
                self.measure(seed)
        file = self.results.file
        fields = self.load(next(iter(self.adapters)))
        draw_fields(fields, file.with_name(f"{file.stem}-{self.task}.png"))
        draw_layers(self.results.known(self.task), file.with_name(f"{file.stem}-{self.task}-layers.png"))


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=list(TASKS), metavar="TASK", help=f"of {', '.join(TASKS)}")
    parser.add_argument("--output", required=True, help="the folder that `run` trained into")
    parser.add_argument("--results", type=Path, required=True, help="JSON file of all tasks, which is added to")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14], help="those that are there (10 to 14)"
    )
    parser.add_argument("--model", default="hands64", help="pipeline that was fine-tuned (%(default)s)")
    parser.add_argument("--test-images", type=int, default=256, help="of the losses (%(default)s)")
    parser.add_argument("--probe-images", type=int, default=32, help="whose features are read (%(default)s)")
    args = parser.parse_args()
    settings = {name: getattr(args, name) for name in ("model", "test_images", "probe_images")}
    results = ResultsFile(args.results, settings)
    for task in args.tasks:
        Mechanism(args, task, results).run()


if __name__ == "__main__":
    run_script(main)
