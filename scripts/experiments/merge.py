"""Merge results files of one experiment and equal settings, such as those of new seeds, into the first one.

    python -m scripts.experiments.merge gan docs/results/paper_gan_hands.json runs/paper_gan_hands.json

Figures are drawn anew by `python -m scripts.experiments.report`; a picture of samples stays that of the first file.
"""

import argparse
from collections.abc import Sequence

from geopos_diffusers.training.processes import run_script

from .results import merge_results, read_results, save_results


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="what both files are of, such as gan")
    parser.add_argument("results", help="file to merge into")
    parser.add_argument("more", nargs="+", help="files with further runs")
    args = parser.parse_args(argv)
    results = read_results(args.results, args.experiment)
    for path in args.more:
        results = merge_results(results, read_results(path, args.experiment))
    save_results(args.results, results)
    print(f"{args.results} holds {len(results['runs'])} runs")


if __name__ == "__main__":
    run_script(main)
