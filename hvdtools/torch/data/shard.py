"""Give each rank its part of a DataLoader."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import Sharding
from hvdtools.core.topology import Topology
from hvdtools.torch.data.loader_checks import (
    agreed_seed,
    is_plain,
    own_batches,
    present_split,
    require_fitting,
    require_known,
)
from hvdtools.torch.data.samplers import DrawnSampler, PartSampler, ShardSampler
from hvdtools.torch.data.stream import CountingCollate, StreamPart
from hvdtools.torch.data.weighted_loaders import StreamLoader, WeightedLoader
from hvdtools.torch.session import require_started

# Options that the new loader keeps, if this PyTorch has them (in_order: 2.6 and newer).
_KEPT = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
    "pin_memory_device",
    "in_order",
)
_numbers = itertools.count()


def shard(
    loader: DataLoader[Any], *, uneven: str | None = None, seed: int | None = None
) -> DataLoader[Any]:
    """A loader over this rank's part of `loader`'s data.

    Samples are assigned to ranks round-robin, and the batch size stays that of `loader` on
    each rank: the k-th batches of all ranks together are the k-th batch of one
    process with a batch size times the number of ranks. `uneven` decides about
    the samples that do not divide evenly:

    - "drop" (the default): up to size - 1 samples an epoch are left
      out, others in each epoch of a shuffled loader. Equal steps on every rank.
    - "pad": the first samples of the order are repeated to fill. Equal steps.
    - "weighted": every sample exactly once, equal steps, and each batch weighs
      as much as it has samples: `backward()` returns the mean over all samples
      of all ranks' batches. A rank that has run out gets its last batch again
      (or, had it none, one of another rank's samples) with weight 0, so it
      changes no gradient; `batch_weight()` returns the weight, as in
      ``average(loss, count=batch_weight())``. The weight in force is that of
      the batch handed out last, until its loop has ended: a script that
      fetches batches ahead, or keeps an iterator half way and trains on another
      loader, says ``with weight(n):`` itself.
    - "ragged": every sample exactly once and nothing repeated, so some ranks
      have a batch more, or none. For evaluation, where the ranks exchange
      nothing within the loop.

    With `drop_last` an incomplete batch of all ranks together is left out, in
    "weighted" and "ragged" too.

    What can be sharded, with any number of workers:

    - A map-style dataset that is shuffled or not: each epoch's order is drawn
      from one seed. Call ``loader.sampler.set_epoch(k)`` to resume at epoch k.
    - A map-style dataset with a sampler or batch sampler of your own: rank 0's
      is drawn from at the start of each epoch, to its end, and whole batches
      are assigned where it makes batches. Every rank must begin the epoch.
      ``loader.sampler.set_epoch(k)``, or ``loader.batch_sampler.set_epoch(k)``,
      reaches it.
    - ``batch_size=None``, where each item is a ready batch: whole items are
      assigned, and count as many samples as their first tensor is long.
    - An IterableDataset. Every rank runs through the **same** stream (the
      random numbers of workers are seeded alike for it; without workers it
      must not draw from the script's own) and keeps its own
      samples; `uneven` applies to the last samples of each worker's
      part of the stream. If the ranks' streams differ in length, all raise.
    - A loader with a DistributedSampler for this job, or one that shard()
      made, is returned unchanged.

    Every rank must begin every pass: one look at a first batch on one rank
    alone moves that rank to the next epoch's order. Random augmentation in the
    workers of a map-style dataset differs between ranks; without workers it
    draws from the script's own random numbers, so seed those by rank after
    `prepare()`.

    Args:
        loader: The same on every rank; it is not changed.
        uneven: "drop", "pad", "weighted" or "ragged".
        seed: Of the order, 0 to 2**31 - 1; rank 0's is used. Taken from the
            loader's generator, or else PyTorch's initial seed and the number
            of loaders before this one, on rank 0 where left out.

    Returns:
        A new DataLoader. Its length is in batches of this rank, and a TypeError
        where an IterableDataset has none.

    Raises:
        HvdtoolsError: The loader cannot be sharded, differs between ranks, is
            split for another job or in another mode, or has fewer samples than
            there are ranks and "drop" leaves them out.
    """
    topology = require_started("shard()")
    if not isinstance(loader, DataLoader):
        raise HvdtoolsError(
            f"shard() got a {type(loader).__name__}: give it a torch.utils.data.DataLoader."
        )
    split = present_split(loader)
    if split is not None:
        require_fitting(split, topology, uneven, seed)
        return loader
    require_known(loader)
    mode = "drop" if uneven is None else uneven
    # Without its incomplete last batch the order of all ranks is even anyway.
    whole_batches = loader.drop_last and mode in ("weighted", "ragged")
    deal = Sharding(
        topology.rank, topology.size, "drop" if whole_batches else mode, loader.batch_size or 1
    )
    options = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    seed = agreed_seed(loader, mode, seed)
    if isinstance(loader.dataset, IterableDataset):
        return _stream_loader(loader, deal, options, seed, counted=mode == "weighted")
    return _map_loader(loader, topology, deal, options, seed, counted=mode == "weighted")


def _map_loader(
    loader: DataLoader[Any],
    topology: Topology,
    deal: Sharding,
    options: dict[str, Any],
    seed: int,
    *,
    counted: bool,
) -> DataLoader[Any]:
    if counted and loader.num_workers and not options.get("in_order", True):
        raise HvdtoolsError(
            'uneven="weighted" knows a batch by its place in the order: use in_order=True, or '
            "another mode."
        )
    batches = own_batches(loader)
    if batches is not None:
        options["batch_sampler"] = DrawnSampler(batches, deal, noun="batches")
    else:
        options |= {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
        options["sampler"] = _sampler(loader, topology, deal, seed)
    options["generator"] = torch.Generator("cpu").manual_seed(seed + topology.rank)
    return (WeightedLoader if counted else DataLoader)(loader.dataset, **options)


def _sampler(loader: DataLoader[Any], topology: Topology, deal: Sharding, seed: int) -> PartSampler:
    if not is_plain(loader):
        return DrawnSampler(loader.sampler, deal, noun="samples")
    samples = len(loader.dataset)  # type: ignore[arg-type]
    deal.require_enough(samples, "samples")
    return ShardSampler(
        samples,
        topology,
        shuffle=isinstance(loader.sampler, RandomSampler),
        seed=seed,
        uneven=deal.uneven,
        batch_size=deal.batch,
    )


def _stream_loader(
    loader: DataLoader[Any], deal: Sharding, options: dict[str, Any], seed: int, *, counted: bool
) -> DataLoader[Any]:
    options |= {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
    options["dataset"] = StreamPart(loader.dataset, deal)  # type: ignore[arg-type]
    # One seed for the workers of all ranks: a stream that they shuffle stays the same stream.
    options["generator"] = torch.Generator("cpu").manual_seed(seed)
    label = f"hvdtools.shard{next(_numbers)}"
    if deal.uneven == "ragged":
        return DataLoader(**options)
    if counted:
        batched = loader.batch_size is not None
        options["collate_fn"] = CountingCollate(loader.collate_fn, batched)
    return StreamLoader(label=label, counted=counted, **options)
