"""The options of flow matching, for Stable Diffusion 3 and Sana."""

# ruff: noqa: RUF009 - options are dataclass fields
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..errors import ConfigError
from ..training.arguments import option
from .training_options import TrainingArguments

flow_option = partial(option, group="flow matching")
TimestepWeighting = Literal["logit_normal", "mode", "sigma_sqrt", "cosmap", "uniform"]
# What the options below mean where they are not given: the values of arXiv 2403.03206, section 3.1.
DEFAULTS: dict[str, Any] = {
    "timestep_weighting": "logit_normal",
    "logit_mean": 0.0,
    "logit_std": 1.0,
    "mode_scale": 1.29,
}
OWNERS = {"logit_mean": "logit_normal", "logit_std": "logit_normal", "mode_scale": "mode"}


@dataclass(kw_only=True)
class FlowMatchingArguments(TrainingArguments):
    """How often each noise level is trained, and how much it counts, in flow matching."""

    timestep_weighting: TimestepWeighting | None = flow_option(
        None,
        "noise levels of flow matching: logit_normal and mode draw them, sigma_sqrt and cosmap weight uniform ones, "
        "uniform does neither (arXiv 2403.03206, section 3.1); by default logit_normal",
        resume="fixed",
    )
    logit_mean: float | None = flow_option(
        None, "mean of logit_normal, above 0 for less noise, as in diffusers; by default 0", resume="fixed"
    )
    logit_std: float | None = flow_option(
        None, "standard deviation of logit_normal; by default 1", resume="fixed", above=0
    )
    mode_scale: float | None = flow_option(None, "scale of mode; by default 1.29", resume="fixed")
    flow_shift: float | None = flow_option(
        None,
        "shift of the noise levels towards more noise, larger for larger images; by default the pipeline's",
        resume="fixed",
        above=0,
    )
    precondition_outputs: bool | None = flow_option(
        None, "compare the clean latents that a prediction amounts to, in the place of velocities", resume="fixed"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, owner in OWNERS.items():
            if getattr(self, name) is not None and self.flow_value("timestep_weighting") != owner:
                raise ConfigError(f"{name} is a number of timestep_weighting {owner}; give that")

    def flow_value(self, name: str) -> Any:
        """An option's value, or the default of flow matching."""
        value = getattr(self, name)
        return DEFAULTS[name] if value is None else value

    def given_flow_options(self) -> list[str]:
        """The names of those that other models do not have."""
        names = (*DEFAULTS, "flow_shift", "precondition_outputs")
        return [name for name in names if getattr(self, name) is not None]
