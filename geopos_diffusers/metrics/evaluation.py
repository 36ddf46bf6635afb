"""Scores folders of images of hands, whatever made them, beside a folder of reference images, and compares them."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..images.metadata import METADATA
from .agreement import judges_agreement
from .bootstrap import Interval, bootstrap_means
from .comparison import Comparison, compare_models
from .detection_rate import MATCHED_BY_DEFAULT, ReferenceMatch, match_reference, rate_ratio
from .evaluation_cache import EvaluationCache
from .finger_count import COUNTS, confusion_matrix
from .folder_scoring import score_folders
from .hand_attributes import ATTRIBUTES
from .image_folder import list_images
from .image_scoring import ScoringSettings
from .measure_values import ReferenceModel
from .measures import MEASURES
from .quality_measures import warnings_for
from .records import ScoredFolder
from .set_scores import set_scores

REFERENCE = "reference"  # its name beside those of the folders
CONTROLS_PAGE = "docs/results/hand_controls.md"
DEFAULT_EXTRACTORS = ("mobilenet",)


@dataclass(frozen=True)
class FingerScores:
    """Found and count right, if found, for each number of raised fingers asked for; unweighted.

    images: number of images. found, count_right: intervals. Each by number, 0 to 5.
    confusion: [6, 7], see `confusion_matrix`.
    """

    images: dict[int, int]
    found: dict[int, Interval]
    count_right: dict[int, Interval]
    confusion: np.ndarray


@dataclass(frozen=True)
class FolderEvaluation:
    """All scores of one folder.

    values: by measure, [N]; nan where the measure does not apply. scores: their means with 95% intervals.
    reference_scores: the reference's, weighted to agree with this folder; None of the reference itself.
    found_ratio: found of the images that have a match over found of the matched reference.
    match: the weights; None of the reference itself.
    quality: scores of the set, by "images/EXTRACTOR/SCORE" and "crops/EXTRACTOR/SCORE"; of the reference those of its
    two halves, so of half as many images.
    agreement: of the two judges.
    """

    scored: ScoredFolder
    values: dict[str, np.ndarray]
    scores: dict[str, Interval]
    fingers: FingerScores
    quality: dict[str, Interval]
    agreement: dict[str, Interval]
    reference_scores: dict[str, Interval] | None = None
    found_ratio: Interval | None = None
    match: ReferenceMatch | None = None

    @property
    def name(self) -> str:
        return self.scored.name


@dataclass(frozen=True)
class Evaluation:
    """Folders beside a reference; `report.py` turns it into files.

    folders: in the order given; the first is the baseline of the comparisons.
    comparisons: of each other folder with the first, in each measure. measures: names, in order.
    notes: what a reader must know to trust the figures, one sentence each.
    """

    folders: tuple[FolderEvaluation, ...]
    reference: FolderEvaluation
    measures: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    match_on: tuple[str, ...]
    settings: ScoringSettings
    seed: int
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> FolderEvaluation:
        """The folder of that name. Raises KeyError."""
        for folder in (*self.folders, self.reference):
            if folder.name == name:
                return folder
        raise KeyError(name)


def evaluate_hands(
    images: str | os.PathLike | Sequence[str | os.PathLike],
    reference: str | os.PathLike,
    *,
    names: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
    match_on: Sequence[str] = MATCHED_BY_DEFAULT,
    extractors: Sequence[str] = DEFAULT_EXTRACTORS,
    judge: bool = True,
    presence: bool = True,
    task: str | os.PathLike | None = None,
    max_images: int | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    use_cache: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Score one or more folders of images of hands beside a reference folder, and compare them with each other.

    Args:
        images: a folder, or several; the first is the baseline of comparisons. Images are paired by what their
            `metadata.jsonl` says (prompt and seed), else by file name.
        reference: a folder of real or rendered hands.
        names: of the folders in tables; by default each folder's own name.
        measures: names out of `MEASURES`; by default all that have a value.
        match_on: the attributes in which reference images must agree, of fingers, view, handedness and tone.
        extractors: for scores of sets, names as of `extractor`; () leaves these scores out.
        judge: ask the second judge. presence: compute the landmark network's presence.
        task: a HandLandmarker `.task` bundle; by default `hand_landmarker_task()`.
        max_images: at most so many images of each folder, the same names in each where they have the same.
        seed: of intervals and of random choices.
        num_workers: processes; by default one a core.
        use_cache: keep what is computed in the user's cache, and take what is there.
        progress: show a progress bar on standard error.

    Raises:
        DataError: a folder that is missing, empty or has no readable image; a bad argument.
        MissingDependencyError: mediapipe or a model is missing and cannot be fetched.
    """
    paths = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    names = check_names(paths, names)
    check_choices("match on", match_on, ATTRIBUTES)
    check_choices("compute the measure", measures or (), tuple(MEASURES))
    if num_workers is not None and num_workers < 1:
        raise DataError(f"the number of workers is {num_workers}; give 1 or more")
    folders = [list_images(path, max_images, seed) for path in (*paths, reference)]
    settings = ScoringSettings(None if task is None else os.fspath(task), tuple(extractors), judge, presence)
    with EvaluationCache.default() if use_cache else EvaluationCache(None) as cache:
        *scored, scored_reference = score_folders(
            list(zip((*names, REFERENCE), folders, strict=True)),
            settings,
            cache=cache,
            num_workers=num_workers,
            progress=progress,
        )
        return evaluate_scored(
            scored, scored_reference, settings, measures=measures, match_on=match_on, seed=seed, cache=cache
        )


def evaluate_scored(
    folders: Sequence[ScoredFolder],
    reference: ScoredFolder,
    settings: ScoringSettings,
    *,
    measures: Sequence[str] | None = None,
    match_on: Sequence[str] = MATCHED_BY_DEFAULT,
    seed: int = 0,
    cache: EvaluationCache,
) -> Evaluation:
    """The evaluation of scored folders. `cache` keeps the scores of sets, which take longest."""
    model, identities = ReferenceModel.of(reference), settings.identities
    of_reference = evaluate_folder(reference, model, identities, seed, cache)
    results = [
        beside_reference(evaluate_folder(folder, model, identities, seed, cache), of_reference, match_on, seed)
        for folder in folders
    ]
    if measures is None:
        every = (*results, of_reference)
        measures = [name for name in MEASURES if any(np.isfinite(result.values[name]).any() for result in every)]
    notes = [*set_notes(results, of_reference, measures)]
    for result in results:
        prefix = f"{result.name}: " if len(results) > 1 else ""
        notes += [prefix + sentence for sentence in describe_match(result, match_on, of_reference)]
    comparisons, pairing_notes = compare_models(
        {result.name: [row.source for row in result.scored.entries] for result in results},
        {result.name: result.values for result in results},
        {name: MEASURES[name] for name in measures},
        seed,
    )
    notes += pairing_notes
    return Evaluation(
        folders=tuple(results),
        reference=of_reference,
        measures=tuple(measures),
        comparisons=comparisons,
        match_on=tuple(match_on),
        settings=settings,
        seed=seed,
        notes=tuple(notes),
    )


def evaluate_folder(
    scored: ScoredFolder,
    model: ReferenceModel,
    identities: Mapping[str, str],
    seed: int,
    cache: EvaluationCache,
) -> FolderEvaluation:
    """All scores of a folder by itself, and its set beside the reference's."""
    values = {name: measure.values(scored, model) for name, measure in MEASURES.items()}
    table = np.stack(list(values.values()), axis=1)
    return FolderEvaluation(
        scored=scored,
        values=values,
        scores=dict(zip(values, bootstrap_means(table, seed=seed), strict=True)),
        fingers=score_fingers(scored, values, seed),
        quality=set_scores(scored, model.reference, identities, seed, cache),
        agreement=judges_agreement(scored, values, seed),
    )


def beside_reference(
    result: FolderEvaluation, reference: FolderEvaluation, match_on: Sequence[str], seed: int
) -> FolderEvaluation:
    """The same with the reference's scores matched to the folder; the reference itself stays as it is."""
    if result.scored is reference.scored:
        return result
    match = match_reference(result.scored.attributes, reference.scored.attributes, match_on)
    rows = match.weights > 0
    table = np.stack(list(reference.values.values()), axis=1)
    weighted = bootstrap_means(table[rows], match.weights[rows], seed=seed)
    comparable = np.delete(result.values["found"], match.unmatched)
    return replace(
        result,
        reference_scores=dict(zip(reference.values, weighted, strict=True)),
        found_ratio=rate_ratio(comparable, reference.values["found"], match.weights, seed),
        match=match,
    )


def score_fingers(scored: ScoredFolder, values: dict[str, np.ndarray], seed: int) -> FingerScores:
    """Scores by the number of raised fingers asked for."""
    expected = [row.source.attributes.fingers for row in scored.entries]
    pairs = [(wanted, row.counted) for wanted, row in zip(expected, scored.entries, strict=True) if wanted is not None]
    table = np.stack([values["found"], values["count_right"]], axis=1)
    chosen = {number: np.array([wanted == number for wanted in expected]) for number in COUNTS}
    intervals = {number: bootstrap_means(table[rows], seed=seed) for number, rows in chosen.items()}
    return FingerScores(
        images={number: int(rows.sum()) for number, rows in chosen.items()},
        found={number: found for number, (found, _) in intervals.items()},
        count_right={number: right for number, (_, right) in intervals.items()},
        confusion=confusion_matrix([wanted for wanted, _ in pairs], [count for _, count in pairs]),
    )


def check_names(paths: Sequence[str | os.PathLike], names: Sequence[str] | None) -> list[str]:
    """One name a folder, by default the folder's own; with its parent's where two are equal.

    Raises:
        DataError: no folders, another number of names, an empty name, "reference", or names that are equal.
    """
    if not paths:
        raise DataError("no folder of images was given")
    if names is None:
        own = [Path(path).resolve() for path in paths]
        names = [path.name for path in own]
        if len(set(names)) < len(names):
            names = [f"{path.parent.name}/{path.name}" for path in own]
    if len(names) != len(paths):
        raise DataError(f"{len(names)} names were given for {len(paths)} folders; give one for each")
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{count} folders are called {name!r}; give each its own name (--names)")
        if not name.strip():
            raise DataError("a folder's name is empty; give one that can be read (--names)")
        if name == REFERENCE and len(paths) > 1:
            raise DataError(f"a folder is called {REFERENCE!r}, as the reference is; give it another name (--names)")
    return list(names)


def check_choices(purpose: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise DataError(f"cannot {purpose} {name!r}; known are {', '.join(known)}")


def describe_match(result: FolderEvaluation, match_on: Sequence[str], reference: FolderEvaluation) -> Iterator[str]:
    """Sentences on how the reference was matched to a folder and on what was left out."""
    match, count = result.match, len(result.scored.entries)
    if match is None:
        return
    if match.attributes:
        yield f"The reference is weighted to agree with the images in {', '.join(match.attributes)}."
        if missing := [name for name in match_on if name not in match.attributes]:
            yield f"Not matched, since not known of both sets: {', '.join(missing)}."
    else:
        yield "The reference is not matched: no attribute is known of both sets, so the rates may not be comparable."
    if match.unknown and match.attributes:
        yield f"{match.unknown} of {count} images say nothing of these; each was compared with the whole reference."
    if match.unmatched:
        yield (
            f"{len(match.unmatched)} of {count} images have no such reference: the matched reference and the ratio "
            "leave them out, the scores of the images do not."
        )
    if result.scored is not reference.scored:
        known = {row.sha256 for row in reference.scored.entries}
        if copies := sum(row.sha256 in known for row in result.scored.entries):
            yield f"{copies} of {count} images are images of the reference too, to which all scores are then too near."
    sizes = [
        Counter(row.size for row in scored.entries).most_common(1)[0][0] for scored in (result.scored, reference.scored)
    ]
    if sizes[0] != sizes[1]:
        (width, height), (other_width, other_height) = sizes
        yield (
            f"Most images are {width}x{height} and most of the reference {other_width}x{other_height} pixels; "
            "rates and distances depend on the size."
        )
    if all(row.source.attributes.fingers is None for row in result.scored.entries):
        yield "No image says how many fingers it should show, so counts are not scored."


def set_notes(
    results: Sequence[FolderEvaluation], reference: FolderEvaluation, measures: Sequence[str]
) -> Iterator[str]:
    """Sentences on what could not be read, on measures that have no value, and on those that fail a control."""
    for result in (*results, reference):
        if skipped := result.scored.skipped:
            first = ", ".join(f"{file} ({reason})" for file, reason in skipped[:3])
            more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            yield f"{len(skipped)} images of {result.name} could not be read and were skipped: {first}{more}."
        if repeated := result.scored.folder.repeated:
            yield f"{METADATA} of {result.name} names images again in {repeated} rows; the first row of each counts."
    if reference.scored.features:
        features = next(iter(reference.scored.features.values()))
        fewest = min(len(result.scored.entries) for result in results)
        yield from warnings_for(fewest, len(features), features.shape[1])
        yield f"Recall, Vendi, NDB and JSD do not always get worse with the share of defective hands ({CONTROLS_PAGE})."
    if any(MEASURES[name].fails for name in measures):
        yield f"Measures with a mark fail a control: {CONTROLS_PAGE} says which, and by how much."
