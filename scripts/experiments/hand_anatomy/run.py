"""Measure what the anatomy of landmarks tells: false alarms, detection rates and the best distance to a reference.

    python -m scripts.experiments.hand_anatomy.run --photographs sign-language-digits --output runs/hand_anatomy \\
        --results docs/results/hand_anatomy.json

The folder has train.parquet and test.parquet, of different subjects, with the column `image`. Tolerances are chosen on
the training sets; everything else is measured on the test sets: on what MediaPipe finds in them, on the same landmarks
with a fault put in, and on what it finds in rendered hands with defects.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from geopos_diffusers.command_line import Parser
from geopos_diffusers.metrics.anatomy import LENGTHS, HandDistribution, anatomy_faults, anatomy_vector
from geopos_diffusers.metrics.anatomy_faults import TOLERANCE, joint_excess, read_hands
from geopos_diffusers.metrics.hand_distribution import MINIMUM_HANDS
from geopos_diffusers.metrics.joint_ratio import joint_ratio_differences, mean_joint_ratios
from geopos_diffusers.training.processes import run_script

from ..results import Run, write_results
from ..statistics import area_under_curve
from .faults import FAULTS
from .landmarks import FoundHands, collect

KINDS = ("thumb CMC", "thumb MCP", "thumb IP", *("MCP", "PIP", "DIP") * 4)
COMPONENTS = {"lengths": slice(LENGTHS), "angles": slice(LENGTHS, None), "both": slice(None)}
PAIRS = {
    "photographs, training": "photographs, test",
    "rendered, training": "rendered, test",
    "rendered in all poses, training": "rendered in all poses, test",
}
REFERENCE_SIZES = (MINIMUM_HANDS, 120, 240, 480)
DRAWS = 20


def tolerances(sets: dict[str, FoundHands]) -> dict[str, dict[str, float]]:
    """By kind of joint: degrees that 0.5% of photographs and 2% of rendered hands exceed, and what the rules allow."""
    found: dict[str, dict[str, float]] = {}
    quantiles = {"photographs, training": 0.995, "rendered, training": 0.98, "rendered in all poses, training": 0.98}
    for movement, joints in (("flexion", slice(0, 30)), ("deviation", slice(30, 45))):
        names = np.array(KINDS * 2 if movement == "flexion" else KINDS)
        for kind in dict.fromkeys(KINDS):
            row = found[f"{kind} {movement}"] = {"allowed": float(TOLERANCE[joints][names == kind].max())}
            for name, quantile in quantiles.items():
                readings = [read_hands(points).angles for points in (sets[name].world, sets[name].image)]
                excess = np.minimum(*(joint_excess(angles) for angles in readings))[:, joints][:, names == kind]
                row[name] = round(float(np.quantile(excess.max(axis=1), quantile)), 1)
    return found


def rule_shares(hands: FoundHands) -> dict[str, float]:
    """Share of the hands that break each rule, and any."""
    faults = anatomy_faults(hands.world, hands.image)
    faults["any"] = np.any(list(faults.values()), axis=0)
    return {rule: round(float(broken.mean()), 4) for rule, broken in faults.items()}


def faulty_sets(hands: FoundHands, seed: int) -> dict[str, FoundHands]:
    """The same hands with each fault put in, alike in both readings."""
    return {
        name: FoundHands(
            *(make(points, np.random.default_rng(seed)) for points in (hands.world, hands.image)),
            hands.defects,
            hands.fingers,
            hands.images,
        )
        for name, make in FAULTS.items()
    }


def matched_curve(proper: np.ndarray, fingers: np.ndarray, faulty: np.ndarray, faulty_fingers: np.ndarray) -> float:
    """`area_under_curve` of hands with as many raised fingers, averaged over the faulty hands.

    A defect is drawn where it can be seen, so mostly in open hands, of which landmarks are better than of fists.
    """
    numbers = [number for number in np.unique(faulty_fingers) if (fingers == number).any()]
    areas = [area_under_curve(proper[fingers == number], faulty[faulty_fingers == number]) for number in numbers]
    return float(np.average(areas, weights=[(faulty_fingers == number).sum() for number in numbers]))


Score = Callable[[FoundHands], np.ndarray]


def scores(reference: FoundHands, seed: int) -> dict[tuple[str, str], tuple[Score, float]]:
    """By kind of landmarks and what is compared: a value of each hand, larger for odd ones, and its 95% limit."""
    made: dict[tuple[str, str], tuple[Score, float]] = {}
    for kind in ("image", "world"):
        for name, part in COMPONENTS.items():
            distribution = HandDistribution.fit(anatomy_vector(getattr(reference, kind))[:, part], seed)

            def distance(
                hands: FoundHands, fit: HandDistribution = distribution, kind: str = kind, part: slice = part
            ) -> np.ndarray:
                return fit.distances(anatomy_vector(getattr(hands, kind))[:, part])

            made[kind, name] = (distance, distribution.limit)
        means = mean_joint_ratios(getattr(reference, kind))

        def ratio(hands: FoundHands, means: np.ndarray = means, kind: str = kind) -> np.ndarray:
            return joint_ratio_differences(getattr(hands, kind), means)

        made[kind, "joint ratios"] = (ratio, float(np.quantile(ratio(reference), 0.95)))
    return made


def measure_pair(
    name: str, reference: FoundHands, test: FoundHands, defective: FoundHands | None, seed: int
) -> list[Run]:
    faulty = faulty_sets(test, seed)
    if defective is not None:
        kinds = sorted(set(defective.defects.tolist()))
        faulty |= {f"defect: {kind}": defective.select(defective.defects == kind) for kind in kinds}
        faulty["defect: all"] = defective
    runs: list[Run] = [
        {
            "variant": name,
            "hands": label,
            "count": len(hands.world),
            "images": hands.images,
            "rules": rule_shares(hands),
        }
        for label, hands in {"proper": test, **faulty}.items()
    ]
    for (kind, compared), (score, limit) in scores(reference, seed).items():
        proper = score(test)
        run: Run = {"variant": name, "landmarks": kind, "compared": compared, "limit": round(limit, 3)}
        run["proper beyond limit"] = round(float((proper > limit).mean()), 3)
        for label, hands in faulty.items():
            values = score(hands)
            beyond = round(float((values > limit).mean()), 3)
            area = matched_curve(proper, test.fingers, values, hands.fingers)
            run[label] = {"auc": round(area, 3), "beyond limit": beyond}
        runs.append(run)
    return runs


def measure_sizes(name: str, reference: FoundHands, test: FoundHands, seed: int) -> list[Run]:
    """Share of the test's proper hands beyond the limit of references of several sizes, over random draws."""
    vectors, new = anatomy_vector(reference.image), anatomy_vector(test.image)
    runs: list[Run] = []
    for size in REFERENCE_SIZES:
        if size > len(vectors):
            continue
        drawn = [np.random.default_rng([seed, draw]).choice(len(vectors), size, replace=False) for draw in range(DRAWS)]
        shares = [HandDistribution.fit(vectors[chosen], seed).share_beyond(new) for chosen in drawn]
        values = {"mean": float(np.mean(shares)), "low": min(shares), "high": max(shares)}
        runs.append(
            {"variant": name, "reference hands": size, **{key: round(value, 3) for key, value in values.items()}}
        )
    return runs


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", required=True, help="folder with train.parquet and test.parquet")
    parser.add_argument("--hands", type=int, default=500, help="rendered hands of each set (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of rendering, faults and folds (default: %(default)s)")
    parser.add_argument("--output", required=True, help="folder that keeps the landmarks between runs")
    parser.add_argument("--results", required=True, help="JSON file to write")
    args = parser.parse_args()
    sets = collect(Path(args.photographs), args.hands, args.seed, Path(args.output))
    runs = []
    for training, test in PAIRS.items():
        defective = sets["rendered with defects"] if training == "rendered, training" else None
        runs += measure_pair(test, sets[training], sets[test], defective, args.seed)
        runs += measure_sizes(test, sets[training], sets[test], args.seed)
    found = {name: {"images": hands.images, "found": len(hands.world)} for name, hands in sets.items()}
    settings = {"seed": args.seed, "rendered hands": args.hands}
    write_results(args.results, "hand_anatomy", runs, settings, sets=found, tolerances=tolerances(sets))


if __name__ == "__main__":
    sys.exit(run_script(main))
