"""Training that must not depend on how many ranks share it: what the equality table runs.

Every row of the table is one training, run by N ranks through hvdtools and by
one process on the joined batch, with PyTorch alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# By hand, TEST_DEVICE=cuda trains on GPUs.
DEVICE = os.environ.get("TEST_DEVICE", "cpu")
BATCH = 6
WIDTH = 5
STEPS = 4

OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.05, max_iter=2),
}
PRECISIONS = ("float32", "autocast bf16", "GradScaler")
DATA = ("even", "uneven", "weighted")
# (optimizer, precision) that PyTorch itself cannot do.
IMPOSSIBLE = {("LBFGS", "GradScaler"): "PyTorch's GradScaler takes no closure"}


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    optimizer: str
    precision: str
    data: str

    def __str__(self) -> str:
        return f"{self.optimizer}, {self.precision}, {self.data}"

    @property
    def steps(self) -> list[int]:
        """The data of each step. LBFGS fits curvature to one function: always the same."""
        return [0] * STEPS if self.optimizer == "LBFGS" else list(range(STEPS))


CASES = tuple(
    Case(optimizer, precision, data)
    for optimizer in OPTIMIZERS
    for precision in PRECISIONS
    for data in DATA
    if (optimizer, precision) not in IMPOSSIBLE
)


@dataclass(frozen=True)
class Part:
    """What one rank sees in one step: inputs (rows, WIDTH), targets and mask (rows, 1).

    The loss is the mean over the rows where `mask` is 1.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDTH, generator=generator), torch.randn(
        count, 1, generator=generator
    )


def masked_part(step: int, rank: int, *, all_count: bool) -> Part:
    """BATCH rows; unless all count, some do not, and on rank 1 in step 1 none does."""
    inputs, targets = samples(BATCH, 100 * step + rank)
    mask = torch.ones(BATCH, 1)
    if not all_count:
        mask[torch.randperm(BATCH, generator=torch.Generator().manual_seed(rank))[: 1 + rank]] = 0
        if (step, rank) == (1, 1):
            mask.zero_()
    return part_of(inputs, targets, mask)


def part_of(inputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> Part:
    """On the device; without a mask every row counts."""
    mask = torch.ones_like(targets) if mask is None else mask
    return Part(inputs.to(DEVICE), targets.to(DEVICE), mask.to(DEVICE))


def uneven_dataset(ranks: int, case: Case) -> TensorDataset:
    """One sample more than STEPS - 1 full batches: in the last step one rank alone has data.

    For LBFGS, whose steps see all of it, one batch from which a sample is missing.
    """
    one = case.optimizer == "LBFGS"
    count = ranks * BATCH - 1 if one else ranks * BATCH * (STEPS - 1) + 1
    return TensorDataset(*samples(count, 7))


class OneProcess:
    """Sees what `ranks` ranks would see, with nothing but PyTorch."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        pass

    def steps(self, case: Case) -> Iterator[list[Part]]:
        """For each step the parts of all ranks."""
        if case.data != "uneven":
            for step in case.steps:
                yield [
                    masked_part(step, rank, all_count=case.data == "even")
                    for rank in range(self.ranks)
                ]
            return
        rows = uneven_dataset(self.ranks, case).tensors
        for step in case.steps:
            batch = [column[step * self.ranks * BATCH :][: self.ranks * BATCH] for column in rows]
            split = [[column[rank :: self.ranks] for column in batch] for rank in range(self.ranks)]
            yield [part_of(x, y) for x, y in split]

    def backward(self, case: Case, model: nn.Module, parts: list[Part], grow: Grow) -> Tensor:
        """Fill `.grad`; the loss over all parts."""
        shares = [part.mask.sum().item() for part in parts]
        if case.precision != "autocast bf16":
            joined = Part(
                *(torch.cat(columns) for columns in zip(*map(_columns, parts), strict=True))
            )
            last_counts = shares[-1] > 0
            loss = loss_of(model, joined)
            grow(loss, last=last_counts).backward()
            return loss.detach()
        # bfloat16 rounds differently when the batch changes: the parts one by one.
        total = [torch.zeros_like(parameter) for parameter in model.parameters()]
        mean = torch.zeros((), device=DEVICE)
        for part, share in zip(parts, shares, strict=True):
            if share:
                model.zero_grad()
                loss = loss_of(model, part, torch.bfloat16)
                loss.backward()
                mean += loss.detach() * share / sum(shares)
                for sum_, parameter in zip(total, model.parameters(), strict=True):
                    sum_ += parameter.grad * (share / sum(shares))
        for sum_, parameter in zip(total, model.parameters(), strict=True):
            parameter.grad = sum_
        return mean


class ThisRank:
    """Sees its own part; hvdtools joins the ranks."""

    def __init__(self) -> None:
        import hvdtools.torch as hvt

        self.hvt = hvt
        topology = hvt.init()
        self.rank, self.ranks = topology.rank, topology.size

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        # Small enough for several buckets, and looked at in every step.
        self.hvt.prepare(model, optimizer, bucket_mib=0.0003, check_every=1)

    def steps(self, case: Case) -> Iterator[list[Part]]:
        if case.data != "uneven":
            for step in case.steps:
                yield [masked_part(step, self.rank, all_count=case.data == "even")]
            return
        dataset = uneven_dataset(self.ranks, case)
        loader = self.hvt.shard(DataLoader(dataset, batch_size=BATCH), uneven="weighted")
        for _ in case.steps if case.optimizer == "LBFGS" else (0,):
            for x, y in loader:
                yield [part_of(x, y)]

    def backward(self, case: Case, model: nn.Module, parts: list[Part], grow: Grow) -> Tensor:
        (part,) = parts
        dtype = torch.bfloat16 if case.precision == "autocast bf16" else None
        weighted = case.data == "weighted"
        with self.hvt.weight(part.mask.sum().item()) if weighted else nullcontext():
            loss = loss_of(model, part, dtype)
            grow(loss, last=self.rank == self.ranks - 1).backward()
        return loss.detach()


World = OneProcess | ThisRank
# Makes the loss that backward starts from of the one that is reported.
Grow = Callable[..., Tensor]


def _columns(part: Part) -> tuple[Tensor, Tensor, Tensor]:
    return part.inputs, part.targets, part.mask


def loss_of(model: nn.Module, part: Part, autocast: torch.dtype | None = None) -> Tensor:
    """The mean squared error over the rows that count; NaN if none does."""
    with torch.autocast(DEVICE, autocast) if autocast else nullcontext():
        error = model(part.inputs).float() - part.targets
    return (error.square() * part.mask).sum() / part.mask.sum()


def build(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
    model.append(nn.Linear(8, 1)).to(DEVICE)
    return model, OPTIMIZERS[name](model.parameters())


def train(world: World, case: Case) -> list[Tensor]:
    """The weights at the end; with GradScaler its scale is the last."""
    model, optimizer = build(case.optimizer)
    world.prepare(model, optimizer)
    scaler = torch.amp.GradScaler(
        DEVICE, init_scale=2.0**10, enabled=case.precision == "GradScaler"
    )
    for step, parts in enumerate(world.steps(case)):

        def grow(loss: Tensor, *, last: bool, step: int = step) -> Tensor:
            # The last rank's loss alone overflows in step 0: every rank must skip it.
            overflow = scaler.is_enabled() and step == 0 and last
            return scaler.scale(loss) * (float("inf") if overflow else 1)

        def closure(parts: list[Part] = parts, grow: Grow = grow) -> Tensor:
            optimizer.zero_grad()
            return world.backward(case, model, parts, grow)

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            scaler.step(optimizer)
            scaler.update()
    weights = [parameter.detach().cpu() for parameter in model.parameters()]
    return [*weights, torch.tensor(scaler.get_scale())] if scaler.is_enabled() else weights
