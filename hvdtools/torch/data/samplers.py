"""Samplers that give each rank its part of one order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import horovod.torch as hvd
import torch
from torch import Tensor
from torch.utils.data import Sampler

from hvdtools.core.sharding import Sharding
from hvdtools.core.topology import Topology
from hvdtools.torch.replicate import broadcast_tensors
from hvdtools.torch.waiting import waiting

# Not broadcast()'s own name: a thread may fetch batches while the script calls that.
_LABEL = "hvdtools.shard.order"


@dataclass(frozen=True)
class Part:
    """What one rank takes of one epoch's order.

    Attributes:
        items: Indices of samples, or whatever else the order holds.
        own: How many of them, the first ones, are the rank's own; the others are a stand-in batch.
    """

    items: list[Any]
    own: int


class PartSampler(Sampler[Any]):
    """This rank's part of an order that all ranks share; each pass is the next epoch.

    Attributes:
        part: The part of the epoch that was begun last.
    """

    noun = "samples"
    part: Part

    def __init__(self, deal: Sharding) -> None:
        self.deal = deal

    @abstractmethod
    def set_epoch(self, epoch: int) -> None:
        """Make the next pass be epoch `epoch`, as when training resumes from a checkpoint."""

    @abstractmethod
    def _order(self) -> Tensor | list[Any]:
        """The next epoch's order, the same on every rank: an int64 tensor where it is numbers."""

    @abstractmethod
    def _whole(self) -> int:
        """The length of an order."""

    def __iter__(self) -> Iterator[Any]:
        order = self._order()
        whole = len(order)
        self.deal.require_enough(whole, self.noun)
        own = self.deal.positions(whole)
        items = _listed(order[own.start : own.stop : own.step])
        padding = self.deal.padding(whole)
        if padding is not None:
            items += _listed(order[padding : padding + 1])
        stand_in = []
        if self.deal.needs_filler_batch(whole):
            stand_in = items[-self.deal.batch :] or _listed(order[:1])
        self.part = Part(items + stand_in, own=len(items))
        return iter(self.part.items)

    def __len__(self) -> int:
        return self.deal.length(self._whole())


class ShardSampler(PartSampler):
    """Every size-th sample of one order that all ranks share.

    The ranks' k-th batches together are the k-th global batch. Each pass over
    it is the next epoch with a new order, drawn from (seed, epoch).

    Args:
        samples: Length of the dataset.
        topology: This process' place in the job.
        shuffle: False keeps the dataset's order.
        seed: The same on every rank.
        uneven: How the up to size - 1 samples are treated that do not divide
            evenly, as in `shard()`.
        batch_size: Of the loader on each rank; "weighted" makes a stand-in of
            that many.
    """

    def __init__(
        self,
        samples: int,
        topology: Topology,
        *,
        shuffle: bool,
        seed: int,
        uneven: str = "drop",
        batch_size: int = 1,
    ) -> None:
        super().__init__(Sharding(topology.rank, topology.size, uneven, batch_size))
        self._samples = samples
        self._shuffle = shuffle
        self._seed = seed
        self._epoch = -1

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass epoch `epoch`, as when training resumes from a checkpoint."""
        self._epoch = epoch - 1

    def _order(self) -> Tensor:
        self._epoch += 1
        if not self._shuffle:
            return torch.arange(self._samples, device="cpu")
        generator = torch.Generator("cpu").manual_seed(self._seed * 1_000_003 + self._epoch)
        return torch.randperm(self._samples, generator=generator, device="cpu")

    def _whole(self) -> int:
        return self._samples


class DrawnSampler(PartSampler):
    """This rank's part of the order that rank 0's `inner` yields in each epoch.

    Beginning a pass is a collective: every rank must begin it.

    Args:
        inner: A sampler (of indices, or of whole batches of them) of finite
            length. Only rank 0's is drawn from.
        deal: How its items are assigned to ranks.
        noun: What its items are, for a message.
    """

    def __init__(self, inner: Iterable[Any], deal: Sharding, *, noun: str) -> None:
        super().__init__(deal)
        self._inner = inner
        self.noun = noun

    def set_epoch(self, epoch: int) -> None:
        """Pass `epoch` on to the inner sampler, if that knows epochs."""
        inner: Any = self._inner
        of_inner: Any = getattr(inner, "sampler", None)
        for knows in (inner, of_inner):
            if knows is not None and hasattr(knows, "set_epoch"):
                knows.set_epoch(epoch)

    def _order(self) -> Tensor | list[Any]:
        items = list(self._inner) if self.deal.rank == 0 else []
        numbers = bool(items) and all(isinstance(item, Integral) for item in items)
        with waiting("the order of shard()'s next epoch"):
            count, numbers = hvd.broadcast_object((len(items), numbers), name=_LABEL)
            if not numbers:
                rank_0s: list[Any] = hvd.broadcast_object(items, name=_LABEL)
                return rank_0s
            order = torch.empty(count, dtype=torch.int64, device="cpu")
            if self.deal.rank == 0:
                order[:] = torch.tensor(items, dtype=torch.int64, device="cpu")
            broadcast_tensors([order], 0, _LABEL)
        return order

    def _whole(self) -> int:
        return len(cast(Sized, self._inner))


def _listed(items: Tensor | list[Any]) -> list[Any]:
    return items.tolist() if isinstance(items, Tensor) else items
