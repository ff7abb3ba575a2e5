"""Give each rank its part of the data."""

from __future__ import annotations

from typing import Any, TypeVar

import keras
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import Deal
from hvdtools.keras.data import arrays, chain, pydataset, tfdata
from hvdtools.keras.data.agree import require_same, require_same_order, warn_of_shuffling
from hvdtools.keras.data.dealable import require_dealable
from hvdtools.tensorflow.session import require_started

DataT = TypeVar("DataT")


def shard(data: DataT, *, uneven: str | None = None) -> DataT:
    """This rank's part of `data`, for `model.fit` and `model.evaluate`.

    Samples are dealt out in turn, and a batch size in `data` is that of one
    rank: the k-th batches of all ranks together are the k-th batch of one
    process with a batch size times the number of ranks. `uneven` says what
    becomes of the samples that do not divide evenly:

    - "drop" (where nothing is said): up to size - 1 samples are left out,
      others in each epoch of shuffled data. Equal steps on every rank.
    - "pad": the first samples of the order are repeated to fill. Equal steps.
    - "weighted": every sample exactly once, equal steps; batches become (x, y,
      sample_weight). A rank that gets less than others gets one of the first
      samples again with weight 0 (of a PyDataset one of the first batches), and
      in an incomplete last step the samples weigh so much that the average of
      gradients over ranks is the gradient of the mean over all samples of all
      ranks' batches.
    - "ragged": every sample exactly once and nothing repeated, so some ranks
      have a batch more, or none. For evaluation on which nothing is exchanged.

    With `batch(drop_remainder=True)` an incomplete batch of all ranks together
    is left out in every mode. On one rank `data` is returned as it is.

    "weighted" is exact for losses with Keras' default reduction,
    "sum_over_batch_size"; not for "sum" and "mean_with_sample_weight", nor for
    masked losses. A `sample_weight` of your own is multiplied; without one the
    weights have as many axes as the targets; `class_weight=` is not possible.
    `weighted_metrics=` honour the weights, `metrics=` and batch norm count a
    stand-in as a sample; the loss and the weighted metrics that `fit()` reports
    count a last step by its rows. To evaluate exactly deal "ragged", and `average()` what
    `evaluate()` returns with `count=` this rank's samples.

    What can be dealt:

    - A `tf.data.Dataset` that ends in `batch()`, or in `map`, `prefetch`,
      `cache`, `shuffle`, `repeat`, `take` or `skip` after it: its batches are
      taken apart and made anew of this rank's samples. (With `repeat` after a
      short last batch they run on over the end of an epoch.)
    - Any other `tf.data.Dataset`, whose elements are then the samples (and
      cannot be "weighted"). **Everything before shard() runs on every rank**,
      so where reading or decoding is dear deal early, and alike in all modes::

          hvt.shard(files).map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(64)

      Every rank must begin every pass: a look at a first batch on one rank
      alone moves that rank to the next epoch's order.
    - A `keras.utils.PyDataset`: whole batches are dealt, rank r's k-th is
      ``data[k * size + r]``; all but the last must be equally long, and "drop"
      leaves an incomplete last one out. `fit()` shuffles their order with Python's
      random numbers: for "weighted" seed those alike on all ranks
      (`keras.utils.set_random_seed`), or say ``fit(shuffle=False)``.
    - Arrays (numpy's, or tensors) in any tuple, list or dict, with samples
      along the first axis: views of every size-th row. Not "weighted".

    Args:
        data: The same, in the same order, on every rank: a shuffled dataset
            needs a seed, interleave() its order (deterministic=True), and a
            PyDataset that shuffles itself must do so alike on all ranks. Layers
            (and vectorizers in a map) are adapted to the whole data, before
            shard(). A cache in a file needs one for each rank. It is not changed.
        uneven: "drop", "pad", "weighted" or "ragged".

    Returns:
        Data of the same kind. A dataset's cardinality is this rank's.

    Raises:
        HvdtoolsError: The data cannot be dealt out, its length is unknown, it
            differs between ranks or is shuffled there without a common seed, or
            it has fewer samples than there are ranks and "drop" leaves them out.
    """
    topology = require_started("shard()")
    deal = Deal(topology.rank, topology.size, "drop" if uneven is None else uneven, 1)
    part: DataT = part_of(data, deal)
    return part


def part_of(data: Any, deal: Deal) -> Any:
    """The part of the data that `deal` gives; a collective of all ranks.

    Raises:
        HvdtoolsError: As `shard()`.
    """
    if isinstance(data, tf.data.Dataset):
        return data if deal.size == 1 else _part_of_dataset(data, deal)
    if isinstance(data, keras.utils.PyDataset):
        return data if deal.size == 1 else _part_of_py_dataset(data, deal)
    if arrays.are_arrays(data):
        return data if deal.size == 1 else _part_of_arrays(data, deal)
    raise HvdtoolsError(
        f"shard() got a {type(data).__name__}: give it a tf.data.Dataset, a keras.utils.PyDataset, "
        "or arrays with samples along the first axis (in a tuple, list or dict)."
    )


def _part_of_dataset(data: Any, deal: Deal) -> Any:
    operations = chain.read(data)
    require_dealable(data, operations, deal.uneven)
    require_same(tfdata.described(data, operations), deal.uneven)
    require_same_order(operations)
    return tfdata.part(data, operations, deal)


def _part_of_py_dataset(data: Any, deal: Deal) -> Any:
    batches = pydataset.read(data, deal.uneven)
    require_same(pydataset.described(batches), deal.uneven)
    if deal.uneven == "weighted":
        warn_of_shuffling(deal.rank)
    return pydataset.PartOfPyDataset(data, batches, deal)


def _part_of_arrays(data: Any, deal: Deal) -> Any:
    require_same(arrays.described(data), deal.uneven)
    return arrays.part(data, deal)
