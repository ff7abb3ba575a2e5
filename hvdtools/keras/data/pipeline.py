"""What is known of a tf.data.Dataset without reading it, and whether it can be sharded.

A dataset is the last operation of a pipeline. TensorFlow's classes of operations are
private, so they are recognized by name; reading stops at an unknown one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.data.sample_weights import require_weightable

INFINITE: int = tf.data.INFINITE_CARDINALITY
UNKNOWN: int = tf.data.UNKNOWN_CARDINALITY

_BATCHES = ("BatchDataset", "ParallelBatchDataset", "PaddedBatchDataset")
_MAPS = ("MapDataset", "ParallelMapDataset")
# These pass each batch on, or leave out and repeat whole batches.
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
    """The batches that a pipeline yields.

    Attributes:
        rows: Samples in each batch that is not short.
        count: Number of batches, INFINITE or UNKNOWN.
        samples: Number of samples in all of them, INFINITE or UNKNOWN.
        all_full: True if no batch is short.
        only_last_short: True if no batch but the last can be short.
        drop_remainder: The argument of batch().
        padded: True for padded_batch().
        mapped: True if a map() follows, which could change the number of rows.
    """

    rows: int
    count: int
    samples: int
    all_full: bool
    only_last_short: bool
    drop_remainder: bool
    padded: bool
    mapped: bool = False


@dataclass(frozen=True)
class Pipeline:
    """What is known of a dataset.

    Attributes:
        samples: Number of samples, INFINITE or UNKNOWN: the rows in all batches, or the
            elements if the dataset is not batched.
        batches: None if the pipeline does not end in batch(); elements are samples then.
        seeds: Of each shuffle() and similar operation; (0, 0) without a seed.
        shards: (number of shards, index) of each Dataset.shard().
        deterministic: False if elements come in the order in which they are ready.
    """

    samples: int
    batches: Batches | None
    seeds: tuple[tuple[int, int], ...]
    shards: tuple[tuple[int, int], ...]
    deterministic: bool


def read_pipeline(dataset: Any) -> Pipeline:
    """Follow a dataset's operations back to their sources.

    Raises:
        HvdtoolsError: The number of samples in its batches cannot be determined.
    """
    operations = list(_operations(dataset))
    batches = _read_batches(dataset)
    by_readiness = any(getattr(each, "_deterministic", None) == "false" for each in operations)
    return Pipeline(
        samples=int(dataset.cardinality()) if batches is None else batches.samples,
        batches=batches,
        seeds=tuple(
            (_static_int(each._seed), _static_int(each._seed2))
            for each in operations
            if hasattr(each, "_seed2")
        ),
        shards=tuple(
            (_static_int(each._num_shards), _static_int(each._index))
            for each in operations
            if _name(each) == "ShardDataset"
        ),
        deterministic=not by_readiness and dataset.options().deterministic is not False,
    )


def _operations(dataset: Any) -> Iterator[Any]:
    """The dataset's operation and all operations before it."""
    yield dataset
    for source in dataset._inputs():
        yield from _operations(source)


def _name(operation: Any) -> str:
    return type(operation).__name__.lstrip("_")


def _static_int(tensor: Any) -> int:
    return int(tf.get_static_value(tensor))


def _read_batches(dataset: Any) -> Batches | None:
    following = []
    operation = dataset
    while _name(operation) in _KEEP_BATCHES:
        following.append(operation)
        (operation,) = operation._inputs()
    if _name(operation) == "ShardDataset" and _read_batches(*operation._inputs()):
        raise HvdtoolsError(
            "shard() cannot determine the number of samples in a part of the batches: remove "
            "Dataset.shard(), or put it before batch()."
        )
    if _name(operation) not in _BATCHES:
        return None
    batches = _batches_of(operation)
    for each in reversed(following):
        batches = _after(batches, each)
    return batches


def _batches_of(operation: Any) -> Batches:
    """The batches of a batch()."""
    (source,) = operation._inputs()
    rows = _static_int(operation._batch_size)
    drop_remainder = bool(tf.get_static_value(operation._drop_remainder))
    samples = int(source.cardinality())
    if samples > 0 and drop_remainder:
        samples -= samples % rows
    all_full = drop_remainder or samples == INFINITE or (samples >= 0 and samples % rows == 0)
    return Batches(
        rows=rows,
        count=int(operation.cardinality()),
        samples=samples,
        all_full=all_full,
        only_last_short=True,
        drop_remainder=drop_remainder,
        padded=_name(operation) == "PaddedBatchDataset",
    )


def _after(batches: Batches, operation: Any) -> Batches:
    """The batches after one more operation."""
    name = _name(operation)
    count = int(operation.cardinality())
    if name in _MAPS:
        return replace(batches, mapped=True)
    if name == "ShuffleDataset":
        return replace(batches, only_last_short=batches.all_full)
    if count == batches.count:
        return batches
    if name == "RepeatDataset":
        samples = INFINITE if count == INFINITE else _repeated_samples(batches, count)
        return replace(batches, count=count, samples=samples, only_last_short=batches.all_full)
    if batches.all_full:
        return replace(batches, count=count, samples=batches.rows * count if count > 0 else count)
    if batches.samples != UNKNOWN and not batches.only_last_short:
        raise HvdtoolsError(
            "shard() cannot determine the number of samples that "
            f"{name[: -len('Dataset')].lower()}() leaves, because any of the batches may be short: "
            "count samples before batch(), or use batch(drop_remainder=True)."
        )
    if name == "SkipDataset" and batches.samples > 0:
        skipped = batches.rows * (batches.count - count)
        return replace(batches, count=count, samples=max(0, batches.samples - skipped))
    if name == "TakeDataset" and batches.count > 0:
        return replace(batches, count=count, samples=batches.rows * count, all_full=True)
    return replace(batches, count=count, samples=UNKNOWN)


def _repeated_samples(batches: Batches, count: int) -> int:
    if batches.samples < 0 or count < 0:
        return UNKNOWN
    return batches.samples * (count // batches.count) if batches.count else 0


def require_shardable(dataset: Any, pipeline: Pipeline, uneven: str) -> None:
    """Raise if the dataset cannot be sharded.

    Raises:
        HvdtoolsError: The message gives the reason and a remedy.
    """
    if pipeline.samples == UNKNOWN:
        raise HvdtoolsError(
            "shard() must know the number of samples, and this dataset does not (it comes from a "
            "generator, a reader of files or a filter): put "
            ".apply(tf.data.experimental.assert_cardinality(n)) before its batch()."
        )
    if pipeline.samples == 0:
        raise HvdtoolsError("shard() got an empty dataset.")
    specs = tf.nest.flatten(dataset.element_spec)
    repeats = uneven in ("pad", "weighted") and pipeline.samples != INFINITE
    if pipeline.batches is None:
        _require_no_hidden_batches(dataset, specs)
        _require_elements(specs, uneven, repeats=repeats)
        return
    if uneven == "weighted":
        require_weightable(dataset.element_spec)
    _require_rows(specs, pipeline.batches)
    if repeats and not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        raise HvdtoolsError(
            f"uneven={uneven!r} repeats rows of dense tensors only, and some are ragged: use "
            '"drop" or "ragged".'
        )


def _require_no_hidden_batches(dataset: Any, specs: list[Any]) -> None:
    """Batches before a zip() or a concatenate() would be assigned as if they were samples."""
    shapes = [getattr(spec, "shape", tf.TensorShape(None)) for spec in specs]
    lengths_vary = all(shape.rank and shape[0] is None for shape in shapes)
    if lengths_vary and any(_name(operation) in _BATCHES for operation in _operations(dataset)):
        raise HvdtoolsError(
            "shard() does not support the operation after batch() (a zip, a concatenate, an "
            "enumerate ...): call batch() after it, or shard() before it."
        )


def _require_elements(specs: list[Any], uneven: str, *, repeats: bool) -> None:
    if uneven == "weighted":
        raise HvdtoolsError(
            'uneven="weighted" weights batches, and the elements of this dataset are samples (or '
            "an operation after its batch() is not supported): call shard() right after batch()."
        )
    if repeats and not all(_has_fixed_shape(spec, from_axis=0) for spec in specs):
        raise HvdtoolsError(
            'uneven="pad" repeats elements, which must have one static shape: put a map() with '
            'tf.ensure_shape() before shard(), or use "drop" or "ragged".'
        )


def _require_rows(specs: list[Any], batches: Batches) -> None:
    for spec in specs:
        if not isinstance(spec, tf.TensorSpec | tf.RaggedTensorSpec):
            raise HvdtoolsError(
                f"shard() cannot split batches of {spec.value_type.__name__}s: call shard() before "
                "batch()."
            )
    if any(spec.shape.rank == 0 for spec in specs):
        raise HvdtoolsError(
            "shard() splits batches into rows, and a component of these batches is a single value: "
            "add that component after shard()."
        )
    if batches.padded and not all(_has_fixed_shape(spec, from_axis=1) for spec in specs):
        raise HvdtoolsError(
            "shard() would have to concatenate rows that padded_batch() padded to different "
            "lengths: call shard() before padded_batch(), or set its padded_shapes."
        )
    if batches.mapped and any(_has_varying_rows(spec) for spec in specs):
        raise HvdtoolsError(
            "shard() would have to concatenate rows, and a map() after batch() may make them of "
            "different lengths: call shard() before batch(), or give the rows one length."
        )


def _has_varying_rows(spec: Any) -> bool:
    """True for dense batches of rows with an axis of unknown length."""
    return (
        isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None and None in spec.shape[1:]
    )


def _has_fixed_shape(spec: Any, *, from_axis: int) -> bool:
    """True for dense tensors of known shape from `from_axis` on."""
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None:
        return False
    return bool(spec.shape[from_axis:].is_fully_defined())
