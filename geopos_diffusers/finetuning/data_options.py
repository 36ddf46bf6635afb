"""The options of the images that a fine-tuning script learns from."""

# ruff: noqa: RUF009 - options are dataclass fields
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..errors import ConfigError
from ..training.arguments import option, required
from .training_options import TrainingArguments, speed_option

data_option = partial(option, group="data")


@dataclass(kw_only=True)
class ImageDataArguments(TrainingArguments):
    """Where the images are and how they are prepared."""

    # A resumed run compares the data's own fingerprint instead, whatever its path is.
    dataset: list[str] = required(
        "image folder with metadata.jsonl, Parquet file or Hub data set id, or several",
        resume="free",
        group="data",
        at_least=1,
    )
    dataset_weights: list[float] | None = data_option(
        None, "share of each of several data sets; by default their numbers of images", resume="fixed", above=0
    )
    streaming: bool = data_option(
        False,
        "read .tar (WebDataset) or .parquet files, or a Hub data set, sample after sample; needs max-train-steps",
        resume="free",
    )
    shuffle_buffer: int = data_option(
        1000, "with streaming: samples in memory that the next one is drawn from", resume="free", at_least=1
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
    # These are part of the data's fingerprint.
    aspect_ratio_buckets: bool = data_option(
        False, "give images the sizes of their own aspect ratios, from 1:2 to 2:1, and batches one size", resume="free"
    )
    crop_to: str | None = data_option(
        None, "column of boxes: crop each image to what surrounds its box instead of the centre", resume="free"
    )
    crop_box_format: Literal["xywh", "xyxy"] = data_option(
        "xywh", "boxes are [left, top, width, height] or [left, top, right, bottom], in pixels", resume="free"
    )
    crop_margin: float = data_option(
        0.5, "space on each side of a box, as a share of its longer side", resume="free", at_least=0
    )
    mask_column: str | None = data_option(
        None, "column of masks, or field with their files: where the loss counts most (white) and least", resume="free"
    )
    mask_weight: float = data_option(1.0, "weight of the loss inside the mask", resume="fixed", above=0)
    mask_floor: float = data_option(0.1, "weight of the loss outside the mask", resume="fixed", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_weights is not None and len(self.dataset_weights) != len(self.dataset):
            raise ConfigError(
                f"{len(self.dataset_weights)} dataset_weights are given for {len(self.dataset)} data sets"
            )
        if self.streaming:
            self._check_streaming()
        else:
            self.check_unused(("shuffle_buffer",), "streaming")
        if self.crop_to is None:
            self.check_unused(("crop_box_format", "crop_margin"), "crop_to")
        if self.mask_column is None:
            self.check_unused(("mask_weight", "mask_floor"), "mask_column")

    def _check_streaming(self) -> None:
        if self.max_train_steps is None:
            raise ConfigError("streaming does not know the number of images; give max_train_steps")
        if len(self.dataset) > 1:
            raise ConfigError("streaming reads one data set; give one")
        if self.num_workers:
            raise ConfigError("the order of a stream would depend on the number of workers; give num_workers 0")
        whole = "aspect_ratio_buckets", "max_train_samples", "validation_split_share"
        for name in (*whole, "cache_latents", "cache_text_embeddings"):
            if getattr(self, name, None):
                raise ConfigError(f"{name} needs to know all images before training, so it cannot go with streaming")


@dataclass(kw_only=True)
class CaptionedDataArguments(ImageDataArguments):
    """The same with captions, for latent diffusion models."""

    caption_column: str = data_option(
        "text", "column, or field of metadata.jsonl, that holds the captions", resume="free"
    )
    caption_dropout: float = data_option(
        0.1, "share of captions replaced by the empty one, for guidance", resume="fixed", at_least=0, at_most=1
    )
    flip_captions: bool = data_option(
        False, "with random-flip: exchange left and right in the captions of mirrored images", resume="fixed"
    )
    cache_latents: bool = speed_option(
        False, "encode every image once and read its latents from the disk", resume="free"
    )
    latents_folder: str | None = speed_option(
        None,
        "folder that keeps these latents for later runs with the same images and autoencoder; by default in the run's",
        resume="free",
    )
    cache_text_embeddings: bool = speed_option(
        False,
        "encode every caption once, read the embeddings from the disk, and free the text encoders",
        resume="free",
    )
    text_folder: str | None = speed_option(
        None, "folder that keeps these embeddings for later runs; by default in the run's", resume="free"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latents_folder is not None and not self.cache_latents:
            raise ConfigError("latents_folder keeps cached latents; give cache_latents too")
        if self.text_folder is not None and not self.cache_text_embeddings:
            raise ConfigError("text_folder keeps cached embeddings; give cache_text_embeddings too")
        if self.flip_captions and not self.random_flip:
            raise ConfigError("flip_captions changes the captions of mirrored images; give random_flip too")
        if self.random_flip and self.cache_latents:
            raise ConfigError("random_flip needs the images, so it cannot go with cache_latents")
