"""What does `geopos train` do when it is killed, its disk is full, its data vanishes, or its files are damaged?

    python scripts/stress_training.py --rows kills full-disk --kills 20

Trains a small pipeline once undisturbed. Then each row disturbs the same training, and it passes in one of two ways:
the final weights, the whole state and the log of losses are those of the undisturbed run to the last bit; or the
command ended with exit code 2 and one line that says why, and, when the cause was mended, the same command ended in
those weights. Writes <output>.json and the table <output>.md.
"""

import argparse
import random
import shutil
import sys
from pathlib import Path

from experiments.page import markdown_table
from experiments.results import write_results
from experiments.stress_training.bench import Bench, Failed, rendered_hands, small_pipeline, undisturbed
from experiments.stress_training.rows import ROWS

from geopos_diffusers.command_line import Parser
from geopos_diffusers.files import write_text


def disturb(bench: Bench, row: str) -> list[dict]:
    """What became of each case of a row."""
    results = []
    print(f"{row} ...", flush=True)
    try:
        for case, line in ROWS[row](bench):
            passed = None if case.startswith("skipped") else True
            results.append({"variant": row, "case": case, "passed": passed, "message": line})
    except Failed as error:
        results.append({"variant": row, "case": "failed", "passed": False, "message": str(error)})
    for result in results:  # without the folders of this machine and run
        result["message"] = result["message"].replace(str(bench.work), "WORK").replace(str(bench.work.parent), "...")
    return results


def outcome(result: dict) -> str:
    if result["passed"] is None:
        return "-"
    if not result["passed"]:
        return "**failed**"
    return "refused, then equal to the last bit" if result["message"] else "equal to the last bit"


def page(results: dict) -> str:
    cells = [
        (run["variant"], run["case"], outcome(run), f"`{run['message']}`" if run["message"] else "")
        for run in results["runs"]
    ]
    intro = (
        "# Disturbed trainings\n\nA training of "
        f"{results['settings']['steps']} steps of a small pipeline with geometry weights, LoRA and a moving average is "
        "disturbed in the ways below. A row passes if the final weights, the whole state of the newest checkpoint and "
        "the log of losses are those of the undisturbed run to the last bit, or if the command ended with exit code 2 "
        "and one line, and the same command, once the cause was mended, ended in those weights. Seed "
        f"{results['settings']['seed']}; {results['date']}; {results['machine']['processor']}, one thread.\n\n"
        f"```bash\n{results['command']}\n```\n\n"
    )
    return intro + markdown_table(("row", "what was done", "outcome", "message"), cells) + "\n"


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--kills", type=int, default=20, help="SIGKILLs of the row kills (default: 20)")
    parser.add_argument("--steps", type=int, default=60, help="of the training (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and damages (default: 0)")
    parser.add_argument("--dataset", help="image folder with captions; by default 12 rendered hands")
    parser.add_argument("--work", default="runs/stress", help="folder for the trainings (default: runs/stress)")
    parser.add_argument("--output", help="path of the results without suffix, such as docs/results/stress_training")
    args = parser.parse_args()

    work = Path(args.work).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    options = {
        "model": small_pipeline(work / "model"),
        "dataset": Path(args.dataset).resolve() if args.dataset else rendered_hands(work / "hands"),
        "train": "geoconv+lora",
        "train_batch_size": 2,
        "max_train_steps": args.steps,
        "checkpointing_steps": 5,
        "log_every": 1,  # the log says how far a run is
        "use_ema": "true",
        "report_to": "none",
    }
    bench = Bench(work, options, random.Random(args.seed), args.kills)
    settings = {"steps": args.steps, "seed": args.seed, "kills": args.kills, "rows": args.rows}
    runs: list[dict] = []
    try:
        undisturbed(bench)
        for row in args.rows:
            runs += disturb(bench, row)
            if args.output:  # after each row, since all take long
                results = write_results(f"{args.output}.json", "stress_training", runs, settings)
                write_text(f"{args.output}.md", page(results))
    finally:
        for process in bench.started:
            process.kill()
    print(markdown_table(("row", "what was done", "outcome"), [(r["variant"], r["case"], outcome(r)) for r in runs]))
    failed = [run for run in runs if run["passed"] is False]
    for run in failed:
        print(f"{run['variant']}: {run['message']}", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
