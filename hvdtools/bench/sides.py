"""One side of a comparison: rates by case, for an all-reduce by message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench import rounds as rounds_
from hvdtools.bench.bootstrap import Round
from hvdtools.bench.curves import all_points
from hvdtools.bench.engines import as_it_ran
from hvdtools.bench.measured import Allreduce, Loader, Point, Training
from hvdtools.bench.results import Result
from hvdtools.bench.rounds import Rounds
from hvdtools.bench.works import Work, works_of


@dataclass(frozen=True)
class Message:
    """Which all-reduce."""

    message_bytes: int
    dtype: str
    tensors: int


@dataclass(frozen=True)
class Case:
    """What is held against each other. `engine` is the suite's name for it."""

    work: Work
    engine: str
    ranks: int
    nodes: int


@dataclass(frozen=True)
class Series:
    """One rate.

    Attributes:
        rounds: Its logarithms, by round and block.
        wrong: What was wrong with the result, in words; None if nothing.
        refused: Why the engine does not do this; `rounds` is then empty.
    """

    rounds: list[Round]
    wrong: str | None = None
    refused: str | None = None


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
        Case(work, *case): _side(of_one, *case, work.family)
        for work, of_one in works_of(results, known).items()
        for case in rounds_.sizes(of_one)
    }


def _side(results: Sequence[Result], engine: str, ranks: int, nodes: int, family: str) -> Side:
    mine = rounds_.worked(results, engine, ranks, nodes)
    moved_by = [
        each.measured.moved_by
        for each in mine.values()
        if isinstance(each.measured, Training | Allreduce)
    ]
    return Side(
        engine=as_it_ran(family, engine, moved_by[0] if moved_by else None),
        series=_series(mine),
        reasons=rounds_.failures(results, engine, ranks, nodes),
    )


def _series(rounds: Rounds) -> dict[Message | None, Series]:
    if not rounds:
        return {}
    if any(isinstance(each.measured, Training | Loader) for each in rounds.values()):
        return {None: Series(rounds_.rates(rounds), _differing(rounds))}
    found: dict[Message, list[Point]] = {}
    for _, point in all_points(rounds):
        message = Message(point.message_bytes, point.dtype, point.tensors)
        found.setdefault(message, []).append(point)
    return {message: _of_points(points) for message, points in found.items()}


def _differing(rounds: Rounds) -> str | None:
    out = sum(
        each.training is not None and each.training.in_sync is False for each in rounds.values()
    )
    return f"the replicas differ in {out} of {len(rounds)} rounds" if out else None


def _of_points(points: Sequence[Point]) -> Series:
    refused = [point.refused for point in points if point.refused is not None]
    elements = sum(point.wrong_elements for point in points)
    wrong = f"{elements} elements have a wrong sum" if elements else None
    # Operations a second, so that more is better as everywhere.
    rounds: list[Round] = [(-np.log(point.op_s),) for point in points if point.op_s]
    return Series(rounds, wrong, refused[0] if refused and not rounds else None)
