"""Averages and lists over ranks of what a script measures, broadcasts of what one rank knows."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any, TypeVar

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow import named
from hvdtools.tensorflow.session import require_started

ValueT = TypeVar("ValueT")


def average(value: ValueT, count: float = 1) -> ValueT:
    """The mean of `value` over ranks, each rank weighted by `count`.

    ``sum(count_r * value_r) / sum(count_r)``, added up in float64. With `count`
    the number of samples behind a rank's mean this is the mean over all
    samples, however unevenly they are spread. A rank with count 0 adds nothing,
    whatever its value (a NaN from an empty part too).

    Args:
        value: A number, a numpy array or an eager tensor (any shape, the same on
            every rank), or a dict of them (the same keys on every rank), such as
            the logs of `model.evaluate(..., return_dict=True)`.
        count: This rank's weight, 0 or more.

    Returns:
        The same structure: floats for numbers, numpy float64 arrays otherwise.

    Raises:
        HvdtoolsError: Unknown type, different keys or shapes on different
            ranks, a negative count, or no rank has any count.
    """
    require_started("average()")
    if not count >= 0:
        raise HvdtoolsError(f"average() got count={count!r}: it must be 0 or more.")
    items = dict(value) if isinstance(value, Mapping) else {"value": value}
    parts = {name: _numbers(name, items[name]) for name in sorted(items)}
    means = _mean_over_ranks(parts, float(count))
    shaped = {
        name: float(means[name]) if isinstance(item, int | float) else means[name]
        for name, item in items.items()
    }
    result: Any = shaped if isinstance(value, Mapping) else shaped["value"]
    return result


def _numbers(name: str, item: Any) -> NDArray[np.float64]:
    if isinstance(item, int | float | np.ndarray | np.generic) or tf.is_tensor(item):
        array = np.asarray(item)
        if array.dtype.kind in "biuf" or array.dtype == tf.bfloat16.as_numpy_dtype:
            return array.astype(np.float64)
    raise HvdtoolsError(
        f"average() cannot average {name!r}, a {type(item).__name__}: give numbers, arrays, "
        "tensors, or a dict of them."
    )


def _mean_over_ranks(
    parts: dict[str, NDArray[np.float64]], count: float
) -> dict[str, NDArray[np.float64]]:
    layout = [(name, part.shape) for name, part in parts.items()]
    everyone = gather_object((layout, count), "hvdtools.average.layout")
    if any(other != layout for other, _ in everyone):
        raise HvdtoolsError(
            "average() got different names or shapes on different ranks: call it with the same "
            "ones on all."
        )
    total = sum(other for _, other in everyone)
    if total == 0:
        raise HvdtoolsError("average() got count 0 on every rank: there is nothing to average.")
    flat = [part.reshape(-1) * count if count else np.zeros(part.size) for part in parts.values()]
    mine = tf.constant(np.concatenate(flat) if flat else np.zeros(0))
    means = named.allreduce(mine, hvd.Sum, "hvdtools.average").numpy() / total
    ends = np.cumsum([part.size for part in parts.values()])[:-1]
    pieces = zip(parts.items(), np.split(means, ends), strict=True)
    return {name: piece.reshape(part.shape) for (name, part), piece in pieces}


def gather(value: Any) -> list[NDArray[Any]]:
    """Every rank's array, on every rank, in rank order.

    Each rank may bring another shape: predictions for an uneven number of
    samples, nothing at all.

    Args:
        value: An array or an eager tensor, of any shape and dtype.
    """
    require_started("gather()")
    return gather_object(np.asarray(value), "hvdtools.gather")


def gather_object(value: ValueT, label: str) -> list[ValueT]:
    """Every rank's `value`, on every rank, in rank order. It travels pickled.

    Args:
        label: Names the transfer; the same on every rank.
    """
    mine = tf.constant(np.frombuffer(pickle.dumps(value), dtype=np.uint8))
    sizes = named.allgather(tf.constant([len(mine)], tf.int64), f"{label}.sizes").numpy()
    everyone = named.allgather(mine, label).numpy()
    ends = np.cumsum(sizes)
    return [
        pickle.load(io.BytesIO(everyone[end - size : end].tobytes()))
        for end, size in zip(ends, sizes, strict=True)
    ]


def broadcast(value: ValueT, root: int = 0) -> ValueT:
    """Give every rank what rank `root` holds.

    Args:
        value: On `root`, any object that can be pickled; the other ranks'
            values are ignored (None will do). For variables `broadcast_variables`.
        root: The rank whose value is kept, 0 to size - 1.

    Raises:
        HvdtoolsError: There is no such rank.
    """
    require_rank("broadcast()", root)
    held: list[Any] = gather_object(value if hvd.rank() == root else None, "hvdtools.broadcast")
    return held[root]


def require_rank(caller: str, root: int) -> None:
    """Raise if there is no rank `root` to take a value from."""
    size = require_started(caller).size
    if not 0 <= root < size:
        raise HvdtoolsError(
            f"{caller} got root={root!r}: it must be one of the ranks 0 to {size - 1}."
        )
