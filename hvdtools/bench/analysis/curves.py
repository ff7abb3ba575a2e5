"""Bandwidth against message size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis import repeats as repeats_
from hvdtools.bench.analysis.bandwidth import algbw_gb_per_s, busbw_gb_per_s
from hvdtools.bench.analysis.bootstrap import generator, resample, span_of
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.analysis.repeats import Key, Repeats
from hvdtools.bench.analysis.workloads import Workload, workloads_of
from hvdtools.bench.results.measured import Point
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import as_it_ran


@dataclass(frozen=True)
class CurvePoint:
    """All-reduces of one size.

    Attributes:
        message_bytes: On one rank.
        op_s: Seconds of one, on the slowest rank: median and 95 % interval.
        algbw_gb_per_s, busbw_gb_per_s: Of the median, see `bandwidth`.
        wrong_elements: Of all repeats together.
        repeats, blocks: As in `stats.Row`.
    """

    message_bytes: int
    op_s: Span
    algbw_gb_per_s: float
    busbw_gb_per_s: float
    wrong_elements: int
    repeats: int
    blocks: int


@dataclass(frozen=True)
class Curve:
    """One engine's all-reduces of one kind of message.

    Attributes:
        workload: What it did.
        engine: With what carried the data, where the name does not say it.
        ranks, nodes: Of its jobs.
        dtype, tensors: As in `Point`; "" and 0 where every job failed.
        points: Sizes rising; none where the engine does not support it or every job failed.
        unsupported: Why the engine does not do this.
        failures: Why jobs of this engine on these ranks failed.
    """

    workload: Workload
    engine: str
    ranks: int
    nodes: int
    dtype: str
    tensors: int
    points: tuple[CurvePoint, ...]
    unsupported: str | None
    failures: tuple[str, ...]


def curves(results: Sequence[Result]) -> list[Curve]:
    """A curve for each engine, ranks, nodes and kind of message, as they were first run."""
    made = []
    kept = [result for result in results if result.kind == "allreduce"]
    for workload, of_one in workloads_of(kept).items():
        for engine, ranks, nodes in repeats_.sizes(of_one):
            mine = repeats_.worked(of_one, engine, ranks, nodes)
            for dtype, tensors in kinds_of(mine) or [("", 0)]:
                made.append(
                    Curve(
                        workload=workload,
                        engine=name_of(workload.family, engine, mine),
                        ranks=ranks,
                        nodes=nodes,
                        dtype=dtype,
                        tensors=tensors,
                        points=_points(mine, ranks, dtype, tensors),
                        unsupported=_unsupported(mine, dtype, tensors),
                        failures=repeats_.failures(of_one, engine, ranks, nodes),
                    )
                )
    return made


def name_of(family: str, engine: str, repeats: Repeats) -> str:
    """The engine as it ran."""
    transport = [
        each.allreduce.transport for each in repeats.values() if each.allreduce is not None
    ]
    return as_it_ran(family, engine, transport[0] if transport else None)


def kinds_of(repeats: Repeats) -> list[tuple[str, int]]:
    """Every (dtype, tensors) of a case, in the order of its program."""
    return list(dict.fromkeys((point.dtype, point.tensors) for _, point in all_points(repeats)))


def points_of(repeats: Repeats, dtype: str, tensors: int) -> dict[int, dict[Key, Point]]:
    """Message bytes, rising -> repeat -> what was measured; unsupported ones are left out."""
    found: dict[int, dict[Key, Point]] = {}
    for key, point in all_points(repeats):
        if (point.dtype, point.tensors) == (dtype, tensors) and point.op_s:
            found.setdefault(point.message_bytes, {})[key] = point
    return dict(sorted(found.items()))


def all_points(repeats: Repeats) -> list[tuple[Key, Point]]:
    """Every point of every repeat, also the unsupported ones."""
    return [
        (key, point)
        for key, each in repeats.items()
        if each.allreduce is not None
        for point in each.allreduce.points
    ]


def _points(repeats: Repeats, ranks: int, dtype: str, tensors: int) -> tuple[CurvePoint, ...]:
    made = []
    for message_bytes, measured in points_of(repeats, dtype, tensors).items():
        op_s = span_of(
            resample([(np.log(point.op_s),) for point in measured.values()], generator())
        )
        made.append(
            CurvePoint(
                message_bytes=message_bytes,
                op_s=op_s,
                algbw_gb_per_s=algbw_gb_per_s(message_bytes, op_s.middle),
                busbw_gb_per_s=busbw_gb_per_s(message_bytes, op_s.middle, ranks),
                wrong_elements=sum(point.wrong_elements for point in measured.values()),
                repeats=len(measured),
                blocks=sum(len(point.op_s) for point in measured.values()),
            )
        )
    return tuple(made)


def _unsupported(repeats: Repeats, dtype: str, tensors: int) -> str | None:
    reasons = [
        point.unsupported
        for _, point in all_points(repeats)
        if (point.dtype, point.tensors) == (dtype, tensors) and point.unsupported is not None
    ]
    return reasons[0] if reasons else None
