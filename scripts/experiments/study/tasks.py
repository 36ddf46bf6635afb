"""The tasks of the study: what the packaged model does not know yet, and what it is measured on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geopos_diffusers.errors import ConfigError

from ..rendered_hands import KNOWN_HANDS, render
from ..unconditional.data import export_hands
from .arms import ARMS

Folders = dict[str, Path]
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Counts:
    """Images of each part that is rendered."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Sources:
    """What data are made from. seed: of rendered images, another for each part. photographs: a folder of them."""

    work: Path
    counts: Counts
    seed: int
    photographs: Path | None = None


@dataclass(frozen=True)
class Task:
    """What is learnt, and by what it is measured.

    data: makes the folders PARTS. size: of the images, in pixels. drawn: (height, width) of what is drawn from the test
    captions; scores of the first have no prefix. primary: the score that the main comparisons are made by.
    arms: which are run, the most important first. batch_size: of the training. step_share: of the other tasks' steps.
    padding: mode of the UNet's convolutions, as torch calls it, in training and measuring; None for the model's own.
    paddings: modes that the base is drawn with too, without training.
    shows_held_out: whether the picture has a row of held-out images; photographs of people stay out of the repository.
    """

    title: str
    question: str
    data: Callable[[Sources, int], Folders]
    primary: str
    size: int = 64
    drawn: tuple[tuple[int, int], ...] = ((64, 64),)
    arms: tuple[str, ...] = tuple(ARMS)
    batch_size: int = 16
    step_share: float = 1.0
    padding: str | None = None
    paddings: tuple[str, ...] = ()
    shows_held_out: bool = True

    def steps(self, most: int) -> int:
        """Of each training. most: of the tasks whose share is 1."""
        return round(most * self.step_share)


def rendered(*hands: str) -> Callable[[Sources, int], Folders]:
    """Folders of rendered hands. hands: options of `geopos data hands`."""

    def make(sources: Sources, size: int) -> Folders:
        return {
            part: render(
                sources.work / part, getattr(sources.counts, part), size, sources.seed + number, [*hands, "--quiet"]
            )
            for number, part in enumerate(PARTS)
        }

    return make


def photographed(sources: Sources, size: int) -> Folders:
    if sources.photographs is None:
        raise ConfigError("this task learns photographs of hands: give --photographs, a folder with train.parquet")
    return export_hands(sources.photographs, sources.work, size, ("text",))


def known_hands(sources: Sources) -> Path:
    """What the model knew before: rendered hands as it was trained on."""
    return render(sources.work / "known", sources.counts.test, 64, sources.seed + len(PARTS), [*KNOWN_HANDS, "--quiet"])


MAIN_ARMS = (
    "bias", "geometry", "LoRA r=2", "LoRA r=4", "LoRA r=4 + bias", "LoRA r=4 + geometry", "whole UNet",
    "whole UNet + geometry",
)  # fmt: skip
PADDINGS = ("circular", "replicate")
TASKS = {
    "poses": Task(
        "Free poses and views",
        "Rendered hands in any pose, from all sides, on gradients.",
        rendered(),
        "loss",
    ),
    "photographs": Task(
        "Photographs of hands",
        "Sign-language digits, split by subject.",
        photographed,
        "loss",
        arms=MAIN_ARMS,
        shows_held_out=False,
    ),
    "sizes": Task(
        "Twice the size",
        "The hands that the model knows, at 128 px, where it draws several of them.",
        rendered(*KNOWN_HANDS),
        "one_hand",
        size=128,
        drawn=((128, 128), (64, 128)),
        arms=(*MAIN_ARMS, "geometry, shift 0.25", "taps", "CoordConv terms"),
        batch_size=8,
        step_share=0.5,
        paddings=PADDINGS,
    ),
    "enlarged": Task(
        "Drawn larger than trained",
        "The hands that the model knows, learnt again at 64 px and drawn larger.",
        rendered(*KNOWN_HANDS),
        "one_hand",
        drawn=((128, 128), (64, 128), (64, 64)),
        paddings=PADDINGS,
        arms=("bias", "geometry", "LoRA r=2", "geometry, shift 0.25", "taps"),
    ),
    "handedness": Task(
        "Left and right",
        "Captions name the hand, which the model ignores.",
        rendered(*KNOWN_HANDS),
        "handedness_right",
        arms=MAIN_ARMS,
    ),
    "circular": Task(
        "Circular padding",
        "The hands that the model knows, through convolutions with circular padding: only coordinates tell the place.",
        rendered(*KNOWN_HANDS),
        "loss",
        arms=(*MAIN_ARMS, "geometry, shift 1", "taps", "CoordConv terms"),
        padding="circular",
        paddings=("zeros",),
    ),
}
