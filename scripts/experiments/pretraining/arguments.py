"""Options of scripts/experiments/pretraining/run.py."""

from dataclasses import dataclass, field

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.training.arguments import option

STAGES = ("all", "vae", "latents", "text", "denoiser", "package")


@dataclass
class PretrainingArguments:
    """Everything that a run needs; a checkpoint is only continued under the same values."""

    train_data: str = field(metadata={"help": "image folder with metadata.jsonl, as `geopos data hands` writes it"})
    output_dir: str = field(metadata={"help": "run folder: checkpoints, samples, logs and, in pipeline/, the result"})
    stage: str = option("all", f"the last stage to run, one of {', '.join(STAGES)}; finished stages are not repeated")
    data_note: str = option("", "how the training data was made, for the model card")
    resolution: int = option(64, "side of the images in pixels, a multiple of 16")
    validation_count: int = option(256, "images at the end of the data that are never trained on")
    seed: int = option(0, "seed of the weights, of the data order and of all noise")
    mixed_precision: str = option(
        "no", "no, fp16 or bf16, of text encoder and UNet; the autoencoder learns in full precision"
    )
    report_to: str = option("tensorboard", "an accelerate tracker, or none")
    checkpoint_every: int = option(500, "steps between checkpoints, one of which is kept per stage")
    sample_every: int = option(500, "steps between sample grids and validation losses")
    stop_at_step: int | None = option(None, "end a stage at this step, with a checkpoint, and stop")

    vae_channels: list[int] = field(
        default_factory=lambda: [32, 64, 96], metadata={"help": "channels of the autoencoder, full resolution first"}
    )
    vae_latent_channels: int = option(8, "channels of the latents, a quarter of the resolution wide")
    vae_steps: int = option(3000, "optimizer steps of the autoencoder")
    vae_batch_size: int = option(8, "images a step, over all processes")
    vae_crop: int = option(48, "side of the random crops that the autoencoder learns from")
    vae_full_steps: int = option(500, "last steps of the autoencoder that see whole images")
    vae_learning_rate: float = option(1e-3, "peak, after the warm-up and before the cosine down to 0")
    vae_gradient_weight: float = option(1.0, "weight of the differences of neighbouring pixels")
    vae_kl_weight: float = option(1e-4, "weight of the KL term, a mean over latent elements")

    unet_channels: list[int] = field(
        default_factory=lambda: [96, 128, 160], metadata={"help": "channels of the UNet, full resolution first"}
    )
    text_width: int = option(192, "width of the text encoder")
    text_layers: int = option(3, "layers of the text encoder")
    text_length: int = option(32, "tokens of a caption, start and end included")
    text_steps: int = option(800, "optimizer steps of the text encoder, against the images' latents")
    text_batch_size: int = option(128, "pairs a step, over all processes; each process tells its own pairs apart")
    text_learning_rate: float = option(1e-3, "peak, after the warm-up and before the cosine down to 0")
    vocabulary_size: int = option(1024, "the most tokens")
    denoiser_steps: int = option(6000, "optimizer steps of the UNet")
    denoiser_init: str | None = option(None, "folder of a UNet of the same shape whose weights to begin with")
    denoiser_batch_size: int = option(32, "samples a step, over all processes")
    denoiser_learning_rate: float = option(1e-3, "peak, after the warm-up and before the cosine down to 0")
    caption_dropout: float = option(0.1, "share of captions replaced by the empty one, for guidance")
    timestep_shift: float = option(1.0, "above 1 trains more on noisy latents, where the layout of a hand is decided")
    snr_gamma: float | None = option(None, "min-SNR weighting; none weights the error of the velocity alike")

    warmup_steps: int = option(200, "steps of linear rise of the learning rate, in every stage")
    weight_decay: float = option(0.01, "of AdamW")
    ema_decay: float = option(0.999, "of the moving average of the weights, reached after a warm-up")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    guidance_scale: float = option(2.5, "of sample grids")
    inference_steps: int = option(20, "of sample grids")

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ConfigError(f"stage is {self.stage!r}; it must be one of {', '.join(STAGES)}")
        if self.resolution % 16 or self.vae_crop % 16 or not 16 <= self.vae_crop <= self.resolution:
            raise ConfigError(
                f"resolution {self.resolution}, vae_crop {self.vae_crop}: both in steps of 16, the crop no larger"
            )
        for name in (
            "vae_steps",
            "vae_batch_size",
            "text_steps",
            "text_batch_size",
            "denoiser_steps",
            "denoiser_batch_size",
            "validation_count",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.caption_dropout < 1:
            raise ConfigError(f"caption_dropout is {self.caption_dropout}; it must be at least 0 and below 1")
        if len(self.vae_channels) != 3 or len(self.unet_channels) != 3:
            raise ConfigError("vae_channels and unet_channels need three numbers each")
