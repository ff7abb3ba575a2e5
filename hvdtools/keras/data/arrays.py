"""Shards of arrays and tensors."""

from __future__ import annotations

import zlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import Sharding


def are_arrays(data: Any) -> bool:
    """True for an array or tensor, or a tuple, list or dict of only these and None."""
    leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    return bool(leaves) and all(isinstance(a, np.ndarray | tf.Tensor) and a.ndim for a in leaves)


def describe(data: Any) -> str:
    """What must be the same on every rank: shapes, and a checksum of a few rows for their order."""
    shapes = keras.tree.map_structure(_shape_and_dtype, data)
    arrays = [array for array in keras.tree.flatten(data) if array is not None]
    return f"arrays of {shapes}, with row checksum {_checksum(arrays)}"


def _shape_and_dtype(array: Any) -> str | None:
    return None if array is None else f"{tuple(array.shape)} {tf.as_dtype(array.dtype).name}"


def _checksum(arrays: list[Any]) -> int:
    """Of each array's first, middle and last row."""
    total = 0
    for array in arrays:
        for row in (0, len(array) // 2, len(array) - 1) if len(array) else ():
            total = zlib.crc32(repr(np.asarray(array[row]).tolist()).encode(), total)
    return total


def shard_arrays(data: Any, sharding: Sharding) -> Any:
    """The same structure with one rank's rows: views of numpy arrays unless rows are repeated.

    Raises:
        HvdtoolsError: The arrays have different lengths or no rows, "drop" would leave
            everything out, or `uneven` is "weighted".
    """
    if sharding.uneven == "weighted":
        raise HvdtoolsError(
            'uneven="weighted" weights batches, and arrays are not batched yet: use '
            "tf.data.Dataset.from_tensor_slices(...).batch(n), or a keras.utils.PyDataset."
        )
    total = _count_rows(data)
    sharding.require_enough(total, "samples")
    positions = sharding.positions(total)
    padding = sharding.padding(total)

    def shard_of(array: Any) -> Any:
        if array is None:
            return None
        rows = array[positions.start : positions.stop : positions.step]
        return rows if padding is None else _concatenate(rows, array[padding : padding + 1])

    return keras.tree.map_structure(shard_of, data)


def _count_rows(data: Any) -> int:
    counts = {int(array.shape[0]) for array in keras.tree.flatten(data) if array is not None}
    if len(counts) > 1:
        raise HvdtoolsError(
            f"shard() got arrays of {', '.join(map(str, sorted(counts)))} rows: the first axis "
            "counts samples, so all arrays must have the same length."
        )
    (count,) = counts
    if not count:
        raise HvdtoolsError("shard() got arrays without rows.")
    return count


def _concatenate(first: Any, second: Any) -> Any:
    function = np.concatenate if isinstance(first, np.ndarray) else tf.concat
    return function([first, second], 0)
