"""The options of `geopos train`, checked before anything is loaded."""

# ruff: noqa: RUF009 - options are dataclass fields
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..errors import ConfigError
from ..patching.config import GeoConvConfig
from ..pipelines.loading import DEFAULT_MODEL
from ..training.arguments import (
    CONTINUED,
    OVERWRITE_HELP,
    RESUME_HELP,
    check_arguments,
    option,
    required,
)
from .loss_weighting import LossWeighting, Weighting, choose_weighting
from .part_options import LEARNING_RATES, PART_RATES, as_tuple, check_parts, names_or_expression

data_option = partial(option, group="data")
trained_option = partial(option, group="what is trained")
optimisation_option = partial(option, group="optimisation")
speed_option = partial(option, group="memory and speed")
validation_option = partial(option, group="validation")
saving_option = partial(option, group="saving and resuming")


@dataclass(kw_only=True)
class FinetuningArguments:
    """Fine-tune a text-to-image pipeline on images with captions.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """

    # A resumed run compares the data's own fingerprint instead, whatever its path and columns are.
    dataset: str = required(
        "image folder with metadata.jsonl, Parquet file, or Hub data set id", resume="free", group="data", at_least=1
    )
    model: str = trained_option(
        DEFAULT_MODEL,
        "pipeline to fine-tune: a folder, a Hub id, or a packaged one",
        resume="fixed",
        common=True,
        at_least=1,
    )

    train: str = trained_option(
        "geoconv",
        "what is trained, joined by +: geoconv (geometry weights), bias (a bias for each of the layers that geoconv "
        "would patch), lora, full (the UNet)",
        resume="fixed",
        common=True,
    )
    encoding: str = trained_option(
        "product", "geometry channel: product, squares, sum, cartesian or cartesian_radius", resume="fixed"
    )
    basis: str | None = trained_option(
        None, "geometry weights: multilinear or taps; by default multilinear where there is one", resume="fixed"
    )
    shift_range: float = trained_option(
        0.25, "half the width of the random shift of the coordinates; 0 turns it off", resume="fixed"
    )
    normalization: str = trained_option("unit", "scale of the coordinates: unit, aspect or pixel", resume="fixed")
    target_modules: list[str] | str | None = trained_option(
        None,
        "layers to patch: names, name endings, or one regular expression; by default all kernels of 2+ taps",
        resume="fixed",
    )
    exclude_modules: list[str] | str | None = trained_option(
        None, "layers not to patch, given as target-modules is", resume="fixed"
    )
    components: list[str] | None = trained_option(
        None, "parts of the pipeline to patch; this script trains the unet only", resume="fixed"
    )
    lora_rank: int = trained_option(8, "rank of the LoRA factors", resume="fixed", at_least=1)
    lora_alpha: float | None = trained_option(
        None, "LoRA scale times its rank; by default the rank (scale 1)", resume="fixed", above=0
    )
    lora_target_modules: list[str] | None = trained_option(
        None, "layers that get LoRA: names or name endings; by default the attention projections", resume="fixed"
    )

    dataset_split: str = data_option("train", "split of a Hub data set", resume="free")
    image_column: str = data_option("image", "column of images in a Parquet file or Hub data set", resume="free")
    caption_column: str = data_option(
        "text", "column, or field of metadata.jsonl, that holds the captions", resume="free"
    )
    max_train_samples: int | None = data_option(
        None, "use the first N images only", resume="free", name="max_images", at_least=1
    )
    resolution: int | None = data_option(
        None,
        "pixels a side that images are scaled and centre-cropped to; by default the model's",
        resume="fixed",
        name="size",
        common=True,
        at_least=1,
    )
    random_flip: bool = data_option(
        False, "mirror every other image; wrong where captions say left or right", resume="fixed"
    )
    caption_dropout: float = data_option(
        0.1, "share of captions replaced by the empty one, for guidance", resume="fixed", at_least=0, at_most=1
    )
    cache_latents: bool = speed_option(False, "encode every image once and keep its latents in memory", resume="free")
    latents_folder: str | None = speed_option(
        None, "folder that keeps these latents for later runs with the same images and autoencoder", resume="free"
    )
    num_workers: int = speed_option(
        0, "processes that read images beside the training process", resume="free", at_least=0
    )

    train_batch_size: int = optimisation_option(
        4, "images per step and process", resume="fixed", common=True, at_least=1
    )
    gradient_accumulation_steps: int = optimisation_option(
        1, "batches added up before each optimizer step", resume="fixed", at_least=1
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
    max_train_steps: int | None = optimisation_option(
        None, "optimizer steps in all; this or num-train-epochs is needed", resume="free", common=True, at_least=1
    )
    num_train_epochs: float | None = optimisation_option(
        None, "passes over the data, where max-train-steps is not given", resume="free", above=0
    )
    # Of the rates a resumed run compares what they amount to for each part, and of the schedule where it ends.
    learning_rate: float | None = optimisation_option(
        None,
        "peak learning rate of every part without one of its own; by default each part's best of a sweep",
        resume="free",
        common=True,
        above=0,
    )
    geoconv_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of the geometry weights", resume="free", above=0
    )
    bias_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of the biases", resume="free", above=0
    )
    lora_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of the LoRA factors", resume="free", above=0
    )
    lr_scheduler: Literal["constant", "cosine", "linear"] = optimisation_option(
        "constant", "its course after the warm-up", resume="fixed"
    )
    lr_warmup_steps: int = optimisation_option(
        0, "steps over which the learning rate rises linearly from zero", resume="fixed", at_least=0
    )
    lr_schedule_steps: int | None = optimisation_option(
        None,
        "step at which a cosine or linear schedule ends; by default the run's last. To make a run longer later, "
        "give the longer length from the beginning",
        resume="fixed",
        at_least=1,
    )
    adam_beta1: float = optimisation_option(0.9, "AdamW's beta 1", resume="fixed", at_least=0, at_most=1)
    adam_beta2: float = optimisation_option(0.999, "AdamW's beta 2", resume="fixed", at_least=0, at_most=1)
    adam_weight_decay: float = optimisation_option(
        0.01, "AdamW's weight decay of LoRA factors and of the UNet; the others have none", resume="fixed", at_least=0
    )
    adam_epsilon: float = optimisation_option(1e-8, "AdamW's epsilon", resume="fixed", above=0)
    max_grad_norm: float = optimisation_option(1.0, "gradients are clipped to this norm", resume="fixed", above=0)
    loss_weighting: Weighting | None = optimisation_option(
        None,
        "how much each timestep counts: none, min_snr (arXiv 2303.09556), debiased (2310.08442) or p2 (2204.00227)",
        resume="fixed",
    )
    snr_gamma: float | None = optimisation_option(
        None, "cap on the signal-to-noise ratio; alone it means min_snr; 5 in the paper", resume="fixed", above=0
    )
    p2_gamma: float | None = optimisation_option(None, "exponent of p2; by default 1", resume="fixed", at_least=0)
    p2_k: float | None = optimisation_option(None, "offset of p2; by default 1", resume="fixed", above=0)
    noise_offset: float = optimisation_option(
        0.0, "noise that is constant over each channel, for darker and brighter images", resume="fixed", at_least=0
    )
    input_perturbation: float = optimisation_option(
        0.0,
        "further noise in the model's input that it does not learn to remove (arXiv 2301.11706; 0.1 there)",
        resume="fixed",
        at_least=0,
    )
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = optimisation_option(
        None, "what the UNet learns to predict; by default what the model predicts", resume="fixed"
    )
    use_ema: bool = optimisation_option(
        False, "keep a moving average of what is trained, and save that", resume="fixed"
    )
    ema_decay: float = optimisation_option(
        0.999, "decay of the moving average once it has warmed up", resume="fixed", at_least=0, at_most=1
    )
    seed: int = optimisation_option(
        0, "seed of data order, noise, shifts, timesteps and images", resume="fixed", common=True, at_least=0
    )

    validation_prompts: list[str] | None = validation_option(
        None, "prompts to draw, as a grid of images, while training", resume="free", common=True
    )
    validation_steps: int = validation_option(500, "steps between two grids", resume="free", at_least=1)
    validation_inference_steps: int = validation_option(
        25, "denoising steps of each validation or evaluation image", resume="free", at_least=1
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
    report_to: str = validation_option(
        "tensorboard", "tracker that accelerate knows (tensorboard, wandb, ...), all, or none", resume="free"
    )
    output_dir: str = required(
        f"folder of the run; {CONTINUED}", resume="free", group="saving and resuming", name="output", at_least=1
    )
    checkpointing_steps: int = saving_option(
        500, "steps between two checkpoints; the last step always makes one", resume="free", at_least=1
    )
    checkpoints_total_limit: int | None = saving_option(
        None, "keep only the newest N checkpoints", resume="free", at_least=1
    )
    resume_from_checkpoint: str | None = saving_option(None, RESUME_HELP, resume="free", common=True)
    overwrite: bool = saving_option(False, OVERWRITE_HELP, resume="free", common=True)
    dry_run: bool = saving_option(
        False, "load and patch, print what would be trained, and stop", resume="free", common=True
    )

    def __post_init__(self) -> None:
        check_arguments(self)
        for name in ("target_modules", "exclude_modules"):
            setattr(self, name, names_or_expression(getattr(self, name)))
        if self.components not in (None, ["unet"]):
            raise ConfigError(f"this script trains the unet only; components is {self.components}")
        if self.max_train_steps is None and self.num_train_epochs is None:
            raise ConfigError("give max_train_steps or num_train_epochs")
        if self.latents_folder is not None and not self.cache_latents:
            raise ConfigError("latents_folder keeps cached latents; give cache_latents too")
        check_parts(self.train, self.parts)
        if "bias" in self.parts and (self.encoding, self.basis) != ("product", None):
            raise ConfigError("encoding and basis are options of geoconv; train=bias has no coordinates")
        for part, name in PART_RATES.items():
            if part not in self.parts and getattr(self, name) is not None:
                raise ConfigError(f"{name} is given, but train={self.train} trains no {part}")
        self._check_evaluation()
        if self.random_flip and self.cache_latents:
            raise ConfigError("random_flip needs the images, so it cannot go with cache_latents")
        self.geoconv_config()
        _ = self.loss_weights

    def _check_evaluation(self) -> None:
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

    @property
    def loss_weights(self) -> LossWeighting:
        return choose_weighting(self.loss_weighting, self.snr_gamma, self.p2_gamma, self.p2_k)

    @property
    def parts(self) -> tuple[str, ...]:
        """What is trained, of PARTS."""
        return tuple(self.train.split("+")) if isinstance(self.train, str) else ()

    @property
    def patches(self) -> bool:
        """Whether the UNet is patched: biases are trained as the constant term of a patched layer."""
        return "geoconv" in self.parts or "bias" in self.parts

    def peak_learning_rate(self, part: str) -> float:
        """A part's own learning rate, else that of all parts, else the default of the part."""
        own = getattr(self, PART_RATES[part]) if part in PART_RATES else None
        default = "taps" if part == "geoconv" and self.geoconv_config().basis == "taps" else part
        return own or self.learning_rate or LEARNING_RATES[default]

    def geoconv_config(self) -> GeoConvConfig:
        return GeoConvConfig(
            encoding="constant" if "bias" in self.parts else self.encoding,
            basis=self.basis,
            shift_range=self.shift_range,
            normalization=self.normalization,
            target_modules=as_tuple(self.target_modules),
            exclude_modules=as_tuple(self.exclude_modules),
            components=("unet",),
        )
