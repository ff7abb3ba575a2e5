"""This rank's part of a keras.utils.PyDataset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import Deal
from hvdtools.keras.data.weights import require_weighable, sample_weight, weighted


@dataclass(frozen=True)
class Batches:
    """What a PyDataset holds.

    Attributes:
        count: Number of batches; None if they never end.
        rows: Samples in each of them but the last.
        last_rows: Samples in the last one.
    """

    count: int | None
    rows: int
    last_rows: int


def read(dataset: Any, uneven: str) -> Batches:
    """Look at the first and the last batch.

    Raises:
        HvdtoolsError: It is a part already, or has no length, no batch, or none that can be
            weighed.
    """
    if isinstance(dataset, PartOfPyDataset):
        raise HvdtoolsError("shard() got what it made itself: call it once for each dataset.")
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
        require_weighable(first)
    rows = rows_in(first)
    last_rows = rows if count in (None, 1) else rows_in(dataset[count - 1])
    return Batches(count, rows, last_rows)


def described(batches: Batches) -> str:
    """What must be the same on every rank."""
    if batches.count is None:
        return f"a PyDataset of endless batches of {batches.rows}"
    return (
        f"a PyDataset of {batches.count} batches of {batches.rows}, the last one of "
        f"{batches.last_rows}"
    )


def rows_in(batch: Any) -> int:
    """The samples in a batch: the length of the first array in it.

    Raises:
        HvdtoolsError: There is none.
    """
    for part in keras.tree.flatten(batch):
        if len(getattr(part, "shape", ())):
            return int(part.shape[0])
    raise HvdtoolsError(
        f"shard() finds no array in a batch (a {type(batch).__name__}) to count its samples by: "
        "let __getitem__() return arrays."
    )


class PartOfPyDataset(keras.utils.PyDataset):
    """Every size-th batch of another PyDataset.

    Args:
        whole: The same on every rank; its workers are the part's, too.
        batches: What it holds.
        deal: How its batches are dealt, one at a time.
    """

    def __init__(self, whole: Any, batches: Batches, deal: Deal) -> None:
        super().__init__(
            workers=whole.workers,
            use_multiprocessing=whole.use_multiprocessing,
            max_queue_size=whole.max_queue_size,
        )
        self._whole = whole
        self._batches = batches
        self._deal = deal
        self._dealt = _dealt(batches, deal)

    def __len__(self) -> int:
        count = self.num_batches
        if count is None:
            raise TypeError("this dataset never ends, and so has no length")
        return count

    @property
    def num_batches(self) -> int | None:
        """Batches of this rank; None if they never end."""
        if self._dealt is None:
            return None
        # A stand-in batch repeats one as "pad" does, and then weighs nothing.
        mode = "pad" if self._deal.uneven == "weighted" else self._deal.uneven
        return replace(self._deal, uneven=mode).length(self._dealt)

    def __getitem__(self, index: int) -> Any:
        place = index * self._deal.size + self._deal.rank
        stands_in = self._dealt is not None and place >= self._dealt
        number = place % self._dealt if stands_in and self._dealt else place
        batch = self._whole[number]
        if self._deal.uneven == "pad":
            return _filled(batch, self._batches.rows)
        if self._deal.uneven == "weighted":
            self._require_rows(number, rows_in(batch))
            return self._weighed(batch, index, stands_in=stands_in)
        return batch

    def on_epoch_begin(self) -> None:
        self._whole.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._whole.on_epoch_end()

    def _weighed(self, batch: Any, index: int, *, stands_in: bool) -> Any:
        rows = rows_in(batch)
        together = _rows_together(self._batches, index * self._deal.size, self._deal.size)
        weight = 0.0 if stands_in else sample_weight(self._deal.size, rows, together)
        weights = np.full(rows, weight, keras.config.floatx())
        return weighted(batch, weights, _to_dtype)

    def _require_rows(self, number: int, rows: int) -> None:
        expected = _rows_of(self._batches, number)
        if rows != expected:
            raise HvdtoolsError(
                f"Batch {number} holds {rows} samples instead of {expected}, and "
                'uneven="weighted" weighs batches that are equally long but for the last one: let '
                "__getitem__() return such, or use another mode."
            )


def _dealt(batches: Batches, deal: Deal) -> int | None:
    """How many batches are dealt; None if they never end.

    Raises:
        HvdtoolsError: "drop" would leave everything out.
    """
    if batches.count is None:
        return None
    short = batches.last_rows < batches.rows
    dealt = batches.count - 1 if deal.uneven == "drop" and short else batches.count
    deal.require_enough(dealt, "whole batches")
    return dealt


def _rows_of(batches: Batches, number: int) -> int:
    is_last = batches.count is not None and number == batches.count - 1
    return batches.last_rows if is_last else batches.rows


def _rows_together(batches: Batches, first: int, size: int) -> int:
    """The samples in batches `first` to `first + size - 1`, as far as they exist."""
    end = first + size if batches.count is None else min(first + size, batches.count)
    return sum(_rows_of(batches, number) for number in range(first, end))


def _filled(batch: Any, rows: int) -> Any:
    """The batch with its first samples repeated until there are `rows`."""
    present = rows_in(batch)
    if present >= rows:
        return batch
    turn = np.arange(rows) % present

    def filled(part: Any) -> Any:
        return None if part is None else np.asarray(part)[turn]

    return keras.tree.map_structure(filled, batch)


def _to_dtype(own: Any, like: Any) -> Any:
    return np.asarray(own).astype(like.dtype)
