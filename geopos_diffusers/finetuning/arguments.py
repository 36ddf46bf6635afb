"""The options of `geopos train`, checked before anything is loaded."""

import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..errors import ConfigError
from ..patching.config import GeoConvConfig
from ..pipelines.loading import DEFAULT_MODEL
from ..training.arguments import option

PARTS = ("geoconv", "bias", "lora", "full")
# Peak learning rates: for each part the best of a sweep on the packaged model in 300 steps (docs/results/
# trained_parts.md). Large models and long runs take less. That of the whole UNet was not swept.
LEARNING_RATES = {"geoconv": 0.3, "taps": 0.3, "bias": 0.95, "lora": 1e-2, "full": 1e-4}

# What may differ between a run and its continuation: none of these changes the losses of a step. (The data's own
# fingerprint is compared instead of its path and columns.)
FREE_ON_RESUME = frozenset(
    {
        "dataset",
        "dataset_split",
        "image_column",
        "caption_column",
        "max_train_samples",
        "output_dir",
        "resume_from_checkpoint",
        "max_train_steps",
        "num_train_epochs",
        # The rates that they amount to are compared instead, and where the schedule ends.
        "learning_rate",
        "geoconv_learning_rate",
        "bias_learning_rate",
        "lora_learning_rate",
        "checkpointing_steps",
        "checkpoints_total_limit",
        "validation_prompts",
        "validation_steps",
        "validation_inference_steps",
        "validation_guidance_scale",
        "report_to",
        "num_workers",
        "gradient_checkpointing",
        "cache_latents",
        "latents_folder",
        "overwrite",
        "dry_run",
    }
)


@dataclass(kw_only=True)
class FinetuningArguments:
    """Fine-tune a text-to-image pipeline on images with captions.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """

    dataset: str = field(
        metadata={"help": "image folder with metadata.jsonl (file_name, text), a Parquet file, or a Hub data set id"}
    )
    output_dir: str = field(metadata={"help": "folder of the run: losses, checkpoints, validation images, final/"})
    model: str = option(DEFAULT_MODEL, "pipeline to fine-tune: a folder, a Hub id, or the name of a packaged one")

    train: str = option(
        "geoconv",
        "what is trained, joined by +: geoconv (geometry weights), bias (a bias for each of the layers that geoconv "
        "would patch), lora, full (the UNet)",
    )
    encoding: str = option("product", "geometry channel: product, squares, sum, cartesian or cartesian_radius")
    basis: str | None = option(None, "geometry weights: multilinear or taps; by default multilinear where there is one")
    shift_range: float = option(0.25, "half the width of the random shift of the coordinates; 0 turns it off")
    normalization: str = option("unit", "scale of the coordinates: unit, aspect or pixel")
    target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "layers to patch: names, name endings, or one regular expression; by default all kernels of 2+ taps"
        },
    )
    exclude_modules: list[str] | None = field(
        default=None, metadata={"help": "layers not to patch, given as target_modules is"}
    )
    components: list[str] | None = field(
        default=None, metadata={"help": "parts of the pipeline to patch; this script trains the unet only"}
    )
    lora_rank: int = option(8, "rank of the LoRA factors")
    lora_alpha: float | None = option(None, "LoRA scale times its rank; by default the rank (scale 1)")
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "layers that get LoRA: names or name endings; by default the attention projections"},
    )

    dataset_split: str = option("train", "split of a Hub data set")
    image_column: str = option("image", "column of images in a Parquet file or Hub data set")
    caption_column: str = option("text", "column, or field of metadata.jsonl, that holds the captions")
    max_train_samples: int | None = option(None, "use the first N images only")
    resolution: int | None = option(None, "images are scaled and centre-cropped to this size; by default the model's")
    random_flip: bool = option(False, "mirror every other image; wrong where captions say left or right")
    caption_dropout: float = option(0.1, "share of captions replaced by the empty one, for classifier-free guidance")
    cache_latents: bool = option(False, "encode every image once and keep its latents in memory")
    latents_folder: str | None = option(
        None, "folder that keeps these latents for later runs with the same images and autoencoder"
    )
    num_workers: int = option(0, "processes that read images beside the training process")

    train_batch_size: int = option(4, "images per step and process")
    gradient_accumulation_steps: int = option(1, "batches added up before each optimizer step")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, more time")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        None,
        "precision of the frozen weights and of the arithmetic; what trains stays in float32; by default accelerate's",
    )
    max_train_steps: int | None = option(None, "optimizer steps in all; this or num_train_epochs is needed")
    num_train_epochs: float | None = option(None, "passes over the data, where max_train_steps is not given")
    learning_rate: float | None = option(
        None, "peak learning rate of every part without one of its own; by default each part's best of a sweep"
    )
    geoconv_learning_rate: float | None = option(None, "peak learning rate of the geometry weights")
    bias_learning_rate: float | None = option(None, "peak learning rate of the biases")
    lora_learning_rate: float | None = option(None, "peak learning rate of the LoRA factors")
    lr_scheduler: Literal["constant", "cosine", "linear"] = option("constant", "its course after the warm-up")
    lr_warmup_steps: int = option(0, "steps over which the learning rate rises linearly from zero")
    lr_schedule_steps: int | None = option(
        None,
        "step at which a cosine or linear schedule ends; by default the run's last. To make a run longer later, "
        "give the longer length from the beginning",
    )
    adam_beta1: float = option(0.9, "AdamW's beta 1")
    adam_beta2: float = option(0.999, "AdamW's beta 2")
    adam_weight_decay: float = option(
        0.01, "AdamW's weight decay of LoRA factors and of the UNet; the others have none"
    )
    adam_epsilon: float = option(1e-8, "AdamW's epsilon")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    snr_gamma: float | None = option(None, "min-SNR-gamma loss weighting (arXiv 2303.09556); 5 in the paper")
    noise_offset: float = option(0.0, "noise that is constant over each channel, for darker and brighter images")
    prediction_type: str | None = option(None, "epsilon, v_prediction or sample; by default what the model predicts")
    use_ema: bool = option(False, "keep a moving average of what is trained, and save that")
    ema_decay: float = option(0.999, "decay of the moving average once it has warmed up")
    seed: int = option(0, "seed of the data order, noise, shifts, timesteps and validation images")

    validation_prompts: list[str] | None = field(
        default=None, metadata={"help": "prompts to draw, as a grid of images, while training"}
    )
    validation_steps: int = option(500, "steps between two grids")
    validation_inference_steps: int = option(25, "denoising steps of each validation image")
    validation_guidance_scale: float | None = option(
        None, "classifier-free guidance of the validation images; by default the model's own, else 5"
    )
    report_to: str = option("tensorboard", "tracker that accelerate knows (tensorboard, wandb, ...), all, or none")
    checkpointing_steps: int = option(500, "steps between two checkpoints; the last step always makes one")
    checkpoints_total_limit: int | None = option(None, "keep only the newest N checkpoints")
    resume_from_checkpoint: str | None = option(None, "checkpoint folder, or latest, to continue from")
    overwrite: bool = option(False, "discard the run that output_dir already holds")
    dry_run: bool = option(False, "load and patch, print what would be trained, and stop")

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("target_modules", "exclude_modules"):
            setattr(self, name, _names_or_expression(getattr(self, name)))
        if self.components not in (None, ["unet"]):
            raise ConfigError(f"this script trains the unet only; components is {self.components}")
        for name in _COUNTS:
            _check(self, name, lambda value: isinstance(value, int) and value >= 1, "a whole number >= 1")
        for name in ("num_workers", "lr_warmup_steps", "seed"):
            _check(self, name, lambda value: isinstance(value, int) and value >= 0, "a whole number >= 0")
        for name in (
            "learning_rate",
            *_PART_RATES.values(),
            "adam_epsilon",
            "max_grad_norm",
            "snr_gamma",
            "lora_alpha",
            "num_train_epochs",
        ):
            _check(self, name, lambda value: _is_finite(value) and value > 0, "a number > 0")
        for name in ("adam_weight_decay", "noise_offset", "validation_guidance_scale"):
            _check(self, name, lambda value: _is_finite(value) and value >= 0, "a number >= 0")
        for name in ("caption_dropout", "ema_decay", "adam_beta1", "adam_beta2"):
            _check(self, name, lambda value: _is_finite(value) and 0 <= value <= 1, "between 0 and 1")
        for name, choices in _CHOICES.items():
            _check(self, name, lambda value, choices=choices: value in choices, f"one of {', '.join(choices)}")
        if self.max_train_steps is None and self.num_train_epochs is None:
            raise ConfigError("give max_train_steps or num_train_epochs")
        if self.latents_folder is not None and not self.cache_latents:
            raise ConfigError("latents_folder keeps cached latents; give cache_latents too")
        self._check_parts()
        if self.random_flip and self.cache_latents:
            raise ConfigError("random_flip needs the images, so it cannot go with cache_latents")
        self.geoconv_config()

    def _check_parts(self) -> None:
        parts = self.parts
        if not parts or set(parts) - set(PARTS) or len(set(parts)) < len(parts):
            raise ConfigError(f"train must be one or more of {', '.join(PARTS)}, joined by +; got {self.train!r}")
        for first, second, reason in _EXCLUSIVE:
            if first in parts and second in parts:
                raise ConfigError(f"train cannot be {self.train}: {reason}")
        if "bias" in parts and (self.encoding, self.basis) != ("product", None):
            raise ConfigError("encoding and basis are options of geoconv; train=bias has no coordinates")
        for part, name in _PART_RATES.items():
            if part not in parts and getattr(self, name) is not None:
                raise ConfigError(f"{name} is given, but train={self.train} trains no {part}")

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
        own = getattr(self, _PART_RATES[part]) if part in _PART_RATES else None
        default = "taps" if part == "geoconv" and self.geoconv_config().basis == "taps" else part
        return own or self.learning_rate or LEARNING_RATES[default]

    def geoconv_config(self) -> GeoConvConfig:
        return GeoConvConfig(
            encoding="constant" if "bias" in self.parts else self.encoding,
            basis=self.basis,
            shift_range=self.shift_range,
            normalization=self.normalization,
            target_modules=self.target_modules,
            exclude_modules=self.exclude_modules,
            components=("unet",),
        )

    def fixed_settings(self) -> dict[str, Any]:
        """The settings that a continued run must share with its beginning."""
        return {name: value for name, value in asdict(self).items() if name not in FREE_ON_RESUME}


_PART_RATES = {part: f"{part}_learning_rate" for part in ("geoconv", "bias", "lora")}
_EXCLUSIVE = (
    ("geoconv", "bias", "the geometry weights hold each layer's bias as their constant term; leave bias out"),
    ("bias", "full", "the whole UNet holds its biases; leave bias out"),
    ("lora", "full", "LoRA factors add nothing to a UNet that is trained whole; leave lora out"),
)
_COUNTS = (
    "lr_schedule_steps",
    "lora_rank",
    "max_train_samples",
    "resolution",
    "train_batch_size",
    "gradient_accumulation_steps",
    "max_train_steps",
    "validation_steps",
    "validation_inference_steps",
    "checkpointing_steps",
    "checkpoints_total_limit",
)
_CHOICES = {
    "mixed_precision": ("no", "fp16", "bf16"),
    "lr_scheduler": ("constant", "cosine", "linear"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
}


def _check_types(arguments: FinetuningArguments) -> None:
    """A YAML file may hold anything: a single text stands for a list of one, other types are refused."""
    for known in fields(arguments):
        value = getattr(arguments, known.name)
        if known.name in _LISTS:
            value = [value] if isinstance(value, str) and known.name not in _LAYER_CHOICES else value
            setattr(arguments, known.name, value)
            accepted = value is None or (isinstance(value, (list, str)) and all(isinstance(i, str) for i in value))
            if not accepted or (value is not None and not value):
                raise ConfigError(f"{known.name} must be a list of texts; got {value!r}")
        elif isinstance(known.default, bool) and not isinstance(value, bool):
            raise ConfigError(f"{known.name} must be true or false; got {value!r}")
        elif known.name in ("dataset", "output_dir", "model") and not (isinstance(value, str) and value):
            raise ConfigError(f"{known.name} must be a name or path; got {value!r}")


_LAYER_CHOICES = ("target_modules", "exclude_modules")
_LISTS = (*_LAYER_CHOICES, "components", "lora_target_modules", "validation_prompts")


def _check(arguments: FinetuningArguments, name: str, accepts, expected: str) -> None:
    value = getattr(arguments, name)
    optional = type(arguments).__dataclass_fields__[name].default is None
    if not (value is None and optional) and (isinstance(value, bool) or not accepts(value)):
        raise ConfigError(f"{name} must be {expected}; got {value!r}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _names_or_expression(value: list[str] | str | None) -> list[str] | str | None:
    """A single value with a character that no layer name has is a regular expression."""
    if isinstance(value, list) and len(value) == 1 and re.search(r"[^\w.]", value[0]):
        return value[0]
    return value
