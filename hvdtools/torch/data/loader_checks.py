"""Which kind of loader shard() got, and whether every rank got the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import horovod.torch as hvd
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterDataPipe,
    RandomSampler,
    SequentialSampler,
)

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.core.sharding import Sharding
from hvdtools.core.topology import Topology
from hvdtools.torch.data.samplers import PartSampler
from hvdtools.torch.data.stream import StreamPart
from hvdtools.torch.waiting import waiting

_SEEDS = 2**31
_numbers = itertools.count()


def own_batches(loader: DataLoader[Any]) -> Iterable[Any] | None:
    """The batch sampler that the user made; None for DataLoader's default one."""
    if type(loader.batch_sampler) is BatchSampler and loader.batch_size is not None:
        return None
    return loader.batch_sampler


def is_plain(loader: DataLoader[Any]) -> bool:
    """True for the sampler that `shuffle` makes: over the dataset, each sample once."""
    sampler: Any = loader.sampler
    if getattr(sampler, "data_source", None) is not loader.dataset:
        return False
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler._num_samples is None
    return type(sampler) is SequentialSampler


def require_known(loader: DataLoader[Any]) -> None:
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise HvdtoolsError(
            f"shard() would lose what {type(loader).__name__}.__iter__ does: give it the plain "
            "DataLoader, and wrap what it returns."
        )
    if isinstance(loader.dataset, IterDataPipe):
        raise HvdtoolsError(
            "shard() cannot split a data pipe, whose workers are split by PyTorch itself: let an "
            "IterableDataset yield what it yields."
        )


@dataclass(frozen=True)
class Split:
    """How a loader is split between ranks already: by whom, for whom, and `uneven`."""

    by: str
    rank: int
    size: int
    uneven: str


def present_split(loader: DataLoader[Any]) -> Split | None:
    """The split that the loader has already, or None."""
    batches = loader.batch_sampler
    for part in (loader.dataset, batches, getattr(batches, "sampler", None), loader.sampler):
        if isinstance(part, StreamPart | PartSampler):
            deal: Sharding = part.deal
            return Split(type(part).__name__, deal.rank, deal.size, deal.uneven)
        if isinstance(part, DistributedSampler):
            uneven = "drop" if part.drop_last else "pad"
            return Split(type(part).__name__, part.rank, part.num_replicas, uneven)
    return None


def require_fitting(split: Split, topology: Topology, uneven: str | None, seed: int | None) -> None:
    """Raise if the split is not this job's, or not the one that was asked for; else log it.

    Raises:
        HvdtoolsError: The message names the difference.
    """
    if (split.rank, split.size) != (topology.rank, topology.size):
        raise HvdtoolsError(
            f"The loader's {split.by} splits for rank {split.rank} of {split.size}, but this is "
            f"rank {topology.rank} of {topology.size}: give shard() the plain loader."
        )
    if uneven not in (None, split.uneven) or seed is not None:
        raise HvdtoolsError(
            f'The loader is split already by a {split.by}, with uneven="{split.uneven}" and its '
            "own seed: give shard() the plain loader, or neither uneven nor seed."
        )
    logger.info(
        'shard(): a %s splits the loader already (uneven="%s"); it stays.', split.by, split.uneven
    )


def agreed_seed(loader: DataLoader[Any], mode: str, seed: int | None) -> int:
    """Rank 0's seed.

    Raises:
        HvdtoolsError: The ranks gave different loaders, or the seed is out of range.
    """
    if seed is None:
        seed = _seed_of(loader)
    if not (isinstance(seed, Integral) and 0 <= seed < _SEEDS):
        raise HvdtoolsError(
            f"shard() got seed={seed!r}: it must be a whole number from 0 to {_SEEDS - 1}."
        )
    with waiting("shard()"):
        everyone = hvd.allgather_object((_described(loader, mode), seed), name="hvdtools.shard")
    first = everyone[0][0]
    for rank, (described, _) in enumerate(everyone):
        if described != first:
            raise HvdtoolsError(
                f"The ranks gave shard() different loaders (rank 0: {first}; rank {rank}: "
                f"{described}): it deals out one dataset that is the same on all ranks."
            )
    rank_0s: int = everyone[0][1]
    return rank_0s


def _seed_of(loader: DataLoader[Any]) -> int:
    """A seed for this loader's own order; PyTorch's global random numbers stay where they are."""
    generator = getattr(loader.sampler, "generator", None) or loader.generator
    if generator is None:  # two loaders over equally many samples get two orders
        return (torch.initial_seed() + next(_numbers)) % _SEEDS
    return int(torch.randint(_SEEDS, (), generator=generator, device=generator.device))


def _described(loader: DataLoader[Any], mode: str) -> str:
    dataset: Any = loader.dataset
    try:
        samples = f"{len(dataset)} samples"
    except (TypeError, NotImplementedError):
        samples = "a dataset without a length"
    batches = own_batches(loader)
    order = loader.sampler if batches is None else batches
    return (
        f"{samples}, {type(order).__name__}, batch_size={loader.batch_size}, "
        f"drop_last={loader.drop_last}, num_workers={loader.num_workers}, uneven={mode!r}"
    )
