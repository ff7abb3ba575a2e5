"""This rank's part of an IterableDataset."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset

from hvdtools.core.sharding import Sharding


@dataclass(frozen=True)
class StandIn:
    """A sample that only fills a batch which this rank lacks."""

    sample: Any


class StreamPart(IterableDataset[Any]):
    """Every size-th sample of a stream that every rank runs through as a whole.

    It runs where the stream would, in a worker too: there it shards that
    worker's part of the stream, so each worker yields as many batches as
    its counterparts on other ranks.

    Everything else about it is the stream's: attributes are read from and
    written to the stream, as a `worker_init_fn` does through
    `get_worker_info().dataset`.

    Args:
        stream: The same samples in the same order on every rank.
        deal: How they are assigned to ranks.
    """

    def __init__(self, stream: IterableDataset[Any], deal: Sharding) -> None:
        vars(self).update(stream=stream, deal=deal)

    def __getattr__(self, name: str) -> Any:
        # Pickling asks an object without state, and is not meant for the stream.
        if name in ("stream", "deal") or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.stream, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.stream, name, value)

    def __len__(self) -> int:
        """Samples that each rank takes; a TypeError where the stream has no length."""
        deal: Sharding = self.deal
        whole = len(self.stream)
        if deal.uneven == "weighted":  # a rank with a sample less has as many batches
            return -(-whole // deal.size)
        return deal.length(whole)

    def __iter__(self) -> Iterator[Any]:
        deal: Sharding = self.deal
        first: list[Any] = []  # what "pad", or a rank without any sample, may have to repeat
        keep_first = {"pad": max(deal.rank, 1), "weighted": 1}.get(deal.uneven, 0)
        recent: deque[Any] = deque(maxlen=deal.batch if deal.uneven == "weighted" else 0)
        whole = 0
        mine = None
        for sample in self.stream:
            if whole < keep_first:
                first.append(sample)
            if whole % deal.size == deal.rank:
                mine = sample
            whole += 1
            if whole % deal.size == 0:  # only a complete round is everybody's
                recent.append(mine)
                yield mine
        if len(deal.positions(whole)) > whole // deal.size:
            yield mine
        padding = deal.padding(whole)
        if padding is not None:
            yield first[padding]
        if deal.needs_filler_batch(whole):
            yield from map(StandIn, recent or first)


@dataclass(frozen=True)
class CountingCollate:
    """Collates samples, and says how many of them count.

    Args:
        collate: The loader's own; it gets the samples of stand-ins.
        batched: True if it gets a list of samples; False if one ready batch.

    Returns:
        (count, batch): 0 for a stand-in; None for a ready batch, whose samples
        only its reader can count.
    """

    collate: Callable[[Any], Any]
    batched: bool

    def __call__(self, data: Any) -> tuple[int | None, Any]:
        if not self.batched:
            if isinstance(data, StandIn):
                return 0, self.collate(data.sample)
            return None, self.collate(data)
        # A stand-in begins where a batch does, so it is never among real samples.
        if isinstance(data[0], StandIn):
            return 0, self.collate([stand_in.sample for stand_in in data])
        return len(data), self.collate(data)
