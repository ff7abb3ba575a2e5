"""DataLoaders that set the weight of each batch, or stop on all ranks at the same batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import horovod.torch as hvd
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.torch.data.samplers import Part, PartSampler
from hvdtools.torch.loss_weights import set_batch_weight
from hvdtools.torch.waiting import wait_for, waiting

_END = object()


class WeightedLoader(DataLoader[Any]):
    """A map-style loader that sets the weight of each batch it hands out.

    Its sampler, or its batch sampler, is a PartSampler with uneven="weighted".
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator can end a weight
        batches = super().__iter__()
        # With the first batch the sampler has surely begun this pass, and not yet another.
        first = iter(list(itertools.islice(batches, 1)))
        return weighted(self._counted(itertools.chain(first, batches), self.part_sampler.part))

    def _counted(self, batches: Iterator[Any], part: Part) -> Iterator[tuple[int, Any]]:
        for number, batch in enumerate(batches):
            yield self._samples(part, number, batch), batch

    def _samples(self, part: Part, number: int, batch: Any) -> int:
        """How many samples batch `number` of the pass holds; 0 for a stand-in."""
        if self.batch_size is not None:
            return max(0, min(self.batch_size, part.own - number * self.batch_size))
        if number >= part.own:
            return 0
        if self.batch_sampler is not None:
            return len(part.items[number])
        return samples_in(batch)

    @property
    def part_sampler(self) -> PartSampler:
        """What deals: the sampler, or the batch sampler where that was the user's own."""
        own_batches = self.batch_size is None and self.batch_sampler is not None
        sampler: Any = self.batch_sampler if own_batches else self.sampler
        part_sampler: PartSampler = sampler
        return part_sampler


class StreamLoader(DataLoader[Any]):
    """A loader of a StreamPart whose ranks agree before each batch that all have one.

    Args:
        label: Names this loader's all-reduces; the same on every rank.
        counted: True if its collate_fn is a CountingCollate: then each batch
            gets its weight.
        options: DataLoader's own.
    """

    def __init__(self, *, label: str, counted: bool, **options: Any) -> None:
        super().__init__(**options)
        self._label = label
        self._counted = counted
        self._passes = itertools.count()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator can end a weight
        # A pass that a `break` cut off leaves its last all-reduce behind: each has its own name.
        batches = in_lockstep(super().__iter__(), f"{self._label}.pass{next(self._passes)}")
        if not self._counted:
            return batches
        return weighted(
            (samples_in(batch) if count is None else count, batch) for count, batch in batches
        )


def weighted(batches: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """Hand out the batches of (weight, batch) pairs, each with its weight in force."""
    this_pass = object()
    try:
        for weight, batch in batches:
            set_batch_weight(this_pass, weight)
            yield batch
    finally:
        set_batch_weight(this_pass, None)


def in_lockstep(batches: Iterator[Any], label: str) -> Iterator[Any]:
    """Hand out batches as long as every rank has one.

    Each batch is fetched one ahead, so that the all-reduce runs while
    the previous batch is processed.

    Raises:
        HvdtoolsError: Some ranks have one batch more than others.
    """
    steps = 0
    ahead = next(batches, _END)
    count = _start_count(ahead is not _END, label)
    while _all_have_one(count, steps):
        batch, ahead = ahead, next(batches, _END)
        count = _start_count(ahead is not _END, label)
        steps += 1
        yield batch
    if steps == 0 and hvd.rank() == 0:
        logger.warning(
            "The stream is too short for a single batch on each of %d ranks, so the loop over "
            "shard()'s loader does nothing.",
            hvd.size(),
        )


def _start_count(have_one: bool, label: str) -> tuple[int, Tensor]:
    """Start to count the ranks that have a batch: a handle, and the tensor for the count."""
    having = torch.full((1,), float(have_one), dtype=torch.float32, device="cpu")
    return hvd.allreduce_async_(having, op=hvd.Sum, name=label), having


def _all_have_one(count: tuple[int, Tensor], steps: int) -> bool:
    with waiting("the next batch of shard()'s stream"):
        wait_for(count[0], on_gpu=False)
    having = int(count[1].item())
    if 0 < having < hvd.size():
        raise HvdtoolsError(
            f"After {steps} batches the stream has ended on {hvd.size() - having} of {hvd.size()} "
            "ranks only: shard() deals out one stream that is the same on every rank, so let the "
            "dataset yield the same samples in the same order everywhere (seed its shuffling "
            "alike, do not split it by rank)."
        )
    return having > 0


def samples_in(batch: Any) -> int:
    """The number of samples in a ready batch: the length of the first tensor or array in it.

    Raises:
        HvdtoolsError: There is none.
    """
    length = _leading_dimension(batch)
    if length is None:
        raise HvdtoolsError(
            f'uneven="weighted" finds no tensor or array in a ready {type(batch).__name__} to '
            'count its samples by: use uneven="drop" or "pad", and `with hvt.weight(n):` around '
            "backward()."
        )
    return length


def _leading_dimension(value: Any) -> int | None:
    if isinstance(value, Tensor | np.ndarray):
        return value.shape[0] if value.ndim else None
    if isinstance(value, Mapping):
        parts = iter(value.values())
    elif isinstance(value, list | tuple):
        parts = iter(value)
    else:
        return None
    return next((n for n in map(_leading_dimension, parts) if n is not None), None)
