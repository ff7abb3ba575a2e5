"""Samples/s of a case and its ratio to another case, with their 95 % intervals."""

from __future__ import annotations

import numpy as np

from hvdtools.bench.analysis.bootstrap import LogBlocks, estimate
from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.workloads import Repeats
from hvdtools.bench.results.result_file import Result


def rate(repeats: Repeats) -> Estimate | None:
    """Samples/s; None where no repeat worked."""
    return estimate(log_rates(repeats)) if repeats else None


def log_rates(repeats: Repeats) -> list[LogBlocks]:
    """Logarithms of samples/s, by repeat and block."""
    return [(np.log(result.block_rates),) for result in repeats.values()]


def ratio(above: Repeats, below: Repeats, over: float = 1.0) -> Estimate | None:
    """Samples/s of one case over `over` times those of another, paired by repeat.

    Pairing cancels drift and a slow repeat.

    Returns:
        None where no repeat has both.
    """
    pairs = paired_log_rates(above, below)
    if not pairs:
        return None
    found = estimate(pairs)
    return Estimate(found.value / over, found.low / over, found.high / over)


def paired_log_rates(above: Repeats, below: Repeats) -> list[LogBlocks]:
    """Logarithms of samples/s of both cases, in each repeat that has both."""
    return [_pair(result, below[key]) for key, result in above.items() if key in below]


def _pair(above: Result, below: Result) -> LogBlocks:
    rates_above, rates_below = np.log(above.block_rates), np.log(below.block_rates)
    # Interleaved in one job, the blocks are neighbors in time and pair one by one.
    in_one_job = (above.ranks, above.nodes) == (below.ranks, below.nodes) and (
        below.engine in above.interleaved
    )
    if in_one_job and len(rates_above) == len(rates_below):
        return (rates_above - rates_below,)
    return rates_above, rates_below
