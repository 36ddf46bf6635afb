"""The denoising loss on images that were not trained on: the measure by which runs and learning rates are compared."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import default_collate

from ..errors import ConfigError
from ..images.opening import open_image
from ..pipelines.generation import denoiser_of
from ..training.early_stopping import BestWeights
from ..training.loss_log import VALIDATION_LOSSES, LossLog
from .denoising import default_denoising
from .denoising_loss import spread_losses
from .framing import prepare_image
from .held_out_options import VALIDATION_LOSS
from .inpainting import is_inpainting
from .latents import mean_latents, scale_latents
from .text_conditions import CaptionEncoder, predict
from .validation import evaluating


class HeldOutLoss:
    """A validation: the loss on the same held-out images with the same noise and timesteps each time.

    It leaves no trace in the training. Values go to validation_losses.jsonl in the run's folder too.

    Args:
        data: items that batches are made of, all of which are used.
        prepare(batch): what of a batch can be computed once and kept in memory.
        losses(batch, generator): values by name, [B] each, "validation_loss" among them; all that is random comes from
            the generator, which is on the CPU.
        model: in eval mode meanwhile.
        kind: what the values depend on beside data, seed and weights.
        best: is offered the validation loss, if it goes by that.
        save(folder): writes what is trained, for best/.
    """

    def __init__(
        self,
        data: Any,
        prepare: Callable[[Any], Any],
        losses: Callable[[Any, torch.Generator], dict[str, Tensor]],
        model: nn.Module,
        accelerator: Accelerator,
        folder: str | Path,
        seed: int,
        batch_size: int,
        kind: str,
        best: BestWeights | None,
        save: Callable[[Path], None],
    ) -> None:
        self.data, self.prepare, self.losses, self.model = data, prepare, losses, model
        self.accelerator, self.folder, self.seed, self.batch_size = accelerator, folder, seed, batch_size
        self.best, self.save = best if best is not None and best.measure == VALIDATION_LOSS else None, save
        text = f"{data.fingerprint()} {seed} {batch_size} {kind}"
        self.comparable = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._prepared: list[Any] = []

    def begin(self, step: int) -> None:
        """The training begins, or continues after `step`. On the first process."""
        self.log = LossLog(self.folder, step, VALIDATION_LOSSES)

    def __call__(self, step: int) -> dict[str, float]:
        """Measure. On the first process."""
        found: dict[str, list[Tensor]] = {}
        generator = torch.Generator().manual_seed(self.seed)
        with evaluating(self.model, self.accelerator), torch.no_grad():
            if not self._prepared:
                self._prepared = [self.prepare(batch) for batch in self._batches()]
            for batch in self._prepared:
                for name, values in self.losses(batch, generator).items():
                    found.setdefault(name, []).append(values.double().cpu())
        means = {name: torch.cat(values).mean().item() for name, values in found.items()}
        self.log.append(step=step, **means)
        if self.best is not None:
            self.best.offer(step, means[VALIDATION_LOSS], "lower", self.save, self.comparable)
        return means

    def _batches(self) -> Iterator[Any]:
        """Of neighbouring items with images of one size."""
        waiting: list[Any] = []
        for index in range(len(self.data)):
            item = self.data[index]
            if waiting and (len(waiting) == self.batch_size or waiting[0]["pixels"].shape != item["pixels"].shape):
                yield default_collate(waiting)
                waiting = []
            waiting.append(item)
        yield default_collate(waiting)


def load_images(folder: str | Path, height: int, width: int) -> tuple[Tensor, list[str]]:
    """Images of a folder with metadata.jsonl, scaled and cut out of their middle, and their captions.

    Returns:
        Pixels [N, 3, height, width] in [-1, 1], and N captions.
    """
    folder = Path(folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    side = max(height, width)
    pixels = torch.stack([prepare_image(open_image(folder / row["file_name"]), side)[0] for row in rows])
    top, left = (side - height) // 2, (side - width) // 2
    return pixels[:, :, top : top + height, left : left + width], [row["text"] for row in rows]


@torch.no_grad()
def image_losses(pipe: Any, pixels: Tensor, captions: list[str], seed: int, batch_size: int = 16) -> np.ndarray:
    """Mean squared error of the denoiser's prediction for each image, at a noise level and noise of its own.

    Levels are spread evenly over the images. They and the noise depend on `seed` and the size alone, so that models
    and adapters are compared on the same ones.

    Args:
        pipe: a supported pipeline, on the CPU. pixels: [N, 3, H, W] in [-1, 1].

    Returns:
        [N] losses, not weighted by noise level.

    Raises:
        ConfigError: an inpainting pipeline, whose losses depend on masks too.
    """
    if is_inpainting(pipe):
        raise ConfigError(f"the loss of a {type(pipe).__name__} depends on masks and cannot be measured so")
    model, encode = denoiser_of(pipe), CaptionEncoder(pipe, torch.device("cpu"))
    model.eval()

    def clean(part: slice) -> Tensor:
        return scale_latents(pipe.vae, mean_latents(pipe.vae, pixels[part]))

    def predict_part(part: slice, noisy: Tensor, timesteps: Tensor) -> Tensor:
        return predict(model, noisy, timesteps, encode(captions[part], torch.zeros(len(noisy), 6)))

    return spread_losses(default_denoising(pipe), len(captions), clean, predict_part, seed, batch_size)
