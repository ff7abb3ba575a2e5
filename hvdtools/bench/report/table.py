"""A table as a value: each cell as text for the reader and as a value to sort by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.formatting import format_half_width, format_number, format_percent

_LARGEST_END = 10  # times the value: a longer interval is cut

T = TypeVar("T")


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What the reader sees.
        value: What the column sorts by; None for an empty cell.
        note: Small print below the text: an interval.
        short_note: The same for a terminal.
        alarm: True for what must not be overlooked.
    """

    text: str
    value: float | str | None
    note: str = ""
    short_note: str = ""
    alarm: bool = False


EMPTY = Cell("–", None)


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column of a table whose rows show a T each.

    Attributes:
        heading: On the page.
        cell: Makes the cell of a row.
        short: The heading on a terminal; None if the terminal omits the column.
        is_text: False where the values are numbers.
    """

    heading: str
    cell: Callable[[T], Cell]
    short: str | None = None
    is_text: bool = False


@dataclass(frozen=True)
class Row:
    """One row; failed ones stay last, however the table is sorted."""

    cells: tuple[Cell, ...]
    failed: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows."""

    columns: tuple[Column[Any], ...]
    rows: tuple[Row, ...]
    caption: str = ""

    def without_empty_columns(self, keep: int) -> Table:
        """Only the first `keep` columns and those with something in some row."""
        wanted = [
            number
            for number in range(len(self.columns))
            if number < keep or any(row.cells[number] != EMPTY for row in self.rows)
        ]
        rows = (Row(tuple(row.cells[n] for n in wanted), row.failed) for row in self.rows)
        return Table(tuple(self.columns[n] for n in wanted), tuple(rows), self.caption)


def make_table(
    columns: Iterable[Column[T]],
    items: Iterable[T],
    caption: str = "",
    has_failed: Callable[[T], bool] = lambda _: False,
) -> Table:
    """A row for each item."""
    kept = tuple(columns)
    rows = (Row(tuple(each.cell(item) for each in kept), has_failed(item)) for item in items)
    return Table(kept, tuple(rows), caption)


def text(words: str) -> Cell:
    """A cell of a text column."""
    return Cell(words, words) if words else EMPTY


def number(value: float | None, written: Callable[[float], str] = "{:,}".format) -> Cell:
    """A cell of a number column."""
    return EMPTY if value is None else Cell(written(value), value)


def rate(estimate: Estimate | None) -> Cell:
    """A rate with its interval."""
    return with_interval(estimate, format_number)


def share(estimate: Estimate | None) -> Cell:
    """A share in percent with its interval."""
    return with_interval(estimate, format_percent, lambda end: f"{100 * end:.1f}")


def with_interval(
    estimate: Estimate | None,
    written: Callable[[float], str],
    end_written: Callable[[float], str] | None = None,
) -> Cell:
    """A value and, below it, its interval, if there is one."""
    if estimate is None:
        return EMPTY
    if not estimate.has_interval:
        return Cell(written(estimate.value), estimate.value)
    end_written = end_written or written
    high = min(estimate.high, _LARGEST_END * estimate.value)
    beyond = ">" if high < estimate.high else ""
    note = f"[{end_written(estimate.low)}–{beyond}{end_written(high)}]"
    half_width = format_half_width(estimate.half_width)
    return Cell(written(estimate.value), estimate.value, note, half_width)
