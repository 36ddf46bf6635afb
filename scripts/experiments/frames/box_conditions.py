"""Two other ways to tell a UNet a box: a token of its coordinates for the cross-attention, and a picture of it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geopos_diffusers.boxes import Box
from geopos_diffusers.finetuning.text_to_image import TextToImage
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.finetuning.trained_parts import load_trained_parts, parameter_groups
from geopos_diffusers.finetuning.training_options import optimisation_option
from geopos_diffusers.pipelines.loading import load_pipeline
from geopos_diffusers.training.optimizers import build_optimizer

CONDITION = "box_condition"  # begins the names of its parameters, and is that of its file
FREQUENCIES = 8
WIDTH = 55  # with it a token costs 14,327 parameters, beside 14,240 of the geometry weights


class BoxCondition(nn.Module):
    """What tells a UNet the box of each image. boxes: [B, 4] in shares of the image, of the present call.

    Guidance calls the UNet with the batch twice over; both halves are told. unguided: a box [4] that the first half,
    the unconditional one, is told in place of its own; None for its own.
    """

    boxes: Tensor
    unguided: Tensor | None = None

    def boxes_of(self, samples: int) -> Tensor:
        if self.unguided is not None:
            return torch.cat([self.unguided.expand_as(self.boxes), self.boxes])
        return self.boxes.repeat(samples // len(self.boxes), 1)

    def change(self, sample: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """The UNet's inputs [B, C, h, w] and [B, L, D], told of the boxes."""
        raise NotImplementedError


class BoxTokens(BoxCondition):
    """A token more for the cross-attention, from Fourier features of the box, as in GLIGEN (arXiv 2301.07093)."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        width = unet.config.cross_attention_dim
        self.layers = nn.Sequential(nn.Linear(8 * FREQUENCIES, WIDTH), nn.SiLU(), nn.Linear(WIDTH, width))
        self.register_buffer("scales", math.pi * 2.0 ** torch.arange(FREQUENCIES), persistent=False)

    def change(self, sample: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        angles = self.boxes_of(len(text)).float()[:, :, None] * self.scales
        token = self.layers(torch.cat([angles.sin(), angles.cos()], 2).flatten(1))
        return sample, torch.cat([text, token[:, None].to(text.dtype)], 1)


class BoxChannel(BoxCondition):
    """A channel more of the input: how much of each latent pixel lies in the box. Its weights begin at zero."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        conv = unet.conv_in
        self.layer = nn.Conv2d(1, conv.out_channels, conv.kernel_size, padding=conv.padding, bias=False)
        nn.init.zeros_(self.layer.weight)
        # Apart from the other channels' weights, so that they can have rates of their own.
        conv.register_forward_hook(lambda conv, args, output: output + self.layer(self.drawn))

    def change(self, sample: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        self.drawn = box_pictures(self.boxes_of(len(sample)).to(sample), *sample.shape[-2:])
        return sample, text


def box_pictures(boxes: Tensor, height: int, width: int) -> Tensor:
    """[B, 1, H, W]: the share of each pixel that lies in the box [B, 4] of its image."""

    def covered(low: Tensor, high: Tensor, size: int) -> Tensor:
        edges = torch.arange(size).to(boxes)
        return (torch.minimum(high[:, None] * size, edges + 1) - torch.maximum(low[:, None] * size, edges)).clamp(0, 1)

    across, down = covered(boxes[:, 0], boxes[:, 2], width), covered(boxes[:, 1], boxes[:, 3], height)
    return (down[:, :, None] * across[:, None, :])[:, None]


def add_condition(unet: Any, kind: type[BoxCondition]) -> BoxCondition:
    """Have each call of a UNet told of the boxes. The condition's weights stay apart from the UNet's."""
    condition = kind(unet)

    def tell(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        sample, text = condition.change(args[0], kwargs["encoder_hidden_states"])
        return (sample, *args[1:]), kwargs | {"encoder_hidden_states": text}

    unet.register_forward_pre_hook(tell, with_kwargs=True)
    return condition


@contextmanager
def told(condition: BoxCondition, boxes: Sequence[Box] | Tensor, unguided: Box | None = None) -> Iterator[None]:
    """Within the block the UNet is told of these boxes, and its unconditional half of the box `unguided`."""
    before = getattr(condition, "boxes", None), condition.unguided
    condition.boxes = torch.as_tensor(boxes)
    condition.unguided = None if unguided is None else torch.tensor(unguided).to(condition.boxes)
    try:
        yield
    finally:
        condition.boxes, condition.unguided = before


@dataclass(kw_only=True)
class BoxArguments(TextToImageArguments):
    """The options of `geopos train text-to-image`, and a rate."""

    box_learning_rate: float | None = optimisation_option(
        None, "peak learning rate of the condition; by default that of the UNet", resume="free", above=0
    )


class ToldOfBoxes(TextToImage):
    """`geopos train text-to-image` of a UNet with a `KIND` of condition. The column "box" holds the boxes."""

    ARGUMENTS = BoxArguments
    KIND: type[BoxCondition]

    def load_pipeline(self) -> Any:
        self.args.frame_column = "box"  # which the options refuse without geometry weights
        return super().load_pipeline()

    def build(self) -> None:
        """With the condition, which is trained whatever else is."""
        super().build()
        self.condition = add_condition(self.pipe.unet, self.KIND).to(self.accelerator.device)
        self.parameters |= {f"{CONDITION}.{name}": value for name, value in self.condition.named_parameters()}

    def optimizer(self) -> torch.optim.Optimizer:
        """With a group of the condition's weights, not decayed, as geometry weights are not."""
        box, whole = [], {}
        for name, parameter in self.parameters.items():
            if name.startswith(f"{CONDITION}."):
                box.append(parameter)
            else:
                whole[name] = parameter
        groups = parameter_groups(whole, self.args)
        rate = self.args.box_learning_rate or groups[0]["peak"]
        groups.append({"params": box, "lr": rate, "weight_decay": 0.0, "part": "box", "peak": rate})
        return build_optimizer(self.args.optimizer, groups, self.args.optimizer_options)

    def prepare_frames(self) -> None:
        """The boxes are no frames here."""

    def begin_frames(self, batch: dict[str, Any]) -> None:
        self.condition.boxes = batch["box"]

    def in_frames(self, batch: dict[str, Any]) -> Any:
        return told(self.condition, batch["box"])

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        super().save(folder, facts)
        save_file(self.condition.state_dict(), folder / f"{CONDITION}.safetensors")


class TokenTraining(ToldOfBoxes):
    KIND = BoxTokens


class ChannelTraining(ToldOfBoxes):
    KIND = BoxChannel


def load_told(model: str, folder: Path, kind: type[BoxCondition]) -> tuple[Any, BoxCondition]:
    """The pipeline with what such a training saved, and its condition."""
    pipe = load_pipeline(model)
    load_trained_parts(pipe, folder)
    condition = add_condition(pipe.unet, kind)
    condition.load_state_dict(load_file(folder / f"{CONDITION}.safetensors"))
    return pipe, condition
