"""The options of prior preservation."""

from dataclasses import dataclass
from functools import partial

from ..errors import ConfigError
from ..training.arguments import option
from .training_options import TrainingArguments

prior_option = partial(option, group="prior preservation")
DEFAULT_CLASS_IMAGES = 100


@dataclass(kw_only=True)
class PriorArguments(TrainingArguments):
    """Images of a whole class beside those of the data set, so that the model does not forget it (DreamBooth)."""

    with_prior_preservation: bool | None = prior_option(
        None, "train every batch on as many images of a class too (arXiv 2208.12242, section 3.2)", resume="fixed"
    )
    # A resumed run compares the images' fingerprint instead.
    class_dataset: str | None = prior_option(None, "data set of the class's images", resume="free", at_least=1)
    class_prompt: str | None = prior_option(
        None, "in its place: a prompt that the untrained model draws the class's images of", resume="fixed", at_least=1
    )
    num_class_images: int | None = prior_option(
        None, f"images to draw of class-prompt; by default {DEFAULT_CLASS_IMAGES}", resume="fixed", at_least=1
    )
    prior_loss_weight: float | None = prior_option(
        None, "weight of the loss on the class's images; by default 1", resume="fixed", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.with_prior_preservation:
            names = ("class_dataset", "class_prompt", "num_class_images", "prior_loss_weight")
            self.check_unused(names, "with_prior_preservation")
            return
        if (self.class_dataset is None) == (self.class_prompt is None):
            raise ConfigError("with_prior_preservation needs class_dataset or class_prompt, and not both")
        if self.num_class_images is not None and self.class_prompt is None:
            raise ConfigError("num_class_images is how many are drawn of class_prompt; give that")
        if getattr(self, "aspect_ratio_buckets", False):
            raise ConfigError("with_prior_preservation needs images of one size; leave aspect_ratio_buckets out")
