"""What one kind of fine-tuning adds to the engine: the model, its data, the loss of a batch, and how it is shown."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter

from ..errors import ConfigError
from ..training.checkpoints import TrainingState
from ..training.early_stopping import BestWeights
from ..training.gradient_step import GradientStep
from ..training.loop import Validation
from ..training.optimizers import SHARDED, build_optimizer
from ..training.sharding import check_one_model, shard, sharding_plugin
from ..training.zero import OPTIMIZERS, ZeroStep, asks_for_zero, spread_optimizer
from .held_out_loss import HeldOutLoss
from .held_out_options import DEFAULT_IMAGES, DEFAULT_STEPS, HeldOutArguments
from .held_out_split import evenly_spaced_part, split_data
from .trained_parts import add_trained_parts, parameter_groups, place_models, save_trained_parts
from .training_frames import TrainingFrames

Arguments = TypeVar("Arguments", bound=Any)


class Task(ABC, Generic[Arguments]):
    """One kind of fine-tuning. The engine calls the methods in the order in which they stand here.

    ARGUMENTS: the dataclass of its options, of `PartArguments` and `ImageDataArguments`.
    SHARDED: whether its model can be spread over processes: it is called by its forward pass alone.

    Attributes:
        pipe: the pipeline, or what else holds the model as the attribute `component`.
        component: the name of the trained model there.
        model: what the forward passes of training go through. The engine wraps it for several processes and puts it
            back; it is None after the run.
        parameters: what is trained, by name, in the order of the optimizer's groups.
        data: see `load_data`. held_out: as data, but not trained on; None where the loss on such is not asked for.
        held_out_kind: what `held_out_losses` depends on beside data, seed and weights.
        best: what keeps best/; None where nothing is measured that could choose it.
        frames: what sets the boxes that coordinates are counted from; None where they are counted from the image.
    """

    ARGUMENTS: ClassVar[type]
    SHARDED: ClassVar[bool] = True

    pipe: Any
    component: str
    model: Any
    parameters: dict[str, Parameter]
    data: Any
    held_out: Any = None
    held_out_kind: str = ""
    frames: TrainingFrames | None = None

    def __init__(self, args: Arguments, accelerator: Accelerator) -> None:
        self.args, self.accelerator = args, accelerator
        measure = args.best_measure if isinstance(args, HeldOutArguments) else None
        folder = Path(args.output_dir) / "best"
        self.best = BestWeights(folder, measure, args.early_stopping) if measure is not None else None
        self.held_out_loss: HeldOutLoss | None = None

    def check_packages(self) -> None:
        """Raise MissingDependencyError if an option needs a package that is not installed. Nothing is loaded yet."""

    def prepare_evaluations(self, continued: bool) -> None:
        """What can be refused of the evaluations before anything is loaded. Called before `build`."""
        if continued and self.best is not None:
            self.best.check()

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
        """A map-style data set with `fingerprint()`, `resolution`, `skipped`, and `part(indices)` to hold some out."""

    def load_validation_data(self, dataset: str) -> Any:
        """The same of the images to measure the loss on."""
        raise NotImplementedError

    def hold_out(self) -> None:
        """Set apart what is not trained on, before any data are encoded."""
        if not isinstance(self.args, HeldOutArguments) or not self.args.holds_out:
            return
        if self.args.validation_split_share is not None:
            self.data, held_out = split_data(self.data, self.args.validation_split_share)
        else:
            held_out = self.load_validation_data(self.args.validation_dataset or "")
        self.held_out = evenly_spaced_part(held_out, self.args.validation_loss_images or DEFAULT_IMAGES)

    def prepare_frames(self) -> None:
        """Find the model's default frame in the data, where the options ask for frames."""
        args: Any = self.args
        if getattr(args, "frame_column", None) is not None:
            model = getattr(self.pipe, self.component)
            self.frames = TrainingFrames(model, self.data, args.frame_dropout, args.frame_jitter)

    def begin_frames(self, batch: dict[str, Any]) -> None:
        """Set the frames of a training batch, if there are any."""
        if self.frames is not None:
            self.frames.begin(batch["box"])

    def in_frames(self, batch: dict[str, Any]) -> AbstractContextManager[None]:
        """Within the block the model works in the frames of a held-out batch, if there are any."""
        return nullcontext() if self.frames is None else self.frames.within(batch["box"])

    def optimizer(self) -> torch.optim.Optimizer:
        groups = parameter_groups(self.parameters, self.args)
        return build_optimizer(self.args.optimizer, groups, self.args.optimizer_options)

    def prepare(self) -> tuple[dict[str, Parameter], Any]:
        """Wrap the model for several processes.

        Returns:
            All parameters that the training changes, by name, and their optimizer, or several; see `TrainingState`.
        """
        self.model.train()
        if sharding_plugin(self.accelerator) is not None:
            return self._shard()
        if self.uses_zero:
            return self._spread_optimizer()
        if self.args.compile:
            # With the random numbers of the model as it is: it draws shifts.
            torch._inductor.config.fallback_random = True
            self.model = torch.compile(self.model, mode=self.args.compile_mode)
        self.model, optimizer = self.accelerator.prepare(self.model, self.optimizer())
        return self.parameters, optimizer

    @property
    def uses_zero(self) -> bool:
        """Whether gradients and moments are spread by DeepSpeed."""
        return self.accelerator.num_processes > 1 and asks_for_zero()

    def _check_spread(self, name: str, optimizers: Sequence[str]) -> None:
        args: Any = self.args
        if not self.SHARDED:
            raise ConfigError(f"{type(self).__name__} cannot be trained with {name}; use plain data parallelism")
        if args.compile:
            raise ConfigError(f"compile cannot go with {name}; leave one of them out")
        if args.optimizer not in optimizers:
            raise ConfigError(f"with {name} the optimizer must be one of {', '.join(optimizers)}; got {args.optimizer}")

    def _spread_optimizer(self) -> tuple[dict[str, Parameter], Any]:
        args: Any = self.args
        self._check_spread("DeepSpeed", OPTIMIZERS)
        check_one_model(self.model, self.parameters, "DeepSpeed")
        self.model, optimizer = spread_optimizer(
            self.model, self.optimizer(), self.accelerator, args.train_batch_size, args.max_grad_norm
        )
        return self.parameters, optimizer

    def _shard(self) -> tuple[dict[str, Parameter], Any]:
        self._check_spread("FSDP", SHARDED)
        self.parameters = shard(self.model, self.parameters, self.accelerator)
        return self.parameters, self.accelerator.prepare_optimizer(self.optimizer())

    def step(self, state: TrainingState, **options: Any) -> GradientStep:
        """What takes an optimizer step. options: of `GradientStep`."""
        kind = ZeroStep if self.uses_zero else GradientStep
        return kind(state, self.model, losses=self.losses, **options)

    def facts(self) -> dict[str, Any]:
        """What the terminal, the model card and summary.json say beside the engine's facts."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What a continued run must share beside its options and the fingerprint of `data`."""
        return {}

    def companions(self) -> dict[str, Any]:
        """Further data by a name. Every batch holds a batch of each of them under its name."""
        return {}

    def prepare_data(self) -> None:
        """What takes long and a dry run leaves out, such as encoding all images."""

    def begin(self, step: int) -> None:
        """On the first process, before the first or next step."""
        if self.held_out_loss is not None:
            self.held_out_loss.begin(step)

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Scalars by name, "loss", which is minimised, among them. All randomness is the global generators'."""

    def validations(self, save: Callable[[Path], None]) -> list[Validation]:
        """What looks at the training now and then. save(folder): writes what is trained, for the best weights."""
        if self.held_out is None:
            return []
        args: Any = self.args
        self.held_out_loss = HeldOutLoss(
            self.held_out,
            self.prepare_held_out,
            self.held_out_losses,
            getattr(self.pipe, self.component),
            self.accelerator,
            args.output_dir,
            args.seed,
            args.train_batch_size,
            self.held_out_kind,
            self.best,
            save,
        )
        return [Validation(self.held_out_loss, args.validation_loss_steps or DEFAULT_STEPS, first=True)]

    def prepare_held_out(self, batch: Any) -> Any:
        """What of a held-out batch can be computed once, such as latents."""
        return batch

    def held_out_losses(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Values [B] by name, "validation_loss" among them, without the wrapper for several processes.

        All that is random comes from `generator`, which is on the CPU.
        """
        raise NotImplementedError

    def should_stop(self) -> bool:
        """Whether the validations so far are reason enough to end. On the first process."""
        return self.best is not None and self.best.should_stop()

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """Write what was trained in its final format."""
        card = {"Base model": self.args.model, "Training": facts}
        save_trained_parts(self.pipe, self.component, self.args.parts, folder, card)

    def release(self) -> None:
        """Let go of what is wrapped for several processes, before they part; see `end_run`."""
        self.model = None

    def finish(self) -> dict[str, Any]:
        """On the first process, before final/ is written, with the averaged weights in place.

        Returns what summary.json says beside the rest.
        """
        return {} if self.best is None else {"best": self.best.best}
