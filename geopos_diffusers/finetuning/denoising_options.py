"""The options of the denoising loss and of images drawn while training, shared by the scripts of diffusion models."""

# ruff: noqa: RUF009 - options are dataclass fields
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from .part_options import PartArguments
from .training_options import TrainingArguments, optimisation_option, validation_option


@dataclass(kw_only=True)
class DenoisingArguments(TrainingArguments):
    """What the denoiser learns to predict, how its loss is weighted, and how images are drawn from it."""

    snr_gamma: float | None = optimisation_option(
        None, "min-SNR-gamma loss weighting (arXiv 2303.09556); 5 in the paper", resume="fixed", above=0
    )
    noise_offset: float = optimisation_option(
        0.0, "noise that is constant over each channel, for darker and brighter images", resume="fixed", at_least=0
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = optimisation_option(
        None, "what the denoiser learns to predict; by default what the model predicts", resume="fixed"
    )
    validation_inference_steps: int = validation_option(
        25, "denoising steps of each validation or evaluation image", resume="free", at_least=1
    )


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
        None, "measure of hands whose best weights are kept in best/; by default good", resume="free", at_least=1
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
        if self.evaluation_measure is not None:
            from .hand_scores import check_measure

            check_measure(self.evaluation_measure)
