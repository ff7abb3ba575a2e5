"""Numbers made of results: medians, spreads, efficiencies. METHOD.md says why these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.engines import FRAMEWORKS, as_it_ran
from hvdtools.bench.results import Result


@dataclass(frozen=True)
class Span:
    """A middle value with what lies below and above it."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One engine on one number of ranks, over all rounds of a run.

    Attributes:
        engine: With what carried the gradients, where the name does not say it.
        samples_per_s: Median and [25 %, 75 %] over all blocks of all rounds.
        efficiency: Samples/s over `ranks` times this engine's own on one rank of
            the same round; median and [lowest, highest] round. 1 is ideal.
        against_yardstick: Samples/s over those of its framework's yardstick, of the
            same round and ranks, likewise; None for the yardstick itself.
        accuracy: Median over rounds.
        in_sync: False if the replicas of any round differed; None for one rank.
        rounds: How many rounds worked.
        failures: Why the others did not.
    """

    engine: str
    ranks: int
    samples_per_s: Span | None
    efficiency: Span | None
    against_yardstick: Span | None
    accuracy: float | None
    in_sync: bool | None
    rounds: int
    failures: tuple[str, ...]


def quartiles(values: Sequence[float]) -> Span:
    """The median and the quartiles: half of all values lie between low and high."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return Span(float(middle), float(low), float(high))


def over_rounds(values: Sequence[float]) -> Span | None:
    """The median, lowest and highest of one value a round; None where there is none."""
    if not values:
        return None
    return Span(float(np.median(values)), min(values), max(values))


def by_framework(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results of each framework, as they were first run: only within one do figures compare."""
    names = dict.fromkeys(result.framework for result in results)
    return {name: [each for each in results if each.framework == name] for name in names}


def summarise(results: Sequence[Result]) -> list[Row]:
    """A row for each engine and number of ranks: engines as they were first run, ranks rising."""
    engines = dict.fromkeys(result.engine for result in results)
    return [
        _row(results, engine, ranks)
        for engine in engines
        for ranks in sorted({result.ranks for result in results if result.engine == engine})
    ]


def _row(results: Sequence[Result], engine: str, ranks: int) -> Row:
    mine = [result for result in results if (result.engine, result.ranks) == (engine, ranks)]
    worked = [result for result in mine if result.error is None]
    compared = [result.in_sync for result in worked if result.in_sync is not None]
    rates = _rates(results, engine, ranks)
    yardstick = FRAMEWORKS[mine[0].framework].yardstick
    alone = {turn: ranks * rate for turn, rate in _rates(results, engine, 1).items()}
    return Row(
        engine=as_it_ran(engine, worked[0].moved_by if worked else None),
        ranks=ranks,
        samples_per_s=quartiles([rate for result in worked for rate in result.block_rates])
        if worked
        else None,
        efficiency=_ratio(rates, alone),
        against_yardstick=None
        if engine == yardstick
        else _ratio(rates, _rates(results, yardstick, ranks)),
        accuracy=float(np.median([result.accuracy for result in worked])) if worked else None,
        in_sync=all(compared) if compared else None,
        rounds=len(worked),
        failures=tuple(result.error for result in mine if result.error is not None),
    )


def _rates(results: Sequence[Result], engine: str, ranks: int) -> dict[int, float]:
    """Round -> samples/s, for the rounds that worked."""
    return {
        result.round: result.samples_per_s
        for result in results
        if (result.engine, result.ranks) == (engine, ranks) and result.samples_per_s is not None
    }


def _ratio(rates: dict[int, float], base: dict[int, float]) -> Span | None:
    """The ratio within each round: what slows a whole round down cancels."""
    both = [turn for turn in rates if turn in base]
    return over_rounds([rates[turn] / base[turn] for turn in both])
