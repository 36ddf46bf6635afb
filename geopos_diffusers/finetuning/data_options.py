"""The options of the images that a fine-tuning script learns from."""

from dataclasses import dataclass
from functools import partial

from ..errors import ConfigError
from ..training.arguments import option, required
from .training_options import TrainingArguments, speed_option

data_option = partial(option, group="data")


@dataclass(kw_only=True)
class ImageDataArguments(TrainingArguments):
    """Where the images are and how they are prepared."""

    # A resumed run compares the data's own fingerprint instead, whatever its path and columns are.
    dataset: str = required(
        "image folder with metadata.jsonl, Parquet file, or Hub data set id", resume="free", group="data", at_least=1
    )
    dataset_split: str = data_option("train", "split of a Hub data set", resume="free")
    image_column: str = data_option("image", "column of images in a Parquet file or Hub data set", resume="free")
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


@dataclass(kw_only=True)
class CaptionedDataArguments(ImageDataArguments):
    """The same with captions, for latent diffusion models."""

    caption_column: str = data_option(
        "text", "column, or field of metadata.jsonl, that holds the captions", resume="free"
    )
    caption_dropout: float = data_option(
        0.1, "share of captions replaced by the empty one, for guidance", resume="fixed", at_least=0, at_most=1
    )
    cache_latents: bool = speed_option(False, "encode every image once and keep its latents in memory", resume="free")
    cache_text_embeddings: bool = speed_option(
        False, "encode every caption once and free the text encoders before training", resume="free"
    )
    latents_folder: str | None = speed_option(
        None, "folder that keeps these latents for later runs with the same images and autoencoder", resume="free"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latents_folder is not None and not self.cache_latents:
            raise ConfigError("latents_folder keeps cached latents; give cache_latents too")
        if self.random_flip and self.cache_latents:
            raise ConfigError("random_flip needs the images, so it cannot go with cache_latents")
