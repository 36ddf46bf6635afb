"""The options of `geopos train vae`, checked before anything is loaded."""

# ruff: noqa: RUF009 - options are dataclass fields
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import ConfigError
from ..patching.config import GeoConvConfig, name_matches
from ..pipelines.loading import DEFAULT_MODEL
from ..training.arguments import option, required
from .autoencoder_parts import is_decoding, outside_the_decoder
from .data_options import ImageDataArguments, data_option
from .part_options import PartArguments, as_tuple, trained_option
from .training_options import validation_option

if TYPE_CHECKING:
    from torch import nn

loss_option = partial(option, group="loss")
# Peak learning rates: the best of a sweep of the packaged decoder on photographs in 80 steps (docs/results/
# vae_decoder.md; LoRA at rank 1). Of the whole decoder it is the rate below the best, above which training fails.
# Taps were not swept. Large models and long runs take less.
LEARNING_RATES = {"geoconv": 3e-2, "taps": 3e-2, "bias": 3e-1, "lora": 3e-2, "full": 1e-3}
GAN_OPTIONS = ("gan_start_step", "gan_learning_rate", "gan_channels", "gan_layers")


@dataclass(kw_only=True)
class VaeArguments(PartArguments, ImageDataArguments):
    """Fine-tune the decoder of an autoencoder, or all of it, on images without captions.

    Raises:
        ConfigError: a value is out of range, or two options cannot go together.
    """

    COMPONENTS: ClassVar[tuple[str, ...]] = ("vae",)
    DEFAULT_RATES: ClassVar[dict[str, float]] = LEARNING_RATES
    GROUPS: ClassVar[tuple[str, ...]] = (
        "data", "what is trained", "loss", "optimisation", "memory and speed", "validation", "saving and resuming",
    )  # fmt: skip

    model: str = trained_option(
        DEFAULT_MODEL,
        "pipeline with a vae, or an autoencoder alone: a folder, a Hub id, or a packaged pipeline",
        resume="fixed",
        common=True,
        at_least=1,
    )
    vae_part: Literal["decoder", "whole"] = trained_option(
        "decoder",
        "decoder: the encoder and the codebook stay as they are, so latents keep their meaning; whole: all layers, "
        "after which a denoiser has to be trained anew",
        resume="fixed",
        common=True,
    )
    lora_target_modules: list[str] | None = trained_option(
        None,
        "layers that get LoRA: names or name endings; by default the convolutions that geoconv would patch",
        resume="fixed",
    )
    # A resumed run compares the data's own fingerprint instead.
    dataset: list[str] = required(
        "folder of images, Parquet file, or Hub data set id; or several of them",
        resume="free",
        group="data",
        at_least=1,
    )
    resolution: int | None = data_option(
        None,
        "pixels a side of the squares that are trained on and scored; by default the model's",
        resume="fixed",
        name="size",
        common=True,
        at_least=8,
    )
    crop: Literal["center", "random"] = data_option(
        "center", "where squares are cut out; random: anew at each step", resume="fixed", common=True
    )
    scaled_size: int | None = data_option(
        None,
        "pixels that the shorter side is scaled to before a random square is cut out of the middle square of that "
        "size; by default a quarter more than size",
        resume="fixed",
        at_least=8,
    )
    random_flip: bool = data_option(False, "mirror every other image", resume="fixed")
    reconstruction_loss: Literal["l1", "l2"] = loss_option(
        "l1", "mean absolute or squared difference of pixels in [-1, 1]", resume="fixed", common=True
    )
    lpips_weight: float = loss_option(
        0.0, "weight of the perceptual distance (LPIPS, arXiv 1801.03924)", resume="fixed", common=True, at_least=0
    )
    lpips_network: Literal["mobilenet", "alex", "vgg", "none"] = loss_option(
        "mobilenet",
        "its network, in the loss and in validation. mobilenet: MobileNetV2 with uniform weights, a download of 13 MB; "
        "its values are not those of papers. alex, vgg: theirs, by torchmetrics, torchvision and its download. none: "
        "no perceptual distance",
        resume="fixed",
    )
    latent: Literal["mode", "sample"] | None = loss_option(
        None,
        "what is decoded while training: the mode of the latents' distribution, or a sample of it; by default a sample "
        "where there is a distribution. Validation decodes the mode",
        resume="fixed",
    )
    kl_weight: float = loss_option(
        0.0,
        "with vae-part whole, weight of the KL divergence, summed over an image's latents (1e-6 is usual)",
        resume="fixed",
        at_least=0,
    )
    latent_consistency_weight: float = loss_option(
        0.0,
        "with vae-part decoder, weight of the mean squared difference of the latents to those of the reconstruction",
        resume="fixed",
        at_least=0,
    )
    gan_weight: float = loss_option(
        0.0, "weight of the hinge loss against a discriminator of patches", resume="fixed", at_least=0
    )
    gan_start_step: int = loss_option(
        0, "step at which the discriminator begins to train and to count", resume="fixed", at_least=0
    )
    gan_learning_rate: float = loss_option(2e-4, "peak learning rate of the discriminator", resume="fixed", above=0)
    gan_channels: int = loss_option(
        64, "channels of its first layer, a multiple of 8; each layer doubles them", resume="fixed", at_least=8
    )
    gan_layers: int = loss_option(
        3, "its layers of stride 2: a patch of 3 of them is 70 pixels a side", resume="fixed", at_least=1
    )
    validation_dataset: str | None = validation_option(
        None,
        "images that the trained and the untouched autoencoder are compared on, given as dataset is",
        resume="free",
        common=True,
        at_least=1,
    )
    validation_images: int = validation_option(64, "use at most N of them, evenly spaced", resume="free", at_least=1)
    ring: int = validation_option(
        16,
        "width of the border that is scored apart from the centre, in pixels of a 256 px image: 4 px at 64",
        resume="free",
        at_least=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("streaming", "aspect_ratio_buckets", "mask_column"):
            if getattr(self, name):
                raise ConfigError(f"{name} is not for autoencoders, which learn from squares of all images alike")
        whole = self.vae_part == "whole"
        if self.kl_weight and not whole:
            raise ConfigError("kl_weight acts on the encoder, which vae_part=decoder leaves as it is")
        if self.latent_consistency_weight and whole:
            raise ConfigError("latent_consistency_weight needs an encoder that stays as it is: vae_part=decoder")
        if self.lpips_weight and self.lpips_network == "none":
            raise ConfigError("lpips_weight needs an lpips_network; got none")
        if self.scaled_size is not None and self.crop != "random":
            raise ConfigError("scaled_size is an option of crop=random")
        if not self.gan_weight:
            self.check_unused(GAN_OPTIONS, "gan_weight")
        if self.gan_channels % 8:
            raise ConfigError(f"gan_channels must be a multiple of 8; got {self.gan_channels}")

    def geoconv_config(self, component: str | None = None) -> GeoConvConfig:
        """The surgery on the autoencoder, or on its decoder alone."""
        config = super().geoconv_config(component)
        if self.vae_part == "whole":
            return config
        return replace(config, exclude_modules=outside_the_decoder(config.exclude_modules))

    def trains_whole(self, name: str) -> bool:
        return self.vae_part == "whole" or is_decoding(name)

    def lora_targets(self, model: "nn.Module") -> list[str]:
        """Full names: of the layers that geoconv would patch, or of those that were named, within the trained part.

        LoRA cannot factor convolutions of channels apart; by default they have none.
        """
        from ..patching.targets import convolutions, reason_not_meant

        if self.lora_target_modules is None:
            config, layers = self.geoconv_config(), convolutions(model)
            return [name for name, layer in layers if layer.groups == 1 and not reason_not_meant(name, layer, config)]
        named = as_tuple(self.lora_target_modules) or ()
        found = [name for name, _ in model.named_modules() if name_matches(name, named) and self.trains_whole(name)]
        if not found:
            raise ConfigError(
                f"lora_target_modules {', '.join(named)} names no layer of what vae_part={self.vae_part} trains"
            )
        return found
