"""Shards of a keras.utils.PyDataset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import Sharding
from hvdtools.keras.data.sample_weights import add_weights, require_weightable, sample_weight


@dataclass(frozen=True)
class PyDatasetBatches:
    """The batches of a PyDataset.

    Attributes:
        count: Number of batches; None if they never end.
        rows: Samples in each of them but the last.
        last_rows: Samples in the last one.
    """

    count: int | None
    rows: int
    last_rows: int

    def describe(self) -> str:
        """What must be the same on every rank."""
        if self.count is None:
            return f"a PyDataset of endless batches of {self.rows}"
        return (
            f"a PyDataset of {self.count} batches of {self.rows}, the last one of {self.last_rows}"
        )

    def rows_of(self, number: int) -> int:
        """Samples in one batch."""
        is_last = self.count is not None and number == self.count - 1
        return self.last_rows if is_last else self.rows

    def rows_of_step(self, first: int, size: int) -> int:
        """Samples in the existing ones of the batches `first` to `first + size - 1`."""
        end = first + size if self.count is None else min(first + size, self.count)
        return sum(self.rows_of(number) for number in range(first, end))


def read_batches(dataset: Any, uneven: str) -> PyDatasetBatches:
    """Load the first and the last batch.

    Raises:
        HvdtoolsError: It is a shard already, has no length or no batch, or its batches
            cannot be weighted.
    """
    if isinstance(dataset, PyDatasetShard):
        raise HvdtoolsError("shard() got a shard: call it once for each dataset.")
    try:
        count = dataset.num_batches
    except NotImplementedError:
        raise HvdtoolsError(
            f"shard() must know how many batches {type(dataset).__name__} has: give it a __len__ "
            "(num_batches may be None for one that never ends)."
        ) from None
    if count == 0:
        raise HvdtoolsError("shard() got an empty dataset.")
    first = dataset[0]
    if uneven == "weighted":
        require_weightable(first)
    rows = _count_rows(first)
    last_rows = rows if count in (None, 1) else _count_rows(dataset[count - 1])
    return PyDatasetBatches(count, rows, last_rows)


def _count_rows(batch: Any) -> int:
    """The samples in a batch: the length of its first array."""
    for array in keras.tree.flatten(batch):
        if len(getattr(array, "shape", ())):
            return int(array.shape[0])
    raise HvdtoolsError(
        f"shard() finds no array in a batch (a {type(batch).__name__}) to count its samples by: "
        "let __getitem__() return arrays."
    )


class PyDatasetShard(keras.utils.PyDataset):
    """Every size-th batch of another PyDataset.

    Args:
        source: The same on every rank; its worker settings apply to the shard.
        batches: The batches of `source`.
        sharding: Of its batches, with batch 1.

    Raises:
        HvdtoolsError: "drop" would leave everything out.
    """

    def __init__(self, source: Any, batches: PyDatasetBatches, sharding: Sharding) -> None:
        super().__init__(
            workers=source.workers,
            use_multiprocessing=source.use_multiprocessing,
            max_queue_size=source.max_queue_size,
        )
        self._source = source
        self._batches = batches
        self._sharding = sharding
        self._total = batches.count  # number of batches to assign; None if they never end
        if self._total is not None:
            if sharding.uneven == "drop" and batches.last_rows < batches.rows:
                self._total -= 1
            sharding.require_enough(self._total, "whole batches")

    def __len__(self) -> int:
        count = self.num_batches
        if count is None:
            raise TypeError("this dataset never ends, and so has no length")
        return count

    @property
    def num_batches(self) -> int | None:
        """PyDatasetBatches of this rank; None if they never end."""
        if self._total is None:
            return None
        # A filler batch repeats one as "pad" does, with weight 0.
        mode = "pad" if self._sharding.uneven == "weighted" else self._sharding.uneven
        return replace(self._sharding, uneven=mode).length(self._total)

    def __getitem__(self, index: int) -> Any:
        position = index * self._sharding.size + self._sharding.rank
        is_filler = self._total is not None and position >= self._total
        number = position % self._total if is_filler and self._total else position
        batch = self._source[number]
        if self._sharding.uneven == "pad":
            return _repeat_rows(batch, self._batches.rows)
        if self._sharding.uneven == "weighted":
            self._require_rows(number, _count_rows(batch))
            return self._weight(batch, index, is_filler=is_filler)
        return batch

    def on_epoch_begin(self) -> None:
        self._source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._source.on_epoch_end()

    def _weight(self, batch: Any, index: int, *, is_filler: bool) -> Any:
        rows, size = _count_rows(batch), self._sharding.size
        total = self._batches.rows_of_step(index * size, size)
        weight = 0.0 if is_filler else sample_weight(size, rows, total)
        return add_weights(batch, np.full(rows, weight, keras.config.floatx()), _cast_like)

    def _require_rows(self, number: int, rows: int) -> None:
        expected = self._batches.rows_of(number)
        if rows != expected:
            raise HvdtoolsError(
                f"Batch {number} holds {rows} samples instead of {expected}, and "
                'uneven="weighted" needs batches of equal length except for the last one: let '
                "__getitem__() return such batches, or use another mode."
            )


def _repeat_rows(batch: Any, rows: int) -> Any:
    """The batch with its first samples repeated until there are `rows`."""
    present = _count_rows(batch)
    if present >= rows:
        return batch
    turn = np.arange(rows) % present

    def repeat(array: Any) -> Any:
        return None if array is None else np.asarray(array)[turn]

    return keras.tree.map_structure(repeat, batch)


def _cast_like(weights: Any, like: Any) -> Any:
    return np.asarray(weights).astype(like.dtype)
