"""The same training, run by N ranks or by one process on the joined batch.

A case is written once against a `World`. In `Ranks` each rank computes the loss
of its own part and hvdtools averages the gradients; in `Joined` one process
computes the loss of all parts. Whatever the optimizer does, the weights must
come out equal.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

BATCH = 6
WIDTH = 5

LossOfPart = Callable[[Tensor, Tensor, int], Tensor]


def part(step: int, rank: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rank `rank`'s inputs (BATCH, WIDTH) and targets (BATCH, 1), on the default device."""
    generator = torch.Generator("cpu").manual_seed(1000 * step + rank)
    inputs, targets = (
        torch.randn(BATCH, columns, generator=generator, dtype=torch.float64, device="cpu")
        for columns in (WIDTH, 1)
    )
    device = torch.get_default_device()
    return inputs.to(device, dtype), targets.to(device, dtype)


class Joined:
    """One process that sees every rank's part.

    With `split` the parts go through the model one by one and their losses are
    averaged, for losses that depend on the rank.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: int) -> None:
        pass

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def compile(self, model: nn.Module) -> None:
        pass

    def loss(
        self, step: int, dtype: torch.dtype, loss_of_part: LossOfPart, *, split: bool = False
    ) -> Tensor:
        parts = [part(step, rank, dtype) for rank in range(self.size)]
        if split:
            losses = [loss_of_part(x, y, rank) for rank, (x, y) in enumerate(parts)]
            return torch.stack(losses).mean()
        inputs, targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return loss_of_part(inputs, targets, 0)

    def backward_of_parts(
        self, model: nn.Module, step: int, dtype: torch.dtype, loss_of_part: LossOfPart
    ) -> None:
        """Each part's own backward, then the mean of their gradients.

        For arithmetic that rounds differently when the batch or the scale of
        the loss changes (autocast), where a mean of losses is another sum.
        """
        gradients = []
        for rank in range(self.size):
            model.zero_grad()
            loss_of_part(*part(step, rank, dtype), rank).backward()
            gradients.append([p.grad for p in model.parameters()])
        for parameter, parts in zip(model.parameters(), zip(*gradients, strict=True), strict=True):
            parameter.grad = None if parts[0] is None else torch.stack(parts).mean(0)


class Ranks:
    """This process is one of several; hvdtools joins them."""

    def __init__(self) -> None:
        import hvdtools.torch as hvt

        self.hvt = hvt
        self.topology = hvt.init()
        self.size = self.topology.size

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: int) -> None:
        # Small enough for several buckets in the smallest model.
        same = self.hvt.prepare(model, optimizer, bucket_mib=0.0003, **options)
        assert same[0] is model and same[1] is optimizer

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return self.hvt.no_sync(model)

    def compile(self, model: nn.Module) -> None:
        self.hvt.compile(model, region_mib=0.0003, backend="aot_eager")

    def loss(
        self, step: int, dtype: torch.dtype, loss_of_part: LossOfPart, *, split: bool = False
    ) -> Tensor:
        rank = self.topology.rank
        return loss_of_part(*part(step, rank, dtype), rank)

    def backward_of_parts(
        self, model: nn.Module, step: int, dtype: torch.dtype, loss_of_part: LossOfPart
    ) -> None:
        self.loss(step, dtype, loss_of_part).backward()


World = Joined | Ranks
