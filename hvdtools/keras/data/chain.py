"""What a tf.data.Dataset says about itself without being read.

A dataset is the last of a chain of operations. Their classes are private to
TensorFlow, so they are told by name; an unknown one ends the walk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError

INFINITE: int = tf.data.INFINITE_CARDINALITY
UNKNOWN: int = tf.data.UNKNOWN_CARDINALITY

_BATCHES = ("BatchDataset", "ParallelBatchDataset", "PaddedBatchDataset")
_MAPS = ("MapDataset", "ParallelMapDataset")
# These hand on each batch, or leave out and repeat whole ones.
_KEEP_BATCHES = (
    *_MAPS,
    "AssertCardinalityDataset",
    "CacheDataset",
    "OptionsDataset",
    "PrefetchDataset",
    "RepeatDataset",
    "ShuffleDataset",
    "SkipDataset",
    "TakeDataset",
)


@dataclass(frozen=True)
class Batches:
    """The batches that a chain yields.

    Attributes:
        rows: Samples in each batch that is not cut short.
        count: Number of batches, INFINITE or UNKNOWN.
        samples: Number of samples in all of them, INFINITE or UNKNOWN.
        whole: True if no batch is short.
        in_order: True if none but the last one is.
        drop_remainder: As batch() got it.
        padded: True for padded_batch().
        mapped: True if a map() follows, which could change the number of rows.
    """

    rows: int
    count: int
    samples: int
    whole: bool
    in_order: bool
    drop_remainder: bool
    padded: bool
    mapped: bool = False


@dataclass(frozen=True)
class Chain:
    """A dataset's chain of operations.

    Attributes:
        samples: Number of samples: of the rows in all batches, or of the
            elements where there are no batches; INFINITE or UNKNOWN.
        batches: None if no batch() is at the chain's end; elements are samples then.
        seeds: Of each shuffle() and its kin; (0, 0) where nobody gave one.
        parts: (number of parts, the one taken) of each Dataset.shard().
        in_order: False if elements come in the order in which they are ready.
    """

    samples: int
    batches: Batches | None
    seeds: tuple[tuple[int, int], ...]
    parts: tuple[tuple[int, int], ...]
    in_order: bool


def read(dataset: Any) -> Chain:
    """Walk back over a dataset's operations.

    Raises:
        HvdtoolsError: It cannot be told how many samples its batches hold.
    """
    operations = list(_all_behind(dataset))
    batches = _batches(dataset)
    ready_first = any(getattr(each, "_deterministic", None) == "false" for each in operations)
    return Chain(
        samples=int(dataset.cardinality()) if batches is None else batches.samples,
        batches=batches,
        seeds=tuple(
            (_number(each._seed), _number(each._seed2))
            for each in operations
            if hasattr(each, "_seed2")
        ),
        parts=tuple(
            (_number(each._num_shards), _number(each._index))
            for each in operations
            if _name(each) == "ShardDataset"
        ),
        in_order=not ready_first and dataset.options().deterministic is not False,
    )


def _all_behind(dataset: Any) -> Iterator[Any]:
    """The dataset's operation and all that feed it."""
    yield dataset
    for feeding in dataset._inputs():
        yield from _all_behind(feeding)


def is_batched_within(dataset: Any) -> bool:
    """True if any operation that feeds the dataset makes batches."""
    return any(_name(operation) in _BATCHES for operation in _all_behind(dataset))


def _name(operation: Any) -> str:
    return type(operation).__name__.lstrip("_")


def _number(tensor: Any) -> int:
    return int(tf.get_static_value(tensor))


def _batches(dataset: Any) -> Batches | None:
    after = []
    operation = dataset
    while _name(operation) in _KEEP_BATCHES:
        after.append(operation)
        (operation,) = operation._inputs()
    if _name(operation) == "ShardDataset" and _batches(*operation._inputs()):
        raise HvdtoolsError(
            "shard() cannot tell how many samples a part of the batches holds: leave "
            "Dataset.shard() out, or put it before batch()."
        )
    if _name(operation) not in _BATCHES:
        return None
    batches = _made_by(operation)
    for following in reversed(after):
        batches = _followed(batches, following)
    return batches


def _made_by(operation: Any) -> Batches:
    (samples_in,) = operation._inputs()
    rows = _number(operation._batch_size)
    drop_remainder = bool(tf.get_static_value(operation._drop_remainder))
    samples = int(samples_in.cardinality())
    if samples > 0 and drop_remainder:
        samples -= samples % rows
    whole = drop_remainder or samples == INFINITE or (samples >= 0 and samples % rows == 0)
    return Batches(
        rows=rows,
        count=int(operation.cardinality()),
        samples=samples,
        whole=whole,
        in_order=True,
        drop_remainder=drop_remainder,
        padded=_name(operation) == "PaddedBatchDataset",
    )


def _followed(batches: Batches, operation: Any) -> Batches:
    """The batches that `operation` makes of these."""
    name = _name(operation)
    count = int(operation.cardinality())
    if name in _MAPS:
        return replace(batches, mapped=True)
    if name == "ShuffleDataset":
        return replace(batches, in_order=batches.whole)
    if count == batches.count:
        return batches
    if name == "RepeatDataset":
        samples = INFINITE if count == INFINITE else _times(batches, count)
        return replace(batches, count=count, samples=samples, in_order=batches.whole)
    if batches.whole:
        return replace(batches, count=count, samples=batches.rows * count if count > 0 else count)
    if batches.samples != UNKNOWN and not batches.in_order:
        raise HvdtoolsError(
            f"shard() cannot tell how many samples {name[: -len('Dataset')].lower()}() leaves, "
            "because a short batch may be anywhere among the batches: count samples before "
            "batch(), or use batch(drop_remainder=True)."
        )
    if name == "SkipDataset" and batches.samples > 0:
        left_out = batches.rows * (batches.count - count)
        return replace(batches, count=count, samples=max(0, batches.samples - left_out))
    if name == "TakeDataset" and batches.count > 0:
        return replace(batches, count=count, samples=batches.rows * count, whole=True)
    return replace(batches, count=count, samples=UNKNOWN)


def _times(batches: Batches, count: int) -> int:
    if batches.samples < 0 or count < 0:
        return UNKNOWN
    return batches.samples * (count // batches.count) if batches.count else 0
