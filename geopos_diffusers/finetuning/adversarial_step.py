"""An optimizer step of a model that is trained against a discriminator, each with its own optimizer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..training.gradient_step import GradientStep, backward
from .patch_discriminator import discriminator_loss, generator_loss


@dataclass(kw_only=True)
class AdversarialStep(GradientStep):
    """As `GradientStep`, but for two optimizers: the state's first is the model's, its second the discriminator's.

    compare(batch): as `losses`, with the real images and their reconstructions, [B, 3, H, W].
    discriminator: as `accelerator.prepare` returned it. weight: of its verdict in the model's loss.
    first_step: before it there is no discriminator.
    """

    compare: Callable[[Any], tuple[dict[str, Tensor], Tensor, Tensor]]
    discriminator: nn.Module
    weight: float
    first_step: int = 0

    def __call__(self, step: int) -> dict[str, float | Tensor]:
        """Returns the mean losses over batches, the learning rates, and the norm of the model's gradients."""
        accelerator = self.state.accelerator
        optimizers = list(self.state.optimizer)
        if self._batches is None:
            self._batches = iter(self.batches(step))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(group, step)
        plays = step >= self.first_step
        if not plays:
            del optimizers[1]
        count, norms = accelerator.gradient_accumulation_steps, [torch.zeros(())]
        sums: dict[str, Any] = {}
        for _ in range(count):
            batch = next(self._batches)
            with accelerator.accumulate(self.model, self.discriminator):
                losses, real, fake = self.compare(batch)
                if plays:
                    losses["generator_loss"] = generator_loss(self._judge(fake))
                    losses["loss"] = losses["loss"] + self.weight * losses["generator_loss"]
                backward(accelerator, losses["loss"] / count)
                if plays:
                    # In one call, after which several processes exchange the gradients.
                    judged = self.discriminator(torch.cat([real, fake.detach()])).float()
                    losses["discriminator_loss"] = discriminator_loss(*judged.chunk(2))
                    backward(accelerator, losses["discriminator_loss"] / count)
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach() / count
                if accelerator.sync_gradients:
                    norms = [accelerator.clip_grad_norm_(parameters_of(one), self.max_grad_norm) for one in optimizers]
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
        rates = {
            f"learning_rate_{group['part']}": group["lr"]
            for optimizer in optimizers
            for group in optimizer.param_groups
        }
        return {**sums, **rates, "grad_norm": norms[0]}

    def _judge(self, images: Tensor) -> Tensor:
        """The discriminator's values, whose gradients reach the images and not its own parameters."""
        network = self.state.accelerator.unwrap_model(self.discriminator)
        network.requires_grad_(False)
        try:
            with self.state.accelerator.autocast():
                return network(images).float()
        finally:
            network.requires_grad_(True)


def parameters_of(optimizer: Any) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
