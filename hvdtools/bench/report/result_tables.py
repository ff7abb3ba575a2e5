"""The tables of trainings, all-reduces and loaders, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from hvdtools.bench.analysis.allreduce import AllreduceCurve, AllreducePoint
from hvdtools.bench.analysis.input_pipeline import LoaderRow
from hvdtools.bench.analysis.step_time import Skew
from hvdtools.bench.analysis.training import TrainingRow
from hvdtools.bench.formatting import format_bytes, format_number, format_percent, format_seconds
from hvdtools.bench.report.table import (
    EMPTY,
    Cell,
    Column,
    Table,
    make_table,
    number,
    rate,
    share,
    text,
    with_interval,
)
from hvdtools.bench.suite.engines import FAMILIES

FAILED = Cell("failed", None, alarm=True)
UNSUPPORTED = Cell("unsupported", None)

T = TypeVar("T")


def training_table(rows: Sequence[TrainingRow]) -> Table:
    """The rows of one workload."""
    baseline = FAMILIES[rows[0].workload.family].baseline_name
    columns: tuple[Column[TrainingRow], ...] = (
        Column("engine", lambda row: text(row.engine), "engine", is_text=True),
        Column("ranks", lambda row: number(row.ranks), "ranks"),
        Column("nodes", lambda row: number(row.nodes), "nodes"),
        Column("samples/s [95\u00a0%]", _samples_per_s, "sam- ples/s"),
        Column(
            "efficiency [95\u00a0%]",
            lambda row: share(row.efficiency) if row.ranks > 1 else EMPTY,
            "effi- ciency",
        ),
        Column("node efficiency [95\u00a0%]", lambda row: share(row.node_efficiency), "node eff."),
        Column(
            f"against {baseline} [95\u00a0%]",
            lambda row: with_interval(row.vs_baseline, "{:.3f}".format),
            f"against {baseline}",
        ),
        Column("input wait", lambda row: number(row.input_share, format_percent), "input wait"),
        Column("communi\u00adcation", _exposed_communication, "comm."),
        Column("skew (slowest rank)", lambda row: _skew(row.skew)),
        Column("peak memory a\u00a0rank", lambda row: number(row.peak_memory_bytes, format_bytes)),
        Column("test accuracy", lambda row: number(row.accuracy, format_percent), "accu- racy"),
        Column("replicas in\u00a0sync", lambda row: _in_sync(row.in_sync), "in sync", is_text=True),
    )
    table = make_table(columns, rows, has_failed=lambda row: row.samples_per_s is None)
    return table.without_empty_columns(keep=5)


def _samples_per_s(row: TrainingRow | LoaderRow) -> Cell:
    return FAILED if row.samples_per_s is None else rate(row.samples_per_s)


def _exposed_communication(row: TrainingRow) -> Cell:
    if row.step_time is None:
        return EMPTY
    return number(row.step_time.communication_share, format_percent)


def _skew(skew: Skew | None) -> Cell:
    if skew is None:
        return EMPTY
    return Cell(f"+{format_percent(skew.over_median)}", skew.over_median, f"rank {skew.rank}")


def _in_sync(in_sync: bool | None) -> Cell:
    if in_sync is None:
        return EMPTY
    return text("yes") if in_sync else Cell("NO", "NO", alarm=True)


def loader_table(rows: Sequence[LoaderRow]) -> Table:
    """All loaders of a run."""
    columns: tuple[Column[LoaderRow], ...] = (
        Column(
            "data",
            lambda row: text(row.workload.data or row.workload.program),
            "data",
            is_text=True,
        ),
        Column("ranks", lambda row: number(row.ranks), "ranks"),
        Column("nodes", lambda row: number(row.nodes), "nodes"),
        Column("samples/s [95\u00a0%]", _samples_per_s, "sam- ples/s"),
        Column("batch a\u00a0rank", lambda row: number(row.batch_per_rank), "batch a\u00a0rank"),
        Column("workers a\u00a0rank", lambda row: number(row.workers), "workers a\u00a0rank"),
        Column("options", _further_options, is_text=True),
    )
    table = make_table(columns, rows, has_failed=lambda row: row.samples_per_s is None)
    return table.without_empty_columns(keep=4)


def _further_options(row: LoaderRow) -> Cell:
    in_columns = ("workers", "batch_size")
    options = (f"{name} {value}" for name, value in row.workload.options if name not in in_columns)
    return text(", ".join(options))


def allreduce_table(curves: Sequence[AllreduceCurve]) -> Table:
    """A row for each curve: its latency and its best bandwidth."""
    columns: tuple[Column[AllreduceCurve], ...] = (
        *_curve_columns(lambda curve: curve),
        Column("best bus GB/s [95\u00a0%]", _best_bandwidth, "best bus GB/s"),
        Column("for messages of", _if_measured(lambda curve: _size(_best(curve))), "at"),
        Column("half of it at", _if_measured(lambda curve: _size(_half_bandwidth(curve)))),
        Column(
            "latency [95\u00a0%]",
            _if_measured(lambda curve: with_interval(curve.points[0].op_s, format_seconds)),
            "latency",
        ),
        Column("of a message of", _if_measured(lambda curve: _size(curve.points[0])), "of"),
        Column(
            "wrong elements",
            _if_measured(lambda curve: _wrong(sum(each.wrong_elements for each in curve.points))),
            "wrong",
        ),
    )
    return make_table(columns, curves, has_failed=lambda curve: not curve.points)


def point_table(curves: Sequence[AllreduceCurve]) -> Table:
    """A row for each message of each curve."""
    columns: tuple[Column[tuple[AllreduceCurve, AllreducePoint]], ...] = (
        *_curve_columns(lambda item: item[0]),
        Column("message", lambda item: _size(item[1])),
        Column("one all-reduce", lambda item: number(item[1].op_s.value, format_seconds)),
        Column("95\u00a0% interval, ±", lambda item: _half_width(item[1])),
        Column("algorithm GB/s", lambda item: number(item[1].algbw_gb_per_s, format_number)),
        Column("bus GB/s", lambda item: number(item[1].busbw_gb_per_s.value, format_number)),
        Column("wrong elements", lambda item: _wrong(item[1].wrong_elements)),
        Column("blocks", lambda item: number(item[1].blocks)),
    )
    return make_table(columns, [(curve, point) for curve in curves for point in curve.points])


def _curve_columns(curve_of: Callable[[T], AllreduceCurve]) -> tuple[Column[T], ...]:
    return (
        Column("engine", lambda item: text(curve_of(item).engine), "engine", is_text=True),
        Column("ranks", lambda item: number(curve_of(item).ranks), "ranks"),
        Column("nodes", lambda item: number(curve_of(item).nodes), "nodes"),
        Column("type", lambda item: text(curve_of(item).dtype), "type", is_text=True),
        Column("tensors", lambda item: number(curve_of(item).tensors or None), "ten- sors"),
    )


def _if_measured(cell: Callable[[AllreduceCurve], Cell]) -> Callable[[AllreduceCurve], Cell]:
    return lambda curve: cell(curve) if curve.points else EMPTY


def _best_bandwidth(curve: AllreduceCurve) -> Cell:
    if not curve.points:
        return UNSUPPORTED if curve.unsupported else FAILED
    return rate(_best(curve).busbw_gb_per_s)


def _best(curve: AllreduceCurve) -> AllreducePoint:
    return max(curve.points, key=lambda point: point.busbw_gb_per_s.value)


def _half_bandwidth(curve: AllreduceCurve) -> AllreducePoint:
    """The smallest message with half of the best bandwidth."""
    half = _best(curve).busbw_gb_per_s.value / 2
    return next(point for point in curve.points if point.busbw_gb_per_s.value >= half)


def _size(point: AllreducePoint) -> Cell:
    return number(point.message_bytes, format_bytes)


def _half_width(point: AllreducePoint) -> Cell:
    return number(point.op_s.half_width, format_percent) if point.op_s.has_interval else EMPTY


def _wrong(count: int) -> Cell:
    return Cell(f"{count:,}", count, alarm=count > 0)
