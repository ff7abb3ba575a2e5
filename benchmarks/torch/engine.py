"""What the training in train_torch.py asks of whoever keeps its replicas equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from hvdtools.bench.programs.torch.data import Loader
from hvdtools.bench.programs.torch.process_group import Rows

Prepared = tuple[nn.Module, torch.optim.Optimizer]


class Engine(Protocol):
    """What averages the gradients.

    Attributes:
        name: As --engine has it.
        transport: What carries the gradients.
        rank, size: This process among all, and how many there are.
        device: Where this rank trains.
        takes_channels_last: False if it needs contiguous weights.
    """

    name: str
    transport: str
    rank: int
    size: int
    device: torch.device
    takes_channels_last: bool

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Prepared:
        """The model to call and the optimizer to step, whose gradients are averaged."""

    def shard(self, loader: Loader, seed: int) -> Loader:
        """A loader of this rank's part, with equally many steps on every rank."""

    def allreduces_per_step(self, model: nn.Module) -> int | None:
        """All-reduces in a step of the prepared model; None if it does not say."""

    def gather(self, values: Sequence[float]) -> Rows:
        """k values on each rank -> on every rank a row for each rank. Waits for all ranks."""
