"""Fine-tune an autoencoder of images: its decoder, or all of it.

    geopos train vae --config finetune_vae --dataset D --output O

The run's folder holds what that of every fine-tuning does. With --validation-dataset it also has validation-*.png, and
summary.json has the scores of the trained autoencoder beside the untouched one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import l1_loss, mse_loss
from torch.utils.data import Dataset

from ..errors import ConfigError
from ..training.checkpoints import TrainingState
from ..training.gradient_step import GradientStep
from ..training.loop import Validation
from ..training.processes import run_script
from .adversarial_step import AdversarialStep
from .autoencoders import AutoencoderOwner, Autoencoding, decode, encode, load_autoencoder, sample_size
from .engine import finetune
from .held_out_split import evenly_spaced_part
from .image_text_data import ImageTextData
from .loading import load_data
from .patch_discriminator import PatchDiscriminator, check_size
from .task import Task
from .vae_arguments import VaeArguments
from .validation import report_validation_images, untouched_randomness

RECONSTRUCTION_LOSSES = {"l1": l1_loss, "l2": mse_loss}
SCALED_BY = 1.25  # side of the square that random squares are cut out of, to theirs
PICTURES = 6  # rows of a validation image
SHEET_WIDTHS = (640, 1600)  # pixels of a row, least and most


class Squares(Dataset):
    """Images [3, S', S'] that squares of `resolution` pixels a side are cut out of in each step: {"pixels": ...}."""

    def __init__(self, images: ImageTextData, resolution: int) -> None:
        self.images, self.resolution, self.skipped = images, resolution, images.skipped
        self.parts, self.weights, self.buckets = images.parts, images.weights, None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixels": self.images[index]["pixels"]}

    def fingerprint(self) -> str:
        return self.images.fingerprint()


class Vae(Task[VaeArguments]):
    """Reconstruction of images.

    size: pixels a side of the squares that are trained on.
    perceptual: LPIPS, in the loss or the scores. compared: what is scored. discriminator: with gan_weight.
    """

    ARGUMENTS = VaeArguments
    SHARDED = False  # it is encoded and decoded with, and small
    component = "vae"
    pipe: AutoencoderOwner

    def __init__(self, args: VaeArguments, accelerator: Accelerator) -> None:
        super().__init__(args, accelerator)
        self.perceptual: Any = None
        self.compared: Any = None
        self.discriminator: Any = None
        self.scores: dict[str, Any] = {}
        if args.gan_weight and accelerator.mixed_precision == "fp16":
            raise ConfigError(
                "gan_weight has two optimizers, which fp16's loss scaling is not made for; give bf16 or no"
            )

    def load_pipeline(self) -> AutoencoderOwner:
        owner = load_autoencoder(self.args.model)
        if self.accelerator.mixed_precision == "fp16" and owner.vae.config.get("force_upcast", False):
            raise ConfigError("this autoencoder overflows in fp16, as its config says; give bf16 or no")
        if self.args.gradient_checkpointing and not owner.vae._supports_gradient_checkpointing:
            raise ConfigError(f"{type(owner.vae).__name__} has no gradient checkpointing; leave it out")
        return owner

    def build(self) -> None:
        args = self.args
        if args.lpips_network != "none" and (args.lpips_weight or args.validation_dataset):
            from .perceptual_loss import PerceptualLoss  # with `metrics`, which other runs do not need

            with untouched_randomness(self.accelerator):
                self.perceptual = PerceptualLoss(args.lpips_network).to(self.accelerator.device)
        super().build()
        vae = self.pipe.vae
        size = args.resolution or sample_size(vae)
        if size is None:
            raise ConfigError(f"the config of this {type(vae).__name__} names no size of images; give size")
        self.size: int = size
        sampled = self._decodes_samples()
        again = bool(args.latent_consistency_weight)
        self.model = Autoencoding(vae, args.vae_part == "whole", sampled, again)
        if args.gan_weight:
            check_size(self.size, args.gan_layers)
            self.discriminator = PatchDiscriminator(args.gan_channels, args.gan_layers).to(self.accelerator.device)

    @torch.no_grad()
    def _decodes_samples(self) -> bool:
        """Whether latents are sampled in training; raises ConfigError for what this autoencoder cannot do."""
        args, vae = self.args, self.pipe.vae
        blank = torch.zeros(1, 3, self.size, self.size, device=self.accelerator.device)
        vae.eval()
        try:
            with self.accelerator.autocast(), untouched_randomness(self.accelerator):
                latents, distribution = encode(vae, blank)
                images, _ = decode(vae, latents)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"this {type(vae).__name__} cannot take images of {self.size} x {self.size} pixels: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        if images.shape != blank.shape:
            raise ConfigError(
                f"this {type(vae).__name__} makes {' x '.join(map(str, images.shape[1:]))} of 3 x {self.size} x "
                f"{self.size}; give another size"
            )
        for name, wanted in (("kl_weight", args.kl_weight), ("latent sample", args.latent == "sample")):
            if wanted and distribution is None:
                raise ConfigError(f"{name} needs a distribution of latents, which {type(vae).__name__} does not have")
        return distribution is not None and args.latent != "mode"

    def load_data(self) -> "Squares":
        args = self.args
        scaled = self.size
        if args.crop == "random":
            scaled = args.scaled_size or round(self.size * SCALED_BY)
            if scaled < self.size:
                raise ConfigError(f"scaled_size must be at least size, {self.size}; got {scaled}")
        data = load_data(args, scaled, 1, self.accelerator)
        if args.validation_dataset is not None:
            images = load_data(args, self.size, 1, self.accelerator, args.validation_dataset)
            if self.accelerator.is_main_process:
                self.compare_on(cast(ImageTextData, images))
        return Squares(cast(ImageTextData, data), self.size)

    def compare_on(self, images: ImageTextData) -> None:
        """Take some of these images for the scores."""
        from .vae_scores import HeldOutImages

        images = evenly_spaced_part(images, self.args.validation_images)
        pixels = torch.stack([images[index]["pixels"] for index in range(len(images))])
        maps = None if self.perceptual is None else self.perceptual.maps
        with untouched_randomness(self.accelerator):
            self.compared = HeldOutImages(pixels, self.args.ring, maps, kid=self.args.lpips_network == "mobilenet")

    def facts(self) -> dict[str, Any]:
        vae = self.pipe.vae
        facts = {"pipeline": self.pipe.pipeline or "none", "autoencoder": type(vae).__name__}
        if self.perceptual is not None:
            facts["perceptual_distance"] = self.perceptual.name
        if self.discriminator is not None:
            facts["discriminator_parameters"] = sum(value.numel() for value in self.discriminator.parameters())
        return facts

    def prepare(self) -> tuple[dict[str, Parameter], Any]:
        parameters, optimizer = super().prepare()
        if self.discriminator is None:
            return parameters, optimizer
        args = self.args
        own = {f"discriminator.{name}": value for name, value in self.discriminator.named_parameters()}
        rate = args.gan_learning_rate
        group = {"params": [*own.values()], "lr": rate, "peak": rate, "part": "discriminator"}
        second = torch.optim.AdamW([group], betas=(0.5, 0.9), weight_decay=0.0)
        self.discriminator, second = self.accelerator.prepare(self.discriminator, second)
        return parameters | own, [optimizer, second]

    def step(self, state: TrainingState, **options: Any) -> GradientStep:
        if self.discriminator is None:
            return super().step(state, **options)
        return AdversarialStep(
            state,
            self.model,
            self.losses,
            **options,
            compare=self.compare,
            discriminator=self.discriminator,
            weight=self.args.gan_weight,
            first_step=self.args.gan_start_step,
        )

    def prepare_data(self) -> None:
        if self.compared is not None:
            with self.reconstructing():
                self.compared.remember_untouched(self.reconstruct)

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.compare(batch)[0]

    def compare(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The losses of a batch but the discriminator's, its squares, and their reconstructions."""
        args, pixels = self.args, self.squares(batch["pixels"])
        found = self.model(pixels)
        images = found["images"]
        losses = {"reconstruction_loss": RECONSTRUCTION_LOSSES[args.reconstruction_loss](images, pixels)}
        total = losses["reconstruction_loss"]
        if args.lpips_weight:
            losses["lpips_loss"] = self.perceptual(images, pixels)
            total = total + args.lpips_weight * losses["lpips_loss"]
        if args.kl_weight:
            losses["kl_loss"] = found["kl"]
            total = total + args.kl_weight * losses["kl_loss"]
        if "commitment" in found:
            losses["commitment_loss"] = found["commitment"]
            total = total + losses["commitment_loss"]
        if args.latent_consistency_weight:
            losses["consistency_loss"] = found["consistency"]
            total = total + args.latent_consistency_weight * losses["consistency_loss"]
        return {"loss": total, **losses}, pixels, images

    def squares(self, pixels: Tensor) -> Tensor:
        """What is trained on of images [B, 3, S', S']: squares [B, 3, S, S], mirrored where that is asked."""
        args = self.args
        if args.crop == "random":
            # On the CPU, whose generator tells where without waiting for the device.
            corners = torch.randint(pixels.shape[-1] - self.size + 1, (len(pixels), 2)).tolist()
            cut = [
                image[:, y : y + self.size, x : x + self.size] for image, (y, x) in zip(pixels, corners, strict=True)
            ]
            pixels = torch.stack(cut)
        if args.random_flip:
            mirrored = (torch.rand(len(pixels)) < 0.5).to(pixels.device)
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
        return pixels

    def validations(self, save: Callable[[Path], None]) -> list[Validation]:
        if self.args.validation_dataset is None:
            return []
        return [Validation(self.validate, self.args.validation_steps, first=True)]

    def validate(self, step: int) -> dict[str, float]:
        """Score and draw the held-out images."""
        from .vae_scores import logged

        with self.reconstructing():
            self.scores, images = self.compared.compare(self.reconstruct)
        strips, captions = self.compared.strips(images, PICTURES)
        cell = min(max(SHEET_WIDTHS[0], strips[0].width), SHEET_WIDTHS[1])
        report_validation_images(strips, captions, self.accelerator, self.args.output_dir, step, columns=1, cell=cell)
        return logged(self.scores)

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Images [B, 3, S, S] in [-1, 1] through the mode of their latents."""
        return decode(self.pipe.vae, encode(self.pipe.vae, pixels.to(self.accelerator.device))[0])[0]

    @contextmanager
    def reconstructing(self) -> Iterator[None]:
        """Within the block the autoencoder is in eval mode and computes in the run's precision; random numbers leave no
        trace."""
        vae = self.pipe.vae
        modes = {module: module.training for module in vae.modules()}
        vae.eval()
        try:
            with untouched_randomness(self.accelerator), self.accelerator.autocast():
                yield
        finally:
            for module, training in modes.items():
                module.training = training

    def release(self) -> None:
        super().release()
        self.discriminator = None

    def finish(self) -> dict[str, Any]:
        if self.compared is not None and not self.scores:  # of a run that was finished already
            with self.reconstructing():
                self.scores, _ = self.compared.compare(self.reconstruct)
        return {"scores": self.scores} if self.scores else {}


def main(argv: Sequence[str] | None = None) -> None:
    finetune(Vae, argv)


if __name__ == "__main__":  # `geopos train` on several processes
    run_script(main)
