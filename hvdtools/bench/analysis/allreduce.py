"""The numbers of all-reduces: time and bandwidth against message size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.bandwidth import algbw_gb_per_s, busbw_gb_per_s
from hvdtools.bench.analysis.bootstrap import estimate
from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.workloads import Case, RepeatKey, Repeats, Workload
from hvdtools.bench.results.measured import Point


@dataclass(frozen=True)
class AllreducePoint:
    """All-reduces of one message size.

    Attributes:
        message_bytes: On one rank.
        op_s: Seconds of one all-reduce on the slowest rank.
        algbw_gb_per_s, busbw_gb_per_s: Algorithm and bus bandwidth at `op_s`, see `bandwidth`.
        wrong_elements: Of all repeats together.
        repeats, blocks: As in `TrainingRow`.
    """

    message_bytes: int
    op_s: Estimate
    algbw_gb_per_s: float
    busbw_gb_per_s: Estimate
    wrong_elements: int
    repeats: int
    blocks: int


@dataclass(frozen=True)
class AllreduceCurve:
    """All-reduces of one engine on one number of ranks, of one type and number of tensors.

    Attributes:
        workload: What it ran.
        engine: As it ran, with its transport where the name leaves it open.
        ranks, nodes: The size of its jobs.
        dtype, tensors: As in `Point`; "" and 0 where every job failed.
        points: Message sizes rising; none where the engine does not support them or every
            job failed.
        unsupported: Why the engine does not support them.
        failures: Why jobs of this engine on these ranks failed.
    """

    workload: Workload
    engine: str
    ranks: int
    nodes: int
    dtype: str
    tensors: int
    points: tuple[AllreducePoint, ...]
    unsupported: str | None
    failures: tuple[str, ...]


def allreduce_curves(case: Case) -> list[AllreduceCurve]:
    """A curve for each type and number of tensors of a case, in the order of its program."""
    kinds = dict.fromkeys((point.dtype, point.tensors) for _, point in points_of(case.repeats))
    return [_curve(case, dtype, tensors) for dtype, tensors in kinds or [("", 0)]]


def points_of(repeats: Repeats) -> list[tuple[RepeatKey, Point]]:
    """Every point of every repeat, also the unsupported ones."""
    return [
        (key, point)
        for key, each in repeats.items()
        if each.allreduce is not None
        for point in each.allreduce.points
    ]


def measured_points(repeats: Repeats, dtype: str, tensors: int) -> dict[int, list[Point]]:
    """What was measured, by message bytes, rising; a point for each repeat."""
    found: dict[int, dict[RepeatKey, Point]] = {}
    for key, point in points_of(repeats):
        if (point.dtype, point.tensors) == (dtype, tensors) and point.op_s:
            found.setdefault(point.message_bytes, {})[key] = point
    return {size: list(points.values()) for size, points in sorted(found.items())}


def _curve(case: Case, dtype: str, tensors: int) -> AllreduceCurve:
    unsupported = (
        point.unsupported
        for _, point in points_of(case.repeats)
        if (point.dtype, point.tensors) == (dtype, tensors) and point.unsupported is not None
    )
    return AllreduceCurve(
        workload=case.workload,
        engine=case.engine_as_run,
        ranks=case.ranks,
        nodes=case.nodes,
        dtype=dtype,
        tensors=tensors,
        points=tuple(
            _point(message_bytes, points, case.ranks)
            for message_bytes, points in measured_points(case.repeats, dtype, tensors).items()
        ),
        unsupported=next(unsupported, None),
        failures=case.failures,
    )


def _point(message_bytes: int, points: list[Point], ranks: int) -> AllreducePoint:
    op_s = estimate([(np.log(point.op_s),) for point in points])
    # A longer time is a lower bandwidth.
    busbw = (busbw_gb_per_s(message_bytes, s, ranks) for s in (op_s.value, op_s.high, op_s.low))
    return AllreducePoint(
        message_bytes=message_bytes,
        op_s=op_s,
        algbw_gb_per_s=algbw_gb_per_s(message_bytes, op_s.value),
        busbw_gb_per_s=Estimate(*busbw),
        wrong_elements=sum(point.wrong_elements for point in points),
        repeats=len(points),
        blocks=sum(len(point.op_s) for point in points),
    )
