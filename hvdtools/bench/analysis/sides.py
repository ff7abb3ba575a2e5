"""One side of a comparison: rates by case, for an all-reduce by message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis import repeats as repeats_
from hvdtools.bench.analysis.bootstrap import Repeat
from hvdtools.bench.analysis.curves import all_points
from hvdtools.bench.analysis.repeats import Repeats
from hvdtools.bench.analysis.workloads import Workload, workloads_of
from hvdtools.bench.results.measured import Allreduce, Loader, Point, Training
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import as_it_ran


@dataclass(frozen=True)
class Message:
    """Which all-reduce."""

    message_bytes: int
    dtype: str
    tensors: int


@dataclass(frozen=True)
class Case:
    """What is held against each other. `engine` is the suite's name for it."""

    workload: Workload
    engine: str
    ranks: int
    nodes: int


@dataclass(frozen=True)
class Series:
    """One rate.

    Attributes:
        repeats: Its logarithms, by repeat and block.
        wrong: What was wrong with the result, in words; None if nothing.
        unsupported: Why the engine does not do this; `repeats` is then empty.
    """

    repeats: list[Repeat]
    wrong: str | None = None
    unsupported: str | None = None


@dataclass(frozen=True)
class Side:
    """A case on one side.

    Attributes:
        engine: As it ran.
        series: By message, None for a training or a loader; empty where all jobs failed.
        reasons: Why jobs failed.
    """

    engine: str
    series: dict[Message | None, Series]
    reasons: tuple[str, ...]


def sides_of(results: Sequence[Result], known: Sequence[Result]) -> dict[Case, Side]:
    """Every case; `known` are further results that may name a failed job's model."""
    return {
        Case(workload, *case): _side(of_one, *case, workload.family)
        for workload, of_one in workloads_of(results, known).items()
        for case in repeats_.sizes(of_one)
    }


def _side(results: Sequence[Result], engine: str, ranks: int, nodes: int, family: str) -> Side:
    mine = repeats_.worked(results, engine, ranks, nodes)
    transport = [
        each.measured.transport
        for each in mine.values()
        if isinstance(each.measured, Training | Allreduce)
    ]
    return Side(
        engine=as_it_ran(family, engine, transport[0] if transport else None),
        series=_series(mine),
        reasons=repeats_.failures(results, engine, ranks, nodes),
    )


def _series(repeats: Repeats) -> dict[Message | None, Series]:
    if not repeats:
        return {}
    if any(isinstance(each.measured, Training | Loader) for each in repeats.values()):
        return {None: Series(repeats_.rates(repeats), _differing(repeats))}
    found: dict[Message, list[Point]] = {}
    for _, point in all_points(repeats):
        message = Message(point.message_bytes, point.dtype, point.tensors)
        found.setdefault(message, []).append(point)
    return {message: _of_points(points) for message, points in found.items()}


def _differing(repeats: Repeats) -> str | None:
    out = sum(
        each.training is not None and each.training.in_sync is False for each in repeats.values()
    )
    return f"the replicas differ in {out} of {len(repeats)} repeats" if out else None


def _of_points(points: Sequence[Point]) -> Series:
    unsupported = [point.unsupported for point in points if point.unsupported is not None]
    elements = sum(point.wrong_elements for point in points)
    wrong = f"{elements} elements have a wrong sum" if elements else None
    # Operations a second, so that more is better as everywhere.
    repeats: list[Repeat] = [(-np.log(point.op_s),) for point in points if point.op_s]
    return Series(repeats, wrong, unsupported[0] if unsupported and not repeats else None)
