"""The report's tables of all-reduces."""

from __future__ import annotations

from collections.abc import Sequence

from hvdtools.bench.analysis.bandwidth import busbw_gb_per_s
from hvdtools.bench.analysis.curves import Curve, CurvePoint
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.report import cells
from hvdtools.bench.report.cells import EMPTY, Cell, Column, Grid, Line
from hvdtools.bench.report.grids import FAILED
from hvdtools.bench.report.words import bytes_in_words, percent, rate_in_words, seconds_in_words

_KIND = (
    Column("engine", of_words=True, short="engine"),
    Column("ranks", short="ranks"),
    Column("nodes", short="nodes"),
    Column("type", of_words=True, short="type"),
    Column("tensors", short="ten- sors"),
)
UNSUPPORTED = Cell("not done", None)


def curve_grid(curves: Sequence[Curve]) -> Grid:
    """A line a curve: its latency and its best bandwidth."""
    columns = (
        *_KIND,
        Column("best bus GB/s [95\u00a0%]", short="best bus GB/s"),
        Column("for messages of", short="at"),
        Column("half of it at", short=None),
        Column("latency [95\u00a0%]", short="latency"),
        Column("of a message of", short="of"),
        Column("wrong elements", short="wrong"),
    )
    lines = tuple(Line((*_kind(each), *_curve(each)), failed=not each.points) for each in curves)
    return Grid(columns, lines)


def _kind(curve: Curve) -> tuple[Cell, ...]:
    return (
        cells.words(curve.engine),
        cells.number(curve.ranks),
        cells.number(curve.nodes),
        cells.words(curve.dtype) if curve.dtype else EMPTY,
        cells.number(curve.tensors or None),
    )


def _curve(curve: Curve) -> tuple[Cell, ...]:
    if not curve.points:
        return (UNSUPPORTED if curve.unsupported else FAILED, *(EMPTY,) * 5)
    best = max(curve.points, key=lambda point: point.busbw_gb_per_s)
    first = curve.points[0]
    half = next(p for p in curve.points if p.busbw_gb_per_s >= best.busbw_gb_per_s / 2)
    return (
        cells.rate(bus_span(best, curve.ranks)),
        cells.number(best.message_bytes, bytes_in_words),
        cells.number(half.message_bytes, bytes_in_words),
        cells.spanned(first.op_s, seconds_in_words),
        cells.number(first.message_bytes, bytes_in_words),
        _wrong(sum(point.wrong_elements for point in curve.points)),
    )


def _wrong(count: int) -> Cell:
    return Cell(f"{count:,}", count, alarm=count > 0)


def bus_span(point: CurvePoint, ranks: int) -> Span:
    """The bus bandwidth's interval in GB/s: a longer time is a lower bandwidth."""
    return Span(
        point.busbw_gb_per_s,
        busbw_gb_per_s(point.message_bytes, point.op_s.high, ranks),
        busbw_gb_per_s(point.message_bytes, point.op_s.low, ranks),
    )


def point_grid(curves: Sequence[Curve]) -> Grid:
    """Every message of every curve."""
    columns = (
        *_KIND,
        Column("message"),
        Column("one all-reduce"),
        Column("95\u00a0% interval, ±"),
        Column("algorithm GB/s"),
        Column("bus GB/s"),
        Column("wrong elements"),
        Column("blocks"),
    )
    lines = tuple(
        Line((*_kind(curve), *_point(point))) for curve in curves for point in curve.points
    )
    return Grid(columns, lines)


def _point(point: CurvePoint) -> tuple[Cell, ...]:
    width = point.op_s.half_width
    return (
        cells.number(point.message_bytes, bytes_in_words),
        cells.number(point.op_s.middle, seconds_in_words),
        cells.number(width, percent) if width == width else EMPTY,  # NaN for a single block
        cells.number(point.algbw_gb_per_s, rate_in_words),
        cells.number(point.busbw_gb_per_s, rate_in_words),
        _wrong(point.wrong_elements),
        cells.number(point.blocks),
    )
