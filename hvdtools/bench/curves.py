"""Bandwidth against message size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench import rounds as rounds_
from hvdtools.bench.bandwidth import alg_gb_per_s, bus_gb_per_s
from hvdtools.bench.bootstrap import generator, resample, span_of
from hvdtools.bench.engines import as_it_ran
from hvdtools.bench.interval import Span
from hvdtools.bench.measured import Point
from hvdtools.bench.results import Result
from hvdtools.bench.rounds import Key, Rounds
from hvdtools.bench.works import Work, works_of


@dataclass(frozen=True)
class CurvePoint:
    """All-reduces of one size.

    Attributes:
        message_bytes: On one rank.
        op_s: Seconds of one, on the slowest rank: median and 95 % interval.
        alg_gb_per_s, bus_gb_per_s: Of the median, see `bandwidth`.
        wrong_elements: Of all rounds together.
        rounds, blocks: As in `stats.Row`.
    """

    message_bytes: int
    op_s: Span
    alg_gb_per_s: float
    bus_gb_per_s: float
    wrong_elements: int
    rounds: int
    blocks: int


@dataclass(frozen=True)
class Curve:
    """One engine's all-reduces of one kind of message.

    Attributes:
        work: What it did.
        engine: With what carried the data, where the name does not say it.
        ranks, nodes: Of its jobs.
        dtype, tensors: As in `Point`; "" and 0 where every job failed.
        points: Sizes rising; none where the engine refused or every job failed.
        refused: Why the engine does not do this.
        failures: Why jobs of this engine on these ranks failed.
    """

    work: Work
    engine: str
    ranks: int
    nodes: int
    dtype: str
    tensors: int
    points: tuple[CurvePoint, ...]
    refused: str | None
    failures: tuple[str, ...]


def curves(results: Sequence[Result]) -> list[Curve]:
    """A curve for each engine, ranks, nodes and kind of message, as they were first run."""
    made = []
    kept = [result for result in results if result.kind == "allreduce"]
    for work, of_one in works_of(kept).items():
        for engine, ranks, nodes in rounds_.sizes(of_one):
            mine = rounds_.worked(of_one, engine, ranks, nodes)
            for dtype, tensors in kinds_of(mine) or [("", 0)]:
                made.append(
                    Curve(
                        work=work,
                        engine=name_of(work.family, engine, mine),
                        ranks=ranks,
                        nodes=nodes,
                        dtype=dtype,
                        tensors=tensors,
                        points=_points(mine, ranks, dtype, tensors),
                        refused=_refused(mine, dtype, tensors),
                        failures=rounds_.failures(of_one, engine, ranks, nodes),
                    )
                )
    return made


def name_of(family: str, engine: str, rounds: Rounds) -> str:
    """The engine as it ran."""
    moved_by = [each.allreduce.moved_by for each in rounds.values() if each.allreduce is not None]
    return as_it_ran(family, engine, moved_by[0] if moved_by else None)


def kinds_of(rounds: Rounds) -> list[tuple[str, int]]:
    """Every (dtype, tensors) of a case, in the order of its program."""
    return list(dict.fromkeys((point.dtype, point.tensors) for _, point in all_points(rounds)))


def points_of(rounds: Rounds, dtype: str, tensors: int) -> dict[int, dict[Key, Point]]:
    """Message bytes, rising -> round -> what was measured; what was refused is left out."""
    found: dict[int, dict[Key, Point]] = {}
    for key, point in all_points(rounds):
        if (point.dtype, point.tensors) == (dtype, tensors) and point.op_s:
            found.setdefault(point.message_bytes, {})[key] = point
    return dict(sorted(found.items()))


def all_points(rounds: Rounds) -> list[tuple[Key, Point]]:
    """Every point of every round, also those that the engine refused."""
    return [
        (key, point)
        for key, each in rounds.items()
        if each.allreduce is not None
        for point in each.allreduce.points
    ]


def _points(rounds: Rounds, ranks: int, dtype: str, tensors: int) -> tuple[CurvePoint, ...]:
    made = []
    for message_bytes, measured in points_of(rounds, dtype, tensors).items():
        op_s = span_of(
            resample([(np.log(point.op_s),) for point in measured.values()], generator())
        )
        made.append(
            CurvePoint(
                message_bytes=message_bytes,
                op_s=op_s,
                alg_gb_per_s=alg_gb_per_s(message_bytes, op_s.middle),
                bus_gb_per_s=bus_gb_per_s(message_bytes, op_s.middle, ranks),
                wrong_elements=sum(point.wrong_elements for point in measured.values()),
                rounds=len(measured),
                blocks=sum(len(point.op_s) for point in measured.values()),
            )
        )
    return tuple(made)


def _refused(rounds: Rounds, dtype: str, tensors: int) -> str | None:
    reasons = [
        point.refused
        for _, point in all_points(rounds)
        if (point.dtype, point.tensors) == (dtype, tensors) and point.refused is not None
    ]
    return reasons[0] if reasons else None
