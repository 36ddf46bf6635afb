"""What one kind of fine-tuning adds to the engine: the model, its data, the loss of a batch, and how it is shown."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter

from ..training.checkpoints import TrainingState
from ..training.gradient_step import GradientStep
from ..training.loop import Validation
from .trained_parts import add_trained_parts, parameter_groups, place_models, save_trained_parts

Arguments = TypeVar("Arguments", bound=Any)


class Task(ABC, Generic[Arguments]):
    """One kind of fine-tuning. The engine calls the methods in the order in which they stand here.

    ARGUMENTS: the dataclass of its options, of `PartArguments` and `ImageDataArguments`.

    Attributes:
        pipe: the pipeline, or what else holds the model as the attribute `component`.
        component: the name of the trained model there.
        model: what the forward passes of training go through. The engine wraps it for several processes and puts it
            back; it is None after the run.
        parameters: what is trained, by name, in the order of the optimizer's groups.
        data: see `load_data`.
    """

    ARGUMENTS: ClassVar[type]

    pipe: Any
    component: str
    model: Any
    parameters: dict[str, Parameter]
    data: Any

    def __init__(self, args: Arguments, accelerator: Accelerator) -> None:
        self.args, self.accelerator = args, accelerator

    def check_packages(self) -> None:
        """Raise MissingDependencyError if an option needs a package that is not installed. Nothing is loaded yet."""

    def prepare_evaluations(self, continued: bool) -> None:
        """What can be refused of the evaluations before anything is loaded. Called before `build`."""

    @abstractmethod
    def load_pipeline(self) -> Any:
        """The pipeline in float32, or an object that holds the model; sets `component`."""

    def build(self) -> None:
        """Load, patch, freeze and place the models."""
        self.pipe = self.load_pipeline()
        model: Any = getattr(self.pipe, self.component)
        self.base_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.parameters = add_trained_parts(self.pipe, self.component, self.args)
        place_models(self.components(), self.component, self.accelerator)
        if self.args.gradient_checkpointing:
            model.enable_gradient_checkpointing()
        self.model = model

    def components(self) -> dict[str, Any]:
        """What is placed on the device."""
        return self.pipe.components

    @abstractmethod
    def load_data(self) -> Any:
        """A map-style data set with `fingerprint()`, `resolution` and `skipped`."""

    def optimizer(self) -> torch.optim.Optimizer:
        args = self.args
        groups = parameter_groups(self.parameters, args)
        return torch.optim.AdamW(groups, betas=(args.adam_beta1, args.adam_beta2), eps=args.adam_epsilon)

    def prepare(self) -> tuple[dict[str, Parameter], Any]:
        """Wrap the model for several processes.

        Returns:
            All parameters that the training changes, by name, and their optimizer, or several; see `TrainingState`.
        """
        self.model.train()
        self.model, optimizer = self.accelerator.prepare(self.model, self.optimizer())
        return self.parameters, optimizer

    def step(self, state: TrainingState, **options: Any) -> GradientStep:
        """What takes an optimizer step. options: of `GradientStep`."""
        return GradientStep(state, self.model, losses=self.losses, **options)

    def facts(self) -> dict[str, Any]:
        """What the terminal, the model card and summary.json say beside the engine's facts."""
        return {}

    def prepare_data(self) -> None:
        """What takes long and a dry run leaves out, such as encoding all images."""

    def begin(self, step: int) -> None:
        """On the first process, before the first or next step."""

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name, "loss", which is minimised, among them. All randomness is the global generators'."""

    def validations(self, save: Callable[[Path], None]) -> Sequence[Validation]:
        """What looks at the training now and then. save(folder): writes what is trained, for the best weights."""
        return ()

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write what was trained in its final format."""
        card = {"Base model": self.args.model, "Training": facts}
        save_trained_parts(self.pipe, self.component, self.args.parts, folder, card)

    def finish(self) -> dict[str, Any]:
        """On the first process, after final/ is written. Returns what summary.json says beside the rest."""
        return {}
