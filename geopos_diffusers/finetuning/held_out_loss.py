"""The denoising loss on images that were not trained on: the measure by which runs and learning rates are compared."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import default_collate

from ..errors import ConfigError
from ..images.metadata import METADATA, place_of_line
from ..images.opening import open_image
from ..patching.framing import geoconv_frames
from ..pipelines.generation import denoiser_of
from ..training.early_stopping import BestWeights
from ..training.loss_log import VALIDATION_LOSSES, LossLog
from .denoising import default_denoising
from .denoising_loss import spread_losses
from .framing import box_in_crop, frame_centre, prepare_image, shares_of_row
from .held_out_options import VALIDATION_LOSS
from .inpainting import is_inpainting
from .latents import mean_latents, scale_latents
from .text_conditions import CaptionEncoder, predict
from .training_frames import frames_of_boxes
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
    pixels, captions, _ = load_framed_images(folder, height, width)
    return pixels, captions


def load_framed_images(
    folder: str | Path, height: int, width: int, column: str | None = None
) -> tuple[Tensor, list[str], Tensor]:
    """The same with the boxes [N, 4] of `column`, in shares of what is cut out; see `framing.box_in_crop`.

    Raises:
        DataError: a box that is not in shares of the image.
    """
    folder, side = Path(folder), max(height, width)
    lines = (folder / METADATA).read_text(encoding="utf-8").splitlines()
    top, left = (side - height) // 2, (side - width) // 2
    pixels, captions, boxes = [], [], []
    for number, line in enumerate(lines, 1):
        row = json.loads(line)
        image = open_image(folder / row["file_name"])
        pixels.append(prepare_image(image, side)[0][:, top : top + height, left : left + width])
        captions.append(row["text"])
        place = place_of_line(folder / METADATA, number)
        crop = frame_centre(image.size, (side, side))
        crop = replace(crop, left=crop.left + left, top=crop.top + top, size=(height, width))
        boxes.append(box_in_crop(crop, shares_of_row(row, column, place) if column else None))
    return torch.stack(pixels), captions, torch.stack(boxes)


@torch.no_grad()
def image_losses(
    pipe: Any, pixels: Tensor, captions: list[str], seed: int, batch_size: int = 16, boxes: Tensor | None = None
) -> np.ndarray:
    """Mean squared error of the denoiser's prediction for each image, at a noise level and noise of its own.

    Levels are spread evenly over the images. They and the noise depend on `seed` and the size alone, so that models
    and adapters are compared on the same ones.

    Args:
        pipe: a supported pipeline, on the CPU. pixels: [N, 3, H, W] in [-1, 1].
        boxes: [N, 4] in shares of the images, the frames that a patched denoiser works in; NaN for its default frame.

    Returns:
        [N] losses, not weighted by noise level.

    Raises:
        ConfigError: an inpainting pipeline, whose losses depend on masks too.
    """
    if is_inpainting(pipe):
        raise ConfigError(f"the loss of a {type(pipe).__name__} depends on masks and cannot be measured so")
    model, encode = denoiser_of(pipe), CaptionEncoder(pipe, torch.device("cpu"))
    model.eval()
    frames = None if boxes is None else frames_of_boxes(model, boxes)

    def clean(part: slice) -> Tensor:
        return scale_latents(pipe.vae, mean_latents(pipe.vae, pixels[part]))

    def predict_part(part: slice, noisy: Tensor, timesteps: Tensor) -> Tensor:
        with nullcontext() if frames is None else geoconv_frames(model, frames[part]):
            return predict(model, noisy, timesteps, encode(captions[part], torch.zeros(len(noisy), 6)))

    return spread_losses(default_denoising(pipe), len(captions), clean, predict_part, seed, batch_size)
