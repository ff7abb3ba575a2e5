"""`shard()`: this rank's part of a dataset or of arrays."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.core.sharding import Sharding
from hvdtools.keras.data import arrays, tf_dataset
from hvdtools.keras.data.pipeline import Pipeline, read_pipeline, require_shardable
from hvdtools.keras.data.pydataset import PyDatasetShard, read_batches
from hvdtools.tensorflow.collectives import gather_object
from hvdtools.tensorflow.session import require_started

DataT = TypeVar("DataT")
_LABEL = "hvdtools.shard"


def shard(data: DataT, *, uneven: str | None = None) -> DataT:
    """This rank's part of `data`, for `model.fit` and `model.evaluate`.

    Samples are assigned to ranks in turn, and a batch size in `data` is that of one
    rank: the k-th batches of all ranks together are the k-th batch of one process with
    a batch size times the number of ranks. `uneven` determines what happens to samples
    that do not divide evenly:

    - "drop" (the default): up to size - 1 samples are left out, different ones in each
      epoch of shuffled data. Equal steps on every rank.
    - "pad": the first samples of the order are repeated to fill. Equal steps.
    - "weighted": every sample exactly once, equal steps; batches become (x, y,
      sample_weight). A rank that gets fewer samples than others gets one of the first
      ones again with weight 0 (of a PyDataset one of the first batches). In an incomplete
      last step the weights make the average of gradients over ranks equal to the gradient
      of the mean over all samples of all ranks' batches.
    - "ragged": every sample exactly once and nothing repeated, so some ranks have one
      batch more than others, or none. For evaluation without communication.

    With `batch(drop_remainder=True)` an incomplete batch of all ranks together is left
    out in every mode. On one rank `data` is returned unchanged.

    "weighted" is exact for losses with Keras' default reduction, "sum_over_batch_size";
    not for "sum" and "mean_with_sample_weight", nor for masked losses. It multiplies your
    `sample_weight`; without one the weights have as many axes as the targets.
    `class_weight=` is not supported. `weighted_metrics=` respect the weights; `metrics=`
    and batch norm count a filler as a sample. In the loss and the weighted metrics that
    `fit()` reports, a last step counts by its rows. To evaluate exactly use "ragged", and
    `average()` the results of `evaluate()` with `count=` this rank's samples.

    `data` may be:

    - A `tf.data.Dataset` that ends in `batch()`, or in `map`, `prefetch`, `cache`,
      `shuffle`, `repeat`, `take` or `skip` after it: its batches are split, and new ones
      are made of this rank's samples. (With `repeat` after a short last batch, batches
      continue across the end of an epoch.)
    - Any other `tf.data.Dataset`. Its elements are the samples, and "weighted" is not
      supported. **Everything before shard() runs on every rank**: if reading or decoding
      is expensive, call it early, which works in all modes::

          hvt.shard(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(64)

      Every rank must begin every pass: if one rank alone reads a first batch, that rank
      moves on to the next epoch's order.
    - A `keras.utils.PyDataset`: whole batches are assigned, rank r's k-th is
      ``data[k * size + r]``. All but the last must have equal length, and "drop" leaves
      out an incomplete last one. `fit()` shuffles their order with Python's random
      numbers: for "weighted" seed those alike on all ranks
      (`keras.utils.set_random_seed`), or use ``fit(shuffle=False)``.
    - Arrays (numpy's, or tensors) in any tuple, list or dict, with samples along the first
      axis: views of every size-th row. "weighted" is not supported.

    Args:
        data: The same, in the same order, on every rank: a shuffled dataset needs a seed,
            interleave() deterministic=True, and a PyDataset that shuffles itself must do
            so alike on all ranks. Layers (and vectorizers in a map) must be adapted to the
            whole data, before shard(). A cache in a file needs a different file on each
            rank. `data` is not changed.
        uneven: "drop", "pad", "weighted" or "ragged".

    Returns:
        Data of the same kind. A dataset's cardinality is this rank's.

    Raises:
        HvdtoolsError: The data cannot be sharded, its length is unknown, it differs
            between ranks or is shuffled without a common seed, or it has fewer samples
            than there are ranks and "drop" would leave them all out.
    """
    topology = require_started("shard()")
    sharding = Sharding(topology.rank, topology.size, "drop" if uneven is None else uneven, 1)
    part: Any
    if isinstance(data, tf.data.Dataset):
        part = data if sharding.size == 1 else _shard_tf_dataset(data, sharding)
    elif isinstance(data, keras.utils.PyDataset):
        part = data if sharding.size == 1 else _shard_pydataset(data, sharding)
    elif arrays.are_arrays(data):
        part = data if sharding.size == 1 else _shard_arrays(data, sharding)
    else:
        raise HvdtoolsError(
            f"shard() got a {type(data).__name__}: give it a tf.data.Dataset, a "
            "keras.utils.PyDataset, or arrays with samples along the first axis (in a tuple, list "
            "or dict)."
        )
    return part


def _shard_tf_dataset(data: Any, sharding: Sharding) -> Any:
    pipeline = read_pipeline(data)
    require_shardable(data, pipeline, sharding.uneven)
    _require_same_data(tf_dataset.describe(data, pipeline), sharding.uneven)
    _require_same_order(pipeline)
    return tf_dataset.shard_dataset(data, pipeline, sharding)


def _shard_pydataset(data: Any, sharding: Sharding) -> Any:
    batches = read_batches(data, sharding.uneven)
    _require_same_data(batches.describe(), sharding.uneven)
    if sharding.uneven == "weighted":
        _warn_of_shuffling(sharding.rank)
    return PyDatasetShard(data, batches, sharding)


def _shard_arrays(data: Any, sharding: Sharding) -> Any:
    _require_same_data(arrays.describe(data), sharding.uneven)
    return arrays.shard_arrays(data, sharding)


def _require_same_data(description: str, uneven: str) -> None:
    """Raise on every rank if the ranks' descriptions of their data differ."""
    all_ranks = gather_object(f"{description}, uneven={uneven!r}", f"{_LABEL}.data")
    for rank, other in enumerate(all_ranks):
        if other != all_ranks[0]:
            raise HvdtoolsError(
                f"The ranks gave shard() different data (rank 0: {all_ranks[0]}; rank {rank}: "
                f"{other}): it splits one dataset that must be the same on all ranks."
            )


def _require_same_order(pipeline: Pipeline) -> None:
    """Raise on every rank if the order differs between ranks, which repeats and loses samples."""
    all_ranks = gather_object((pipeline.shards, pipeline.seeds), f"{_LABEL}.order")
    rank = _first_different([shards for shards, _ in all_ranks])
    if rank is not None:
        raise HvdtoolsError(
            f"Dataset.shard() splits the data already, on rank {rank} in another way than on rank "
            "0: remove it, since shard() splits what is the same on all ranks."
        )
    rank = _first_different([seeds for _, seeds in all_ranks])
    if rank is not None:
        raise HvdtoolsError(
            f"The dataset is shuffled with a different seed on rank {rank} than on rank 0, so "
            "samples would be repeated and lost: call keras.utils.set_random_seed(n), with the "
            "same n on all ranks, before the dataset is created in the same way on all ranks."
        )
    if (0, 0) in pipeline.seeds:
        raise HvdtoolsError(
            "The dataset is shuffled without a seed, so its order differs between ranks, and "
            "samples would be repeated and lost: use shuffle(..., seed=n), or call "
            "keras.utils.set_random_seed(n) before the dataset is created, with the same n on all "
            "ranks."
        )
    if not pipeline.deterministic:
        raise HvdtoolsError(
            "The dataset yields elements as they become ready (deterministic=False), so its order "
            "differs between ranks, and samples would be repeated and lost: use "
            "deterministic=True there and in its options."
        )


def _warn_of_shuffling(rank: int) -> None:
    """Warn on rank 0 if `fit()` would shuffle a PyDataset's batches differently on each rank."""
    state = zlib.crc32(repr(random.getstate()).encode())
    all_ranks = gather_object(state, f"{_LABEL}.shuffling")
    if rank == 0 and _first_different(all_ranks) is not None:
        logger.warning(
            'shard(uneven="weighted"): fit() shuffles the batches of a PyDataset with Python\'s '
            "random numbers, which differ between ranks here. The weights of the last step are "
            "right only if the order is the same on all ranks: call keras.utils.set_random_seed(n) "
            "with the same n on all ranks, or fit(shuffle=False)."
        )


def _first_different(all_ranks: Sequence[object]) -> int | None:
    """The first rank that differs from rank 0."""
    return next((rank for rank, other in enumerate(all_ranks) if other != all_ranks[0]), None)
