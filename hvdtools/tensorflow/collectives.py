"""Averages, lists and broadcasts of a script's own values, and requests to stop."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any, TypeVar

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from hvdtools.core import preemption
from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow import named_collectives
from hvdtools.tensorflow.session import require_started

ValueT = TypeVar("ValueT")


def average(value: ValueT, count: float = 1) -> ValueT:
    """The mean of `value` over ranks, each rank weighted by `count`.

    ``sum(count_r * value_r) / sum(count_r)``, summed in float64. If `count` is
    the number of samples in a rank's mean, this is the mean over all samples,
    however unevenly they are spread. A rank with count 0 adds nothing, whatever
    its value (a NaN from an empty shard too).

    Args:
        value: A number, a numpy array or an eager tensor (any shape, the same on
            every rank), or a dict of them (the same keys on every rank), such as
            the logs of `model.evaluate(..., return_dict=True)`.
        count: This rank's weight, 0 or more.

    Returns:
        The same structure: floats for numbers, numpy float64 arrays otherwise.

    Raises:
        HvdtoolsError: Unknown type, different keys or shapes on different
            ranks, a negative count, or a count of 0 on every rank.
    """
    require_started("average()")
    if not count >= 0:
        raise HvdtoolsError(f"average() got count={count!r}: it must be 0 or more.")
    items = dict(value) if isinstance(value, Mapping) else {"value": value}
    arrays = {name: _to_float64(name, items[name]) for name in sorted(items)}
    means = _mean_over_ranks(arrays, float(count))
    shaped = {
        name: float(means[name]) if isinstance(item, int | float) else means[name]
        for name, item in items.items()
    }
    result: Any = shaped if isinstance(value, Mapping) else shaped["value"]
    return result


def _to_float64(name: str, item: Any) -> NDArray[np.float64]:
    if isinstance(item, int | float | np.ndarray | np.generic) or tf.is_tensor(item):
        array = np.asarray(item)
        if array.dtype.kind in "biuf" or array.dtype == tf.bfloat16.as_numpy_dtype:
            return array.astype(np.float64)
    raise HvdtoolsError(
        f"average() cannot average {name!r}, a {type(item).__name__}: give numbers, arrays, "
        "tensors, or a dict of them."
    )


def _mean_over_ranks(
    arrays: dict[str, NDArray[np.float64]], count: float
) -> dict[str, NDArray[np.float64]]:
    layout = [(name, array.shape) for name, array in arrays.items()]
    all_ranks = gather_object((layout, count), "hvdtools.average.layout")
    if any(other != layout for other, _ in all_ranks):
        raise HvdtoolsError(
            "average() got different names or shapes on different ranks: give the same ones on "
            "all ranks."
        )
    total = sum(other for _, other in all_ranks)
    if total == 0:
        raise HvdtoolsError("average() got count 0 on every rank: there is nothing to average.")
    flat = [a.reshape(-1) * count if count else np.zeros(a.size) for a in arrays.values()]
    packed = tf.constant(np.concatenate(flat) if flat else np.zeros(0))
    means = named_collectives.allreduce(packed, hvd.Sum, "hvdtools.average").numpy() / total
    ends = np.cumsum([array.size for array in arrays.values()])[:-1]
    pieces = zip(arrays.items(), np.split(means, ends), strict=True)
    return {name: piece.reshape(array.shape) for (name, array), piece in pieces}


def gather(value: Any) -> list[NDArray[Any]]:
    """Every rank's array, on every rank, in rank order.

    Shapes may differ between ranks, as with predictions for an uneven number of
    samples, and arrays may be empty.

    Args:
        value: An array or an eager tensor, of any shape and dtype.
    """
    require_started("gather()")
    return gather_object(np.asarray(value), "hvdtools.gather")


def gather_object(value: ValueT, label: str) -> list[ValueT]:
    """Every rank's `value`, on every rank, in rank order; sent pickled.

    Args:
        label: The name of the collective; the same on every rank.
    """
    own = tf.constant(np.frombuffer(pickle.dumps(value), dtype=np.uint8))
    size = tf.constant([len(own)], tf.int64)
    sizes = named_collectives.allgather(size, f"{label}.sizes").numpy()
    all_ranks = named_collectives.allgather(own, label).numpy()
    ends = np.cumsum(sizes)
    return [
        pickle.load(io.BytesIO(all_ranks[end - size : end].tobytes()))
        for end, size in zip(ends, sizes, strict=True)
    ]


def broadcast(value: ValueT, root: int = 0) -> ValueT:
    """Give every rank the value of rank `root`.

    Args:
        value: On `root`, any object that can be pickled; the other ranks' values
            are ignored and may be None. For variables use `broadcast_variables`.
        root: The rank with the value to keep, 0 to size - 1.

    Raises:
        HvdtoolsError: There is no such rank.
    """
    require_rank("broadcast()", root)
    all_ranks: list[Any] = gather_object(
        value if hvd.rank() == root else None, "hvdtools.broadcast"
    )
    return all_ranks[root]


def require_rank(caller: str, root: int) -> None:
    """Raise unless `root` is a rank of the job."""
    size = require_started(caller).size
    if not 0 <= root < size:
        raise HvdtoolsError(
            f"{caller} got root={root!r}: it must be one of the ranks 0 to {size - 1}."
        )


def stop_requested() -> bool:
    """True on every rank, from the same call on, once any rank got the signal to save and stop.

    The signal is SIGUSR1, or the one that HVDTOOLS_SIGNAL names. launch/slurm.sbatch forwards
    it to all ranks some time before the job's time is up, and restarts the job if it then ends
    with exit code 75. After the first call the signal no longer ends the process. Each call
    is an all-gather of one number: call it on every rank, outside a `tf.function`.

    Raises:
        HvdtoolsError: `init()` was not called, or the first call is not in the main thread.
    """
    require_started("stop_requested()")
    preemption.install_handler()
    if hvd.size() == 1:
        return preemption.signal_received()
    received = tf.constant([preemption.signal_received()], tf.int32)
    return bool(named_collectives.allgather(received, "hvdtools.stop_requested").numpy().any())
