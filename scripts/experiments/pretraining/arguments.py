"""Options of scripts/experiments/pretraining/run.py."""

from dataclasses import dataclass

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.training.arguments import CONTINUED, OVERWRITE_HELP, check_arguments, option, required
from geopos_diffusers.training.learning_rate import Schedule

STAGES = ("all", "vae", "latents", "text", "denoiser", "package")
SAMPLE_PROMPTS = [
    f"a photo of the {view} of a {hand} hand, {fingers}, {tone} skin, on a {background} background"
    for fingers, background in (
        ("a fist", "blue"),
        ("one finger raised", "white"),
        ("two fingers raised", "green"),
        ("three fingers raised", "gray"),
        ("four fingers raised", "purple"),
        ("an open hand", "yellow"),
    )
    for view, hand, tone in (
        ("palm", "left", "light"),
        ("back", "right", "dark"),
        ("palm", "right", "medium"),
        ("back", "left", "brown"),
    )
]


@dataclass
class PretrainingArguments:
    """Train a small Stable Diffusion pipeline from images with captions: autoencoder, text encoder, UNet.

    Raises:
        ConfigError: a value is out of its range, or two options do not fit.
    """

    train_data: str = required(
        "image folder with metadata.jsonl, as `geopos data hands` writes it", resume="free", name="dataset"
    )
    output_dir: str = required(
        f"folder of the run: checkpoints, samples, logs and, in pipeline/, the result; {CONTINUED}",
        resume="free",
        name="output",
    )
    stage: str = option(
        "all", f"the last stage to run, one of {', '.join(STAGES)}; finished stages are not repeated", resume="free"
    )
    data_note: str = option("", "how the training data was made, for the model card", resume="free")
    model_name: str = option("hands64", "what the model card calls the model", resume="free")
    model_note: str = option(
        "A small `StableDiffusionPipeline` that draws hands from captions: how many fingers are raised (0 to 5), palm "
        "or back, skin tone and background colour.",
        "what it draws, for the model card",
        resume="free",
    )
    limits_note: str = option(
        "It knows rendered hands only: upright, palm or back, counting gestures, plain backgrounds of eight colours, "
        "one hand in the picture. Left and right hands were not seen to be told apart.",
        "what it cannot do, for the model card",
        resume="free",
    )
    package_unfinished: bool = option(
        False, "package what there is when the UNet's training ends before its last step", resume="free"
    )
    resolution: int = option(64, "side of the images in pixels, a multiple of 16", resume="fixed", name="size")
    validation_count: int = option(
        256,
        "images at the end of the data that are never trained on",
        resume="fixed",
        name="validation_images",
        at_least=1,
    )
    seed: int = option(0, "seed of the weights, of the data order and of all noise", resume="fixed", at_least=0)
    mixed_precision: str = option(
        "no",
        "no, fp16 or bf16, of text encoder and UNet; of the autoencoder with --vae-mixed-precision",
        resume="fixed",
        group="text encoder",
    )
    report_to: str = option("tensorboard", "an accelerate tracker, or none", resume="free")
    checkpoint_every: int = option(
        500,
        "steps between checkpoints, one of which is kept per stage",
        resume="free",
        name="checkpointing_steps",
        at_least=1,
    )
    sample_every: int = option(
        500, "steps between sample grids and validation losses", resume="free", name="validation_steps", at_least=1
    )
    stop_at_step: int | None = option(None, "end a stage at this step, with a checkpoint, and stop", resume="free")

    vae_channels: list[int] = option(
        [32, 64, 96],
        "channels of the autoencoder, full resolution first",
        resume="fixed",
        group="autoencoder",
        at_least=1,
    )
    vae_latent_channels: int = option(
        8, "channels of the latents, a quarter of the resolution wide", resume="fixed", group="autoencoder"
    )
    vae_steps: int = option(3000, "optimizer steps of the autoencoder", resume="fixed", group="autoencoder", at_least=1)
    vae_batch_size: int = option(
        8, "images a step, over all processes", resume="fixed", group="autoencoder", at_least=1
    )
    vae_crop: int = option(
        48, "side of the random crops that the autoencoder learns from", resume="fixed", group="autoencoder"
    )
    vae_full_steps: int = option(
        500, "last steps of the autoencoder that see whole images", resume="fixed", group="autoencoder"
    )
    vae_init: str | None = option(
        None,
        "folder of an autoencoder of the same shape whose weights to begin with",
        resume="fixed",
        group="autoencoder",
    )
    vae_mixed_precision: bool = option(
        False,
        "let the autoencoder learn, and encode the data, in the mixed precision too",
        resume="fixed",
        group="autoencoder",
    )
    vae_learning_rate: float = option(
        1e-3, "peak, after the warm-up and before the cosine down to 0", resume="fixed", group="autoencoder"
    )
    vae_gradient_weight: float = option(
        1.0, "weight of the differences of neighbouring pixels", resume="fixed", group="autoencoder"
    )
    vae_kl_weight: float = option(
        1e-4, "weight of the KL term, a mean over latent elements", resume="fixed", group="autoencoder"
    )

    unet_channels: list[int] = option(
        [96, 128, 160], "channels of the UNet, full resolution first", resume="fixed", group="UNet", at_least=1
    )
    text_width: int = option(192, "width of the text encoder", resume="fixed", group="text encoder")
    text_layers: int = option(3, "layers of the text encoder", resume="fixed", group="text encoder")
    text_length: int = option(32, "tokens of a caption, start and end included", resume="fixed", group="text encoder")
    text_steps: int = option(
        800,
        "optimizer steps of the text encoder, against the images' latents",
        resume="fixed",
        group="text encoder",
        at_least=1,
    )
    text_batch_size: int = option(
        128,
        "pairs a step, over all processes; each process tells its own pairs apart",
        resume="fixed",
        group="text encoder",
        at_least=1,
    )
    text_learning_rate: float = option(
        1e-3, "peak, after the warm-up and before the cosine down to 0", resume="fixed", group="text encoder"
    )
    wrong_captions: bool = option(
        False,
        "tell each image's caption also from one with another hand, number of fingers, place or view",
        resume="fixed",
        group="text encoder",
    )
    vocabulary_size: int = option(1024, "the most tokens", resume="fixed", group="text encoder")
    denoiser_steps: int = option(6000, "optimizer steps of the UNet", resume="fixed", group="UNet", at_least=1)
    denoiser_init: str | None = option(
        None, "folder of a UNet of the same shape whose weights to begin with", resume="fixed", group="UNet"
    )
    denoiser_batch_size: int = option(
        32, "samples a step, over all processes", resume="fixed", group="UNet", at_least=1
    )
    denoiser_learning_rate: float = option(1e-3, "peak, after the warm-up", resume="fixed", group="UNet")
    denoiser_schedule: Schedule = option(
        "cosine",
        "course of the rate after the warm-up; warmup_stable_decay stays at the peak for the first four fifths of the "
        "steps, so that what is there before is of use and goes on as well later",
        resume="fixed",
        group="UNet",
    )
    caption_dropout: float = option(
        0.1, "share of captions replaced by the empty one, for guidance", resume="fixed", group="UNet", at_least=0
    )
    timestep_shift: float = option(
        1.0, "above 1 trains more on noisy latents, where the layout of a hand is decided", resume="fixed", group="UNet"
    )
    snr_gamma: float | None = option(
        None, "min-SNR weighting; none weights the error of the velocity alike", resume="fixed", group="UNet"
    )

    warmup_steps: int = option(
        200, "steps of linear rise of the learning rate, in every stage", resume="fixed", name="lr_warmup_steps"
    )
    weight_decay: float = option(0.01, "of AdamW", resume="fixed", name="adam_weight_decay")
    ema_decay: float = option(0.999, "of the moving average of the weights, reached after a warm-up", resume="fixed")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm", resume="fixed")
    sample_prompts: list[str] = option(
        SAMPLE_PROMPTS, "of sample grids, eight in a row", resume="free", name="validation_prompts"
    )
    guidance_scale: float = option(2.5, "of sample grids", resume="free", name="validation_guidance_scale")
    inference_steps: int = option(20, "of sample grids", resume="free", name="validation_inference_steps")
    overwrite: bool = option(False, OVERWRITE_HELP, resume="free")

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.stage not in STAGES:
            raise ConfigError(f"stage is {self.stage!r}; it must be one of {', '.join(STAGES)}")
        if self.resolution % 16 or self.vae_crop % 16 or not 16 <= self.vae_crop <= self.resolution:
            raise ConfigError(
                f"size {self.resolution}, vae_crop {self.vae_crop}: both in steps of 16, the crop no larger"
            )
        if self.caption_dropout >= 1:
            raise ConfigError(f"caption_dropout must be below 1; got {self.caption_dropout}")
        if len(self.vae_channels) != 3 or len(self.unet_channels) != 3:
            raise ConfigError("vae_channels and unet_channels need three numbers each")
