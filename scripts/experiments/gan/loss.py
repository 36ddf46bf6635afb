"""The losses of the GAN, on the discriminator's logits of "real"."""

from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross entropy of logits [B, 1] of real and of generated images (arXiv 1406.2661, equation 1)."""
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """The non-saturating loss of logits [B, 1] of generated images (arXiv 1406.2661, end of section 3)."""
    return softplus(-fake).mean()
