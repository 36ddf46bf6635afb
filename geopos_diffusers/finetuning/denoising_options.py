"""The options of the denoising loss and of images drawn while training, shared by the scripts of diffusion models."""

# ruff: noqa: RUF009 - options are dataclass fields
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .held_out_options import VALIDATION_LOSS, HeldOutArguments
from .loss_weighting import LossWeighting, Weighting, choose_weighting
from .part_options import PartArguments
from .training_options import optimisation_option, validation_option

DEFAULT_BANDS = 4
DEFAULT_MEASURE = "good"  # of hands


@dataclass(kw_only=True)
class DenoisingArguments(HeldOutArguments):
    """What the denoiser learns to predict, how its loss is weighted, and how images are drawn from it."""

    loss_weighting: Weighting | None = optimisation_option(
        None,
        "how much each timestep counts: none, min_snr (arXiv 2303.09556), debiased (2310.08442) or p2 (2204.00227)",
        resume="fixed",
    )
    snr_gamma: float | None = optimisation_option(
        None,
        "cap of min_snr on the signal-to-noise ratio; alone it means min_snr; else 5",
        resume="fixed",
        above=0,
    )
    p2_gamma: float | None = optimisation_option(None, "p2's exponent; by default 1", resume="fixed", at_least=0)
    p2_k: float | None = optimisation_option(None, "p2's offset; by default 1", resume="fixed", above=0)
    noise_offset: float = optimisation_option(
        0.0, "noise that is constant over each channel, for darker and brighter images", resume="fixed", at_least=0
    )
    input_perturbation: float | None = optimisation_option(
        None,
        "share of further noise in the model's input that it does not learn to remove; 0.1 in arXiv 2301.11706",
        resume="fixed",
        above=0,
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = optimisation_option(
        None, "what the denoiser learns to predict; by default what the model predicts", resume="fixed"
    )
    validation_inference_steps: int = validation_option(
        25, "denoising steps of each validation or evaluation image", resume="free", at_least=1
    )

    validation_bands: int | None = validation_option(
        None, f"bands of timesteps that the validation loss has; by default {DEFAULT_BANDS}", resume="free", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.loss_weights
        if self.validation_bands is not None and not self.holds_out:
            raise ConfigError("validation_bands needs validation_dataset or validation_split_share")

    @property
    def loss_weights(self) -> LossWeighting:
        return choose_weighting(self.loss_weighting, self.snr_gamma, self.p2_gamma, self.p2_k)


@dataclass(kw_only=True)
class PromptArguments(DenoisingArguments, PartArguments):
    """Images of prompts: grids to look at, and scores of their hands."""

    validation_prompts: list[str] | None = validation_option(
        None, "prompts to draw, as a grid of images, while training", resume="free", common=True
    )
    validation_guidance_scale: float | None = validation_option(
        None,
        "classifier-free guidance of these images; by default the model's own, else 5",
        resume="free",
        at_least=0,
    )
    evaluate_every: int | None = validation_option(
        None, "steps between two scores of the hands in generated images", resume="free", common=True, at_least=1
    )
    evaluation_prompts: str | None = validation_option(
        None, "text file with the prompts of these images, one a line", resume="free", at_least=1
    )
    evaluation_reference: str | None = validation_option(
        None, "folder of real or rendered hands that they are scored beside", resume="free", at_least=1
    )
    evaluation_measure: str | None = validation_option(
        None, "measure of hands that is printed, drawn and may choose best/; by default good", resume="free", at_least=1
    )
    evaluation_images: int | None = validation_option(
        None, "images of each evaluation, going round the prompts; by default one a prompt", resume="free", at_least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name, value in vars(self).items() if name.startswith("evaluation_") and value is not None]
        if self.evaluate_every is None:
            if given:
                raise ConfigError(f"{given[0]} is an option of evaluate_every; give that too")
            return
        for name in ("evaluation_prompts", "evaluation_reference"):
            if name not in given:
                raise ConfigError(f"evaluate_every needs {name}")
        from .hand_scores import check_measure

        check_measure(self.hand_measure)

    @property
    def hand_measure(self) -> str:
        """The measure of the evaluations: what was given, as evaluation_measure or as best_by, or the default."""
        by = None if self.best_by == VALIDATION_LOSS else self.best_by
        return self.evaluation_measure or by or DEFAULT_MEASURE

    def best_choices(self) -> list[str]:
        return super().best_choices() + ([self.hand_measure] if self.evaluate_every is not None else [])
