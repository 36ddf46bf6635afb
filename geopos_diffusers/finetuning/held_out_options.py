"""The options of the loss on images that are not trained on, and of what is done about it."""

from dataclasses import dataclass

from ..errors import ConfigError
from .training_options import TrainingArguments, validation_option

VALIDATION_LOSS = "validation_loss"
DEFAULT_IMAGES, DEFAULT_STEPS = 64, 100


@dataclass(kw_only=True)
class HeldOutArguments(TrainingArguments):
    """Images that are held out, and the rule for best/ and for an early end."""

    validation_dataset: str | None = validation_option(
        None, "images to measure the loss on, given as dataset is", resume="free", at_least=1
    )
    validation_split_share: float | None = validation_option(
        None,
        "share of the data set to measure the loss on instead of training on it, chosen by a hash",
        resume="fixed",
        above=0,
        at_most=0.5,
    )
    validation_loss_steps: int | None = validation_option(
        None, f"steps between two such measurements; by default {DEFAULT_STEPS}", resume="free", at_least=1
    )
    validation_loss_images: int | None = validation_option(
        None, f"images of each, evenly out of those held out; by default {DEFAULT_IMAGES}", resume="free", at_least=1
    )
    early_stopping: int | None = validation_option(
        None, "end after so many measurements without a better one", resume="free", at_least=1
    )
    best_by: str | None = validation_option(
        None, "what best/ and early stopping go by: validation_loss, or the measure of evaluate-every", resume="free"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_dataset is not None and self.validation_split_share is not None:
            raise ConfigError("give validation_dataset or validation_split_share, not both")
        if not self.holds_out:
            for name in ("validation_loss_steps", "validation_loss_images"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} needs validation_dataset or validation_split_share")
        choices = self.best_choices()
        if self.best_by is None and len(choices) > 1:
            raise ConfigError(f"two measures could choose best/; give best_by: {' or '.join(choices)}")
        if self.best_by is not None and self.best_by not in choices:
            raise ConfigError(f"best_by is {self.best_by}, but this run measures {' and '.join(choices) or 'nothing'}")
        if self.early_stopping is not None and not choices:
            raise ConfigError("early_stopping needs validation_dataset, validation_split_share or evaluate_every")

    @property
    def holds_out(self) -> bool:
        """Whether the loss is measured on images that are not trained on."""
        return self.validation_dataset is not None or self.validation_split_share is not None

    def best_choices(self) -> list[str]:
        """The measures that could choose best/."""
        return [VALIDATION_LOSS] if self.holds_out else []

    @property
    def best_measure(self) -> str | None:
        """The measure that chooses best/; None where there is none."""
        return self.best_by or next(iter(self.best_choices()), None)
