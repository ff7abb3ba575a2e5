"""Results by engine, size and repeat; ratios of what ran in the same repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hvdtools.bench.analysis.bootstrap import Repeat, generator, resample, span_of
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.results.result_file import Result

Key = tuple[str, int]  # a run and a repeat of it
Repeats = dict[Key, Result]  # one case's results that worked


def worked(results: Sequence[Result], engine: str, ranks: int, nodes: int) -> Repeats:
    """The results of one case by run and repeat, without those that failed.

    All-reduces that a suite splits over several programs are one result, with all their points.
    """
    found: Repeats = {}
    for result in results:
        if (result.engine, result.ranks, result.nodes) != (engine, ranks, nodes):
            continue
        if result.measured is not None:
            key = (result.run_id, result.repeat)
            found[key] = _with_points_of(found.get(key), result)
    return found


def _with_points_of(before: Result | None, result: Result) -> Result:
    if before is None or before.allreduce is None or result.allreduce is None:
        return result
    points = (*before.allreduce.points, *result.allreduce.points)
    return replace(result, measured=replace(result.allreduce, points=points))


def sizes(results: Sequence[Result]) -> list[tuple[str, int, int]]:
    """Every (engine, ranks, nodes): engines as they were first run, nodes and ranks rising."""
    engines = list(dict.fromkeys(result.engine for result in results))
    cases = {(result.engine, result.ranks, result.nodes) for result in results}
    return sorted(cases, key=lambda case: (engines.index(case[0]), case[2], case[1]))


def failures(results: Sequence[Result], engine: str, ranks: int, nodes: int) -> tuple[str, ...]:
    """Why jobs of a case failed."""
    return tuple(
        result.error or "no reason was recorded"
        for result in results
        if (result.engine, result.ranks, result.nodes) == (engine, ranks, nodes)
        and result.measured is None
    )


def rates(repeats: Repeats) -> list[Repeat]:
    """Logarithms of samples/s, block by block."""
    return [(np.log(result.block_rates),) for result in repeats.values()]


def rate(repeats: Repeats) -> Span | None:
    """Samples/s; None where no repeat worked."""
    return span_of(resample(rates(repeats), generator())) if repeats else None


def ratio(above: Repeats, below: Repeats, over: float = 1.0) -> Span | None:
    """Samples/s of one case over `over` times another's, paired: drift and a slow repeat cancel.

    Returns:
        None where no repeat has both.
    """
    pairs = paired(above, below)
    if not pairs:
        return None
    span = span_of(resample(pairs, generator()))
    return Span(span.middle / over, span.low / over, span.high / over)


def paired(above: Repeats, below: Repeats) -> list[Repeat]:
    """Logarithms of both cases' samples/s, in each repeat that both have."""
    return [_pair(result, below[key]) for key, result in above.items() if key in below]


def in_one_job(one: Result, other: Result) -> bool:
    """Whether they took turns in the same ranks, so that their blocks are neighbours in time."""
    where = [(each.run_id, each.repeat, each.ranks, each.nodes) for each in (one, other)]
    return where[0] == where[1] and other.engine in one.interleaved


def _pair(above: Result, below: Result) -> Repeat:
    rates_above, rates_below = np.log(above.block_rates), np.log(below.block_rates)
    if in_one_job(above, below) and len(rates_above) == len(rates_below):
        return (rates_above - rates_below,)
    return rates_above, rates_below


def median_over(values: Sequence[float]) -> float:
    """Of one value a repeat."""
    return float(np.median(values))
