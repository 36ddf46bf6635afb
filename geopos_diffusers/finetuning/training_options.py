"""The options that all fine-tuning scripts share: steps, optimizer, precision, checkpoints, the folder of a run."""

# ruff: noqa: RUF009 - options are dataclass fields
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from ..errors import ConfigError
from ..training.arguments import CONTINUED, OVERWRITE_HELP, RESUME_HELP, check_arguments, option, required
from ..training.learning_rate import Schedule, learning_rate_factor
from ..training.optimizers import SOURCES, OptimizerName, parse_options

SCHEDULE_NUMBERS = {
    "lr_num_cycles": "cosine_with_restarts",
    "lr_power": "polynomial",
    "lr_decay_share": "warmup_stable_decay",
}
optimisation_option = partial(option, group="optimisation")
speed_option = partial(option, group="memory and speed")
validation_option = partial(option, group="validation")
saving_option = partial(option, group="saving and resuming")


@dataclass(kw_only=True)
class TrainingArguments:
    """How a training runs, whatever it trains.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """

    GROUPS: ClassVar[tuple[str, ...]] = (
        "data", "what is trained", "optimisation", "memory and speed", "validation", "saving and resuming",
    )  # fmt: skip

    output_dir: str = required(
        f"folder of the run; {CONTINUED}", resume="free", group="saving and resuming", name="output", at_least=1
    )
    # Of these a resumed run compares their product with the number of processes.
    train_batch_size: int = optimisation_option(
        4, "images per step and process", resume="free", common=True, at_least=1
    )
    gradient_accumulation_steps: int = optimisation_option(
        1, "batches added up before each optimizer step", resume="free", at_least=1
    )
    gradient_checkpointing: bool = speed_option(
        False, "recompute activations in the backward pass: less memory, more time", resume="free"
    )
    mixed_precision: Literal["no", "fp16", "bf16"] | None = speed_option(
        None,
        "precision of the frozen weights and of the arithmetic; what trains stays in float32; by default accelerate's",
        resume="fixed",
        common=True,
    )
    compile: bool = speed_option(
        False, "compile the model for training: fewer seconds a step after a slow first one", resume="free"
    )
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None = (
        speed_option(None, "mode of torch.compile", resume="free")
    )
    num_workers: int = speed_option(
        0, "processes that read images beside the training process", resume="free", at_least=0
    )
    max_train_steps: int | None = optimisation_option(
        None, "optimizer steps in all; this or num-train-epochs is needed", resume="free", common=True, at_least=1
    )
    num_train_epochs: float | None = optimisation_option(
        None, "passes over the data, where max-train-steps is not given", resume="free", above=0
    )
    lr_scheduler: Schedule = optimisation_option(
        "constant", "course of the learning rate after the warm-up", resume="fixed"
    )
    lr_warmup_steps: int = optimisation_option(
        0, "steps over which the learning rate rises linearly from zero", resume="fixed", at_least=0
    )
    lr_schedule_steps: int | None = optimisation_option(
        None,
        "step at which the schedule ends; by default the run's last. To make a run longer later, give the longer "
        "length from the beginning",
        resume="fixed",
        at_least=1,
    )
    lr_num_cycles: int | None = optimisation_option(
        None, "falls of cosine_with_restarts; by default 1", resume="fixed", at_least=1
    )
    lr_power: float | None = optimisation_option(None, "of polynomial; by default 1", resume="fixed", above=0)
    lr_decay_share: float | None = optimisation_option(
        None,
        "share of the steps in which warmup_stable_decay falls; else 0.2",
        resume="fixed",
        above=0,
        at_most=1,
    )
    optimizer: OptimizerName = optimisation_option(
        "adamw", "what takes the steps; those after adagrad need the extra optimizers", resume="fixed"
    )
    optimizer_arguments: list[str] | None = optimisation_option(
        None, "more arguments of the optimizer, as key=value: betas=0.9,0.99", resume="fixed"
    )
    adam_beta1: float = optimisation_option(0.9, "beta 1 of Adam and AdamW", resume="fixed", at_least=0, at_most=1)
    adam_beta2: float = optimisation_option(0.999, "beta 2 of Adam and AdamW", resume="fixed", at_least=0, at_most=1)
    adam_weight_decay: float = optimisation_option(
        0.01,
        "weight decay of LoRA factors and of the whole model by any optimizer; the other parts have none",
        resume="fixed",
        at_least=0,
        name="weight_decay",
    )
    adam_epsilon: float = optimisation_option(1e-8, "epsilon of Adam and AdamW", resume="fixed", above=0)
    max_grad_norm: float = optimisation_option(1.0, "gradients are clipped to this norm", resume="fixed", above=0)
    use_ema: bool = optimisation_option(
        False, "keep a moving average of what is trained, and save that", resume="fixed"
    )
    ema_decay: float = optimisation_option(
        0.999, "decay of the moving average once it has warmed up", resume="fixed", at_least=0, at_most=1
    )
    seed: int = optimisation_option(
        0, "seed of all that is random", resume="fixed", common=True, at_least=0, at_most=2**31 - 1
    )
    log_every: int = validation_option(
        10,
        "steps between two printed lines; losses are fetched and checked then",
        resume="free",
        at_least=1,
    )
    validation_steps: int = validation_option(500, "steps between two grids of images", resume="free", at_least=1)
    report_to: list[str] = validation_option(
        ["tensorboard"], "trackers that accelerate knows (tensorboard, wandb, ...), all, or none", resume="free"
    )
    checkpointing_steps: int = saving_option(
        500, "steps between two checkpoints; the last step always makes one", resume="free", at_least=1
    )
    checkpoints_total_limit: int | None = saving_option(
        None, "keep only the newest N checkpoints; those of later steps go first", resume="free", at_least=1
    )
    push_to_hub: bool = saving_option(
        False, "upload final/ to the Hub at the end, with its card, curves and images; needs a login", resume="free"
    )
    hub_model_id: str | None = saving_option(
        None, "repository, owner/name; by default yours, named after the output folder", resume="free", at_least=1
    )
    hub_private: bool = saving_option(False, "make that repository private", resume="free")
    resume_from_checkpoint: str | None = saving_option(None, RESUME_HELP, resume="free", common=True)
    overwrite: bool = saving_option(False, OVERWRITE_HELP, resume="free", common=True)
    dry_run: bool = saving_option(
        False, "load and patch, print what would be trained, and stop", resume="free", common=True
    )

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.max_train_steps is None and self.num_train_epochs is None:
            raise ConfigError("give max_train_steps or num_train_epochs")
        for name, schedule in SCHEDULE_NUMBERS.items():
            if getattr(self, name) is not None and self.lr_scheduler != schedule:
                raise ConfigError(f"{name} is a number of lr_scheduler {schedule}; this run has {self.lr_scheduler}")
        if not self.compile:
            self.check_unused(("compile_mode",), "compile")
        if not self.push_to_hub:
            self.check_unused(("hub_model_id", "hub_private"), "push_to_hub")
        self._check_optimizer()

    def check_unused(self, names: Sequence[str], of: str) -> None:
        """Raise ConfigError where one of these options has another value than its default, though `of` is not given."""
        for name in names:
            if getattr(self, name) != getattr(type(self), name):
                raise ConfigError(f"{name} is an option of {of}; give that too")

    def _check_optimizer(self) -> None:
        _ = self.optimizer_options
        averages = SOURCES[self.optimizer].averages
        if averages and self.use_ema:
            raise ConfigError(f"optimizer {self.optimizer} keeps a moving average itself; leave use_ema out")
        if averages and self.lr_scheduler != "constant":
            raise ConfigError(f"optimizer {self.optimizer} needs no schedule; leave lr_scheduler constant")

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """What the optimizer's constructor is given beside rates and weight decay."""
        options = parse_options(self.optimizer_arguments or ())
        if self.optimizer in ("adamw", "adam", "adamw-8bit"):
            if "betas" in options or "eps" in options:
                raise ConfigError("give the betas and epsilon of Adam as adam_beta1, adam_beta2 and adam_epsilon")
            return {"betas": (self.adam_beta1, self.adam_beta2), "eps": self.adam_epsilon, **options}
        for name in ("adam_beta1", "adam_beta2", "adam_epsilon"):
            if getattr(self, name) != getattr(TrainingArguments, name):
                raise ConfigError(f"{name} is Adam's; give the numbers of {self.optimizer} as optimizer_arguments")
        return options

    def learning_rate_factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate at `step`, counted from 0, of a run of so many steps."""
        given = {"cycles": self.lr_num_cycles, "power": self.lr_power, "decay_share": self.lr_decay_share}
        numbers: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        length = self.schedule_steps(steps) or steps
        return learning_rate_factor(self.lr_scheduler, step, self.lr_warmup_steps, length, **numbers)

    def schedule_steps(self, steps: int | None) -> int | None:
        """Step at which the learning-rate schedule ends; None where it has no end, so a run can be made longer."""
        return None if self.lr_scheduler == "constant" else self.lr_schedule_steps or steps
