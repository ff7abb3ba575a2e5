"""The same training, run by N ranks or by one process on the joined batch.

A training is written once against a `World`. In `ThisRank` each rank computes the loss of its own
part and hvdtools averages the gradients; in `OneProcess` one process, with PyTorch alone, computes
the loss of all parts. Whatever the optimizer does, the weights must come out equal.

Everything is on PyTorch's default device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 6
WIDTH = 5


@dataclass(frozen=True)
class Part:
    """What one rank sees in one step: inputs (rows, WIDTH), targets and mask (rows, 1).

    The mask is 1 in the rows that count.
    """

    rank: int
    inputs: Tensor
    targets: Tensor
    mask: Tensor

    @property
    def count(self) -> float:
        return self.mask.sum().item()


LossOfPart = Callable[[Part], Tensor]


def samples(rows: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs and targets on the CPU, so that they are the same for every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    inputs, targets = (
        torch.randn(rows, columns, generator=generator, dtype=dtype, device="cpu")
        for columns in (WIDTH, 1)
    )
    return inputs, targets


def part_of(rank: int, inputs: Tensor, targets: Tensor, dtype: torch.dtype) -> Part:
    """On the default device; every row counts."""
    inputs, targets = (rows.to(torch.get_default_device(), dtype) for rows in (inputs, targets))
    return Part(rank, inputs, targets, torch.ones_like(targets))


def even_part(step: int, rank: int, dtype: torch.dtype) -> Part:
    return part_of(rank, *samples(BATCH, 1000 * step + rank, torch.float64), dtype)


def masked_part(step: int, rank: int, *, all_count: bool) -> Part:
    """Unless all rows count, some do not, and on rank 1 in step 1 none does."""
    rows = samples(BATCH, 100 * step + rank, torch.float32)
    part = part_of(rank, *rows, torch.float32)
    if not all_count:
        generator = torch.Generator("cpu").manual_seed(rank)
        part.mask[torch.randperm(BATCH, generator=generator, device="cpu")[: 1 + rank]] = 0
        if (step, rank) == (1, 1):
            part.mask.zero_()
    return part


def uneven_dataset(size: int, steps: Sequence[int]) -> TensorDataset:
    """Full batches and one sample more: in the last step one rank alone has data.

    Where all steps see the same data, one batch from which a sample is missing.
    """
    different = len(set(steps))
    rows = size * BATCH * (different - 1) + 1 if different > 1 else size * BATCH - 1
    return TensorDataset(*samples(rows, 7, torch.float32))


class World:
    """Some ranks' parts of a training that `size` ranks share.

    Attributes:
        size: The number of ranks.
        seen: The ranks whose parts are seen here.
    """

    def __init__(self, size: int, seen: Sequence[int]) -> None:
        self.size = size
        self.seen = seen

    def loss(
        self, step: int, dtype: torch.dtype, loss_of_part: LossOfPart, *, split: bool = False
    ) -> Tensor:
        """The loss over a step's even parts."""
        return self.loss_over(self.parts(step, dtype), loss_of_part, split=split)

    def parts(self, step: int, dtype: torch.dtype) -> list[Part]:
        return [even_part(step, rank, dtype) for rank in self.seen]

    def loss_over(
        self, parts: Sequence[Part], loss_of_part: LossOfPart, *, split: bool = False
    ) -> Tensor:
        """The loss over the joined parts.

        With `split` the parts go through the model one by one and their losses are
        averaged, for losses that depend on the rank.
        """
        if len(parts) == 1:
            return loss_of_part(parts[0])
        if split:
            return torch.stack([loss_of_part(part) for part in parts]).mean()
        columns = zip(*((part.inputs, part.targets, part.mask) for part in parts), strict=True)
        return loss_of_part(Part(0, *(torch.cat(tensors) for tensors in columns)))

    def backward_of_parts(
        self, model: nn.Module, parts: Sequence[Part], loss_of_part: LossOfPart
    ) -> Tensor:
        """Each part's own backward, then the mean of their gradients; the mean of their losses.

        For arithmetic that rounds differently when the batch or the scale of
        the loss changes (autocast), where a mean of losses is another sum.
        """
        if len(parts) == 1:
            loss = loss_of_part(parts[0])
            loss.backward()
            return loss.detach()
        rows = sum(part.count for part in parts)
        mean, gradients = torch.zeros(()), {}
        for part in (part for part in parts if part.count):
            share = part.count / rows
            model.zero_grad()
            loss = loss_of_part(part)
            loss.backward()
            mean += loss.detach() * share
            for parameter in model.parameters():
                if parameter.grad is not None:
                    gradients[parameter] = gradients.get(parameter, 0) + parameter.grad * share
        for parameter in model.parameters():
            parameter.grad = gradients.get(parameter)
        return mean

    def batches(self, data: str, steps: Sequence[int]) -> Iterator[list[Part]]:
        """For each step the parts seen here, in float32. `data`: even, uneven or weighted."""
        if data == "uneven":
            return self.uneven_batches(steps)
        return (
            [masked_part(step, rank, all_count=data == "even") for rank in self.seen]
            for step in steps
        )


class OneProcess(World):
    """Sees every rank's part, with nothing but PyTorch."""

    def __init__(self, size: int) -> None:
        super().__init__(size, range(size))

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: int) -> None:
        pass

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def weight(self, parts: Sequence[Part]) -> AbstractContextManager[None]:
        return nullcontext()

    def compile(self, model: nn.Module) -> None:
        pass

    def uneven_batches(self, steps: Sequence[int]) -> Iterator[list[Part]]:
        columns = uneven_dataset(self.size, steps).tensors
        for step in steps:
            batch = [column[step * self.size * BATCH :][: self.size * BATCH] for column in columns]
            yield [
                # Copies, as a loader's batches are: alignment in memory decides how sums round.
                part_of(rank, *(rows[rank :: self.size].clone() for rows in batch), torch.float32)
                for rank in self.seen
            ]


class ThisRank(World):
    """Sees its own part; hvdtools joins the ranks."""

    def __init__(self) -> None:
        import hvdtools.torch as hvt

        self.hvt = hvt
        self.topology = hvt.init()
        super().__init__(self.topology.size, [self.topology.rank])

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: int) -> None:
        # Small enough for several buckets in the smallest model.
        same = self.hvt.prepare(model, optimizer, bucket_mib=0.0003, **options)
        assert same[0] is model and same[1] is optimizer

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        return self.hvt.no_sync(model)

    def weight(self, parts: Sequence[Part]) -> AbstractContextManager[None]:
        (part,) = parts
        return self.hvt.weight(part.count)

    def compile(self, model: nn.Module) -> None:
        self.hvt.compile(model, region_mib=0.0003, backend="aot_eager")

    def uneven_batches(self, steps: Sequence[int]) -> Iterator[list[Part]]:
        dataset = uneven_dataset(self.size, steps)
        loader = self.hvt.shard(DataLoader(dataset, batch_size=BATCH), uneven="weighted")
        for _ in range(len(steps) // len(set(steps))):
            for inputs, targets in loader:
                yield [part_of(self.topology.rank, inputs, targets, torch.float32)]
