"""Give each rank its part of a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)

from hvdtools.errors import HvdtoolsError
from hvdtools.topology import Topology
from hvdtools.torch.collect import broadcast
from hvdtools.torch.session import require_started


class ShardSampler(Sampler[int]):
    """Every size-th sample of one order that all ranks share.

    The ranks' k-th batches together are the k-th global batch. Each pass over
    it is the next epoch with an order of its own, drawn from (seed, epoch); the
    up to size - 1 samples that do not divide evenly are left out, others in
    each epoch.

    Args:
        samples: Length of the dataset.
        topology: This process' place in the job.
        shuffle: False keeps the dataset's order.
        seed: The same on every rank.
    """

    def __init__(self, samples: int, topology: Topology, *, shuffle: bool, seed: int) -> None:
        self._samples = samples
        self._topology = topology
        self._shuffle = shuffle
        self._seed = seed
        self._epoch = -1

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass be epoch `epoch`, as when training goes on from a checkpoint."""
        self._epoch = epoch - 1

    def __iter__(self) -> Iterator[int]:
        self._epoch += 1
        order = torch.arange(self._samples, device="cpu")
        if self._shuffle:
            generator = torch.Generator("cpu").manual_seed(self._seed * 1_000_003 + self._epoch)
            order = torch.randperm(self._samples, generator=generator, device="cpu")
        even = len(self) * self._topology.size
        return iter(order[self._topology.rank : even : self._topology.size].tolist())

    def __len__(self) -> int:
        return self._samples // self._topology.size


def shard(loader: DataLoader[Any], *, seed: int | None = None) -> DataLoader[Any]:
    """A loader over this rank's part of `loader`'s dataset, with equal steps on every rank.

    The batch size stays that of `loader` on each rank, so the global batch is
    size times as large. A shuffled loader is reshuffled in every epoch from one
    seed; call `loader.sampler.set_epoch(k)` to go on at epoch k. Up to size - 1
    samples an epoch are left out so that no rank has a batch more than another.
    Random augmentation in workers differs between ranks.

    Args:
        loader: A map-style DataLoader with the plain sampler that its `shuffle`
            argument makes.
        seed: Of the order; rank 0's is used. Drawn from PyTorch's generator on
            rank 0 where it is left out.

    Returns:
        A new DataLoader; `loader` itself is not changed.

    Raises:
        HvdtoolsError: The loader cannot be sharded, or has fewer samples than
            there are ranks.
    """
    topology = require_started("shard()")
    _require_shardable(loader)
    samples = len(loader.dataset)  # type: ignore[arg-type]
    if samples < topology.size:
        raise HvdtoolsError(
            f"The dataset has {samples} samples for {topology.size} ranks: start at most "
            f"{samples} ranks, or bring more data."
        )
    seed = broadcast(torch.initial_seed() % 2**31 if seed is None else seed)
    sampler = ShardSampler(
        samples, topology, shuffle=isinstance(loader.sampler, RandomSampler), seed=seed
    )
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator("cpu").manual_seed(seed + topology.rank),
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        pin_memory_device=loader.pin_memory_device,
        in_order=loader.in_order,
    )


def _require_shardable(loader: Any) -> None:
    if not isinstance(loader, DataLoader):
        raise HvdtoolsError(
            f"shard() got a {type(loader).__name__}: give it a torch.utils.data.DataLoader."
        )
    if isinstance(loader.dataset, IterableDataset):
        raise HvdtoolsError(
            "shard() cannot split an IterableDataset, whose samples have no numbers: let the "
            "dataset itself skip the other ranks' samples (rank and size are those of init())."
        )
    if isinstance(loader.sampler, ShardSampler | DistributedSampler):
        raise HvdtoolsError(
            f"The loader is split already by its {type(loader.sampler).__name__}: use it as it is, "
            "or give shard() the plain loader."
        )
    # A DataLoader makes its own BatchSampler, or none where batching is off; a
    # user's has a type of its own, or leaves batch_size None.
    own_batches = loader.batch_sampler is not None and (
        type(loader.batch_sampler) is not BatchSampler or loader.batch_size is None
    )
    plain = isinstance(loader.sampler, SequentialSampler) or (
        isinstance(loader.sampler, RandomSampler)
        and not loader.sampler.replacement
        and loader.sampler._num_samples is None
    )
    if own_batches or not plain:
        custom = loader.batch_sampler if own_batches else loader.sampler
        raise HvdtoolsError(
            f"shard() cannot split a loader whose order comes from a {type(custom).__name__}: "
            "make the sampler itself yield this rank's part, or use DataLoader(shuffle=...)."
        )
