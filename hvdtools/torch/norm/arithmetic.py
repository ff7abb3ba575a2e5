"""The arithmetic of batch normalization over the joined batch of all ranks.

With n values in a channel over all ranks, xhat = (x - mean) / sqrt(variance + eps)
and y = weight * xhat + bias. Each rank's loss counts with weight w, and what
is summed over ranks in backward must count alike: the reducer multiplies this rank's
gradients by its own w afterwards, so that

    dx = weight / sqrt(variance + eps)
         * (dy - sum_r(w_r * S_r) / (w * n) - xhat * sum_r(w_r * Q_r) / (w * n))

with S_r = sum of dy and Q_r = sum of dy * xhat on rank r (Ioffe and Szegedy 2015,
arXiv 1502.03167, section 3, for the case w = 1 everywhere).

The sums travel in float64, a few numbers a channel. The variance comes from a
sum of squares: it is exact to about 1e-16 * (mean / deviation)^2, far below the
rounding of float32 inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import horovod.torch as hvd
import torch
import torch.nn.functional as F
from torch import Tensor

from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.loss_weights import current_weight
from hvdtools.torch.waiting import join_default_stream, wait_for, waiting


@dataclass(frozen=True)
class Moments:
    """Of each channel over all ranks.

    Attributes:
        mean, variance: Shape (C,), float64 for float64 inputs and float32
            otherwise; the variance is the biased one.
        count: Values in a channel, shape (), float64, on the same device.
        counted: Whether this rank's batch is among them.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    counted: bool


@torch.no_grad()
def global_moments(input: Tensor, name: str) -> Moments:
    """Mean and variance of each channel over all ranks; a rank of weight 0 does not count.

    Args:
        input: This rank's batch, shape (N, C, ...); N may be 0.
        name: Of the all-reduce.

    Raises:
        ValueError: On every rank, if there are fewer than 2 values a channel.
    """
    channels = input.size(1)
    count_here = input.numel() // channels if current_weight() != 0 else 0
    sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=input.device)
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    if count_here:
        axes = [0, *range(2, input.dim())]
        of_rank = torch.var_mean(input.to(wide), axes, correction=0)
        variance, mean = (moment.double() for moment in of_rank)
        sums[:channels] = mean * count_here
        sums[channels:-1] = (variance + mean.square()) * count_here
        sums[-1] = count_here
    _sum_over_ranks(sums, name)
    count = sums[-1]
    # Looking at the total makes the host wait for a GPU, and two values are two anywhere.
    if count_here < 2 and count.item() < 2:
        raise ValueError(
            "Expected more than 1 value per channel over all ranks when training, got input size "
            f"{tuple(input.shape)}"
        )
    mean = sums[:channels] / count
    variance = (sums[channels:-1] / count - mean.square()).clamp_min(0)
    return Moments(mean.to(wide), variance.to(wide), count, count_here > 0)


def normalize(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    moments: Moments,
    eps: float,
    name: str,
) -> Tensor:
    """Normalize this rank's batch by the moments of all; shape and dtype stay.

    Args:
        input: Shape (N, C, ...).
        weight, bias: Shape (C,), or None for 1 and 0.
        name: Of the all-reduce in backward.
    """
    apply: Any = _Normalize.apply
    output: Tensor = apply(input, weight, bias, moments, eps, name)
    return output


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        moments: Moments,
        eps: float,
        name: str,
    ) -> Tensor:
        ctx.save_for_backward(input, weight, moments.mean, moments.variance, moments.count)
        ctx.counted, ctx.eps, ctx.name = moments.counted, eps, name
        wide = moments.mean.dtype
        scale = None if weight is None else weight.to(wide)
        shift = None if bias is None else bias.to(wide)
        # torch's kernel for evaluation: normalize by given moments.
        return F.batch_norm(input, moments.mean, moments.variance, scale, shift, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise HvdtoolsError(
                "Second derivatives (create_graph=True) do not pass through a batch-norm layer "
                "that is synchronized over ranks: leave sync_batchnorm=False."
            )
        input, weight, mean, variance, count = ctx.saved_tensors
        wants_input = ctx.needs_input_grad[0]
        own = current_weight()
        own = 1.0 if own is None else own
        if ctx.counted and own == 0:
            raise HvdtoolsError(
                "This rank's backward pass has weight 0, but batch norm counted its batch in the "
                "forward pass: put the forward pass into `with hvt.weight(...)` too."
            )
        scale = torch.ones_like(mean) if weight is None else weight.to(mean.dtype)
        if ctx.counted and own:
            direct, sum_scaled, sum_plain = _direct(
                gradient, input, scale, mean, variance, ctx.eps, wants_input
            )
        else:
            # Whatever comes back to a batch that does not count (NaN too) stays out.
            direct = torch.zeros_like(input) if wants_input else None
            sum_scaled, sum_plain = torch.zeros_like(mean), torch.zeros_like(mean)
        if direct is not None:
            sums = torch.cat([sum_plain, sum_scaled]).double() * own
            _sum_over_ranks(sums, ctx.name)
            if ctx.counted and own:
                plain, scaled = (sums / (own * count)).to(mean.dtype).chunk(2)
                steep = -scale * torch.rsqrt(variance + ctx.eps)
                # steep * (scaled * xhat + plain), by the same kernel.
                direct += F.batch_norm(
                    input, mean, variance, steep * scaled, steep * plain, eps=ctx.eps
                )
        of_weight = sum_scaled if ctx.needs_input_grad[1] else None
        of_bias = sum_plain if ctx.needs_input_grad[2] else None
        return direct, of_weight, of_bias, None, None, None


def _direct(
    gradient: Tensor,
    input: Tensor,
    scale: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    wants_input: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """dx with the moments held fixed, the sum of dy * xhat, and the sum of dy."""
    deviation = torch.rsqrt(variance + eps)  # the GPU kernels read it, the CPU's the variance
    if gradient.stride() != input.stride():  # the GPU kernels want both laid out alike
        gradient = torch.empty_like(input).copy_(gradient)
    kernel = torch.ops.aten.native_batch_norm_backward
    parts: tuple[Tensor | None, Tensor, Tensor] = kernel(
        *(gradient, input, scale, mean, variance, mean, deviation, False, eps),
        [wants_input, True, True],
    )
    return parts


def _sum_over_ranks(sums: Tensor, name: str) -> None:
    with waiting(f"batch-norm statistics ({name})"):
        wait_for(hvd.allreduce_async_(sums, name=name, op=hvd.Sum), on_gpu=sums.is_cuda)
    if sums.is_cuda:
        join_default_stream(sums.device)
