"""This rank's rows of arrays."""

from __future__ import annotations

import zlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import Deal


def are_arrays(data: Any) -> bool:
    """True for an array or a tensor, or a tuple, list or dict that holds nothing else but None."""
    parts = [part for part in keras.tree.flatten(data) if part is not None]
    return bool(parts) and all(isinstance(p, np.ndarray | tf.Tensor) and p.ndim for p in parts)


def rows(data: Any) -> int:
    """How many samples the arrays hold.

    Raises:
        HvdtoolsError: Not all of them hold as many, or none.
    """
    counts = {int(part.shape[0]) for part in keras.tree.flatten(data) if part is not None}
    if len(counts) > 1:
        raise HvdtoolsError(
            f"shard() got arrays of {', '.join(map(str, sorted(counts)))} rows: the first axis "
            "counts samples, so give arrays that are equally long."
        )
    (count,) = counts
    if not count:
        raise HvdtoolsError("shard() got arrays without any row.")
    return count


def described(data: Any) -> str:
    """What must be the same on every rank: shapes, and a sample of the rows for their order."""
    shapes = keras.tree.map_structure(_shape_and_dtype, data)
    arrays = [array for array in keras.tree.flatten(data) if array is not None]
    return f"arrays of {shapes}, with rows whose checksum is {_checksum(arrays)}"


def _checksum(arrays: list[Any]) -> int:
    """Of each array's first, middle and last row."""
    total = 0
    for array in arrays:
        for row in (0, len(array) // 2, len(array) - 1) if len(array) else ():
            total = zlib.crc32(repr(np.asarray(array[row]).tolist()).encode(), total)
    return total


def _shape_and_dtype(part: Any) -> str | None:
    return None if part is None else f"{tuple(part.shape)} {tf.as_dtype(part.dtype).name}"


def part(data: Any, deal: Deal) -> Any:
    """The same structure with one rank's rows: views of numpy arrays, where nothing is repeated.

    Raises:
        HvdtoolsError: "drop" would leave everything out, or the rows are to be weighted.
    """
    if deal.uneven == "weighted":
        raise HvdtoolsError(
            'uneven="weighted" weighs batches, and arrays have none yet: use '
            "tf.data.Dataset.from_tensor_slices(...).batch(n), or a keras.utils.PyDataset."
        )
    whole = rows(data)
    deal.require_enough(whole, "samples")
    own = deal.own(whole)
    padding = deal.padding(whole)

    def dealt(array: Any) -> Any:
        if array is None:
            return None
        mine = array[own.start : own.stop : own.step]
        return mine if padding is None else _joined(mine, array[padding : padding + 1])

    return keras.tree.map_structure(dealt, data)


def _joined(first: Any, second: Any) -> Any:
    join = np.concatenate if isinstance(first, np.ndarray) else tf.concat
    return join([first, second], 0)
