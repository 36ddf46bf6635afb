"""The geometry term as arithmetic: the geometry weights applied to the taps, added to a convolution's output."""

import math

import torch
from torch import Tensor, nn

from .model_call import in_function_transform


def multilinear_grid(weight: Tensor, axes: int) -> Tensor:
    """Multilinear weights [out, terms] as a kernel of two taps an axis, [out, 1, 2, .., 2], over the powers 0 and 1.

    Entry (p_1, .., p_n) multiplies the product of c_d ** p_d; terms that the encoding lacks are 0.
    """
    if weight.shape[1] < 2**axes:  # 1 and the coordinates, which are entries 0, 1, 2 and 4 of the grid
        leading = nn.functional.pad(weight[:, :3], (0, 1))
        weight = leading if axes == 2 else torch.cat([leading, nn.functional.pad(weight[:, 3:], (0, 3))], dim=1)
    return weight.view(-1, 1, *[2] * axes)


def add_constant(output: Tensor, weight: Tensor) -> Tensor:
    """Add one number a filter, weight [out, 1], to `output` [B, out, *L]; overwritten as by `add_separable`."""
    numbers = weight.view(-1, *[1] * (output.dim() - 2))
    if in_function_transform() or (torch.is_grad_enabled() and (output.requires_grad or weight.requires_grad)):
        return output + numbers.to(output.dtype)
    return output.add_(numbers)


DENSE_ELEMENTS = 2**18  # 1 MiB of float32


def prefers_dense(output: Tensor, weight: Tensor, shift: Tensor | None) -> bool:
    """Whether a training step is faster with the channel under all taps written out: in fewer, smaller calls.

    So it is for one shift a batch and no large images. A compiled graph would be made anew at the limit.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or (shift is not None and shift.shape[0] > 1):
        return False
    return math.prod(output.shape[2:]) * math.prod(weight.shape[1:]) <= DENSE_ELEMENTS


def add_dense(output: Tensor, weight: Tensor, taps: Tensor) -> Tensor:
    """Add the response of weight [out, C, *k] to taps [S, pixels, C * prod(k)] to `output` [B, out, *L]."""
    filters, taps = weight.flatten(1), taps.squeeze(0)
    if is_channels_last(output):
        shape = (len(output), *output.shape[2:], len(filters))
        response = torch.matmul(taps, filters.t()).to(output.dtype).view(-1, *shape[1:])
        # Expanded before axes are permuted, so that the backward pass sums over the batch in the order of memory: eight
        # times as fast.
        return output + response.expand(shape).movedim(-1, 1)
    response = torch.matmul(filters, taps.mT).to(output.dtype).view(-1, *output.shape[1:])
    return output + response  # not a view, on which in-place activations would cost copies


def is_channels_last(output: Tensor) -> bool:
    """Whether [B, out, *L], of two or three axes, lies as [B, *L, out] in memory.

    A result that lies otherwise makes the layers after it take other code paths, which round otherwise.
    """
    memory_format = {4: torch.channels_last, 5: torch.channels_last_3d}.get(output.dim())
    if memory_format is None or output.is_contiguous():
        return False
    return output.is_contiguous(memory_format=memory_format)


def add_separable(
    output: Tensor, weight: Tensor, factors: list[tuple[int, list[Tensor]]], powers: bool = False
) -> Tensor:
    """Add sum over terms of (factors x weight) to `output`.

    Args:
        output: [B, out, *L]; overwritten where autograd does not need it.
        weight: [out, channels, *k], float32 or float64.
        factors: pairs (channel, one [S, L_d, k_d] tensor an axis), S = 1 or B.
        powers: each factor holds the powers 0 and 1 of a coordinate, so that its first column is 1.
    """
    if is_channels_last(output):
        # [B, *L, out] in memory: leave all axes but the last for the last product, so that rows are contiguous.
        left = _cat([_outer_product(axes[:-1]) for _, axes in factors], dim=-1)
        parts = [torch.einsum("sxk,o...k->s...xo", axes[-1], weight[:, c]) for c, axes in factors]
        right = _cat([part.flatten(1, -3) for part in parts], dim=1)
        rows = output.movedim(1, -1)
        lines, right = rows.flatten(1, -3).flatten(2), right.flatten(2)
        if powers and left.shape[2] == 2 and prefers_lines(lines, left):
            result = lines.add_(right[:, :1]).addcmul_(left[..., 1:], right[:, 1:])
        else:
            result = _add_product(lines, left, right)
        return result.view(rows.shape).movedim(-1, 1)
    left = _cat([_contract_leading(weight[:, c], axes[:-1]) for c, axes in factors], dim=-1)
    right = _cat([axes[-1] for _, axes in factors], dim=-1).transpose(1, 2)
    lines, left = output.flatten(1, -2), left.flatten(1, -2)
    if powers and prefers_lines(lines, left):
        return lines.add_(left[..., :1]).addcmul_(left[..., 1:], right[:, 1:]).view(output.shape)
    return _add_product(lines, left, right).view(output.shape)


LINE_LENGTH = 64


def prefers_lines(lines: Tensor, weight: Tensor) -> bool:
    """Whether a constant and a slope for each line are added faster, in place, than a product of two columns.

    On a CPU it takes half the time for lines of 64 values and is slower for short ones: a product of two columns spends
    its time on packing. A compiler fuses neither into the convolution.
    """
    if torch.compiler.is_compiling() or lines.dtype != weight.dtype or lines.shape[2] < LINE_LENGTH:
        return False
    if in_function_transform():
        return False
    return not (torch.is_grad_enabled() and (lines.requires_grad or weight.requires_grad))


def _outer_product(axes: list[Tensor]) -> Tensor:
    """The factors of one or two axes, [S, L_d, k_d] each, as one: [S, product of L_d, product of k_d]."""
    if len(axes) == 1:
        return axes[0]
    return torch.einsum("sxa,syb->sxyab", *axes).flatten(3).flatten(1, 2)


def _contract_leading(weight: Tensor, axes: list[Tensor]) -> Tensor:
    """Contract all kernel axes of weight [out, *k] but the last: [S, out, *L, k_n]."""
    if not axes:
        return weight.unsqueeze(0)
    if len(axes) == 1:
        return torch.matmul(axes[0].unsqueeze(1), weight)
    return torch.einsum("sxa,syb,oabc->soxyc", *axes, weight)


def _cat(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim=dim)


def _add_product(output: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """output [B, M, N] + left [S, M, K] @ right [S, K, N]."""
    recorded = torch.is_grad_enabled() and (output.requires_grad or left.requires_grad)
    in_place = not recorded and not in_function_transform()
    if output.dtype != left.dtype:
        samples = max(left.shape[0], right.shape[0])
        response = torch.bmm(left.expand(samples, -1, -1), right.expand(samples, -1, -1))
        return output.add_(response) if in_place else output + response.to(output.dtype)
    if not in_place and left.shape[0] == right.shape[0] == 1:
        return output + torch.bmm(left, right)  # its backward pass adds up the batch before the products
    left, right = left.expand(output.shape[0], -1, -1), right.expand(output.shape[0], -1, -1)
    return output.baddbmm_(left, right) if in_place else torch.baddbmm(output, left, right)
