"""What tables hold: each cell in words for the reader and as a value to sort by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.report.words import NOTHING, percent, plus_minus, rate_in_words

_BEYOND = 10


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What the reader sees.
        value: What the column sorts by; None where there is nothing.
        note: What stands small below it: an interval.
        short_note: The same where there is little room.
        alarm: True for what must not be passed over.
    """

    text: str
    value: float | str | None
    note: str = ""
    short_note: str = ""
    alarm: bool = False


EMPTY = Cell(NOTHING, None)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: On the page.
        of_words: False where its values are numbers.
        short: The heading on a terminal; None where a terminal has no room for it.
    """

    heading: str
    of_words: bool = False
    short: str | None = None


@dataclass(frozen=True)
class Line:
    """One row of a grid; one that failed stands last, however the grid is sorted."""

    cells: tuple[Cell, ...]
    failed: bool = False


@dataclass(frozen=True)
class Grid:
    """A table."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    caption: str = ""

    def without_empty_columns(self, kept: int) -> Grid:
        """Only the first `kept` columns and those in which some row has something."""
        wanted = [
            place
            for place in range(len(self.columns))
            if place < kept or any(line.cells[place] != EMPTY for line in self.lines)
        ]
        return Grid(
            tuple(self.columns[place] for place in wanted),
            tuple(Line(tuple(each.cells[p] for p in wanted), each.failed) for each in self.lines),
            self.caption,
        )


def words(text: str) -> Cell:
    """A cell of a column of words."""
    return Cell(text, text)


def number(value: float | None, written: Callable[[float], str] = "{:,}".format) -> Cell:
    """A cell of a column of numbers."""
    return EMPTY if value is None else Cell(written(value), value)


def spanned(span: Span | None, written: Callable[[float], str]) -> Cell:
    """A middle value and, below it, its interval, if there is one."""
    return EMPTY if span is None else _spanned(span, written, written)


def rate(span: Span | None) -> Cell:
    """Something a second."""
    return spanned(span, rate_in_words)


def share(span: Span | None) -> Cell:
    """A share in per cent; in the interval without the sign."""
    return EMPTY if span is None else _spanned(span, percent, lambda end: f"{100 * end:.1f}")


def ratio(span: Span | None) -> Cell:
    """One thing over another."""
    return spanned(span, "{:.3f}".format)


def _spanned(
    span: Span, written: Callable[[float], str], end_written: Callable[[float], str]
) -> Cell:
    middle = written(span.middle)
    if not (math.isfinite(span.low) and math.isfinite(span.high)):
        return Cell(middle, span.middle)  # a single block has no interval
    high = min(span.high, _BEYOND * span.middle)  # how much more is of no use to anyone
    note = f"[{end_written(span.low)}–{'>' if high < span.high else ''}{end_written(high)}]"
    return Cell(middle, span.middle, note, plus_minus(span.half_width))
