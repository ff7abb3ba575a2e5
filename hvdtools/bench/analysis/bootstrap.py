"""95 % intervals by a cluster bootstrap: of values measured in blocks, in repeats of a job.

Blocks of one job are not independent (they share its placement and its neighbors), so
repeats are resampled first, with replacement, and then blocks within each of them (Davison
and Hinkley, Bootstrap Methods and Their Application, 1997, section 3.8). A bootstrap of few
values is too narrow: its spread is too small by sqrt((n-1)/n), and it ignores that the
spread itself is uncertain. Both are corrected as in Hesterberg, What Teachers Should Know
About the Bootstrap, The American Statistician 69(4), 2015, section 3.2: by sqrt(n/(n-1)),
and by Student's t instead of the normal quantile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from hvdtools.bench.analysis.interval import LEVEL, Estimate

Floats = NDArray[np.float64]
# The logarithms of one repeat's blocks; for a ratio, of its numerator and its denominator.
LogBlocks = tuple[Floats] | tuple[Floats, Floats]

REPLICATES = 2000
_SEED = 2000
_TAIL = (1 + LEVEL) / 2
_LARGEST_LOG = 700.0  # exp(709.8) is the largest float


@dataclass(frozen=True)
class Bootstrap:
    """A value and its bootstrap replicates, all as logarithms.

    Attributes:
        value: The mean over repeats of the median of their blocks; for a ratio, of the
            difference of the medians.
        replicates: The same of each resample, spread by sqrt(n/(n-1)); NaN for a single block.
        units: n, the number of independent values: repeats, or the blocks of a single repeat.
    """

    value: float
    replicates: Floats
    units: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the spread."""
        return max(self.units - 1, 1)


def generator() -> np.random.Generator:
    """A generator with a fixed seed: the same results give the same report."""
    return np.random.default_rng(_SEED)


def resample(
    repeats: Sequence[LogBlocks], random: np.random.Generator, count: int = REPLICATES
) -> Bootstrap:
    """Resample repeats, then blocks within them, `count` times.

    Raises:
        ValueError: There are no repeats.
    """
    if not repeats:
        raise ValueError("resample needs at least one repeat")
    chosen = random.integers(len(repeats), size=(count, len(repeats)))
    replicates = np.empty(chosen.shape)
    for number, blocks in enumerate(repeats):
        is_chosen = chosen == number
        replicates[is_chosen] = _resampled_statistic(blocks, int(is_chosen.sum()), random)
    value = float(np.mean([_statistic(blocks) for blocks in repeats]))
    units = len(repeats) if len(repeats) > 1 else min(len(part) for part in repeats[0])
    spread = math.sqrt(units / (units - 1)) if units > 1 else math.nan
    return Bootstrap(value, value + spread * (replicates.mean(axis=1) - value), units)


def estimate(repeats: Sequence[LogBlocks]) -> Estimate:
    """The value with its interval, no longer as logarithms; ends are NaN for a single block."""
    result = resample(repeats, generator())
    return _estimate(result.value, result.replicates, result.freedom)


def estimate_ratio(above: Bootstrap, below: Bootstrap) -> Estimate:
    """The ratio of two independent values; degrees of freedom by Welch (Biometrika 34, 1947)."""
    spreads = [float(np.var(each.replicates)) for each in (above, below)]
    weights = [spreads[0] ** 2 / above.freedom, spreads[1] ** 2 / below.freedom]
    freedom = sum(spreads) ** 2 / sum(weights) if sum(weights) > 0 else 1.0
    return _estimate(above.value - below.value, above.replicates - below.replicates, freedom)


def estimate_ratio_to_single(
    above: Bootstrap, below: Bootstrap, repeats: tuple[int, int], random: np.random.Generator
) -> Estimate:
    """The same where one of the two has a single repeat.

    How jobs differ is taken from the other one: its n repeats give it with n - 1 degrees
    of freedom. The spread of one repeat is sqrt(n) times that of their mean.
    """
    known, many = (below, repeats[1]) if repeats[0] == 1 else (above, repeats[0])
    spread = random.permutation(known.replicates - known.value)
    replicates = known.replicates - known.value + math.sqrt(many) * spread
    value = above.value - below.value
    return _estimate(value, value + replicates, known.freedom)


def calibrated_replicates(result: Bootstrap) -> Floats:
    """The replicates, no longer as logarithms, spread so that their quantiles are the interval."""
    return np.exp(
        result.value + _t_over_normal(result.freedom) * (result.replicates - result.value)
    )


def estimate_from_replicates(value: float, replicates: Floats) -> Estimate:
    """The interval of what was computed from calibrated replicates; ends are NaN without any."""
    if not replicates.size:
        return Estimate(value, math.nan, math.nan)
    low, high = np.percentile(replicates, [100 * (1 - _TAIL), 100 * _TAIL])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _estimate(value: float, replicates: Floats, freedom: float) -> Estimate:
    ends = np.percentile(replicates, [100 * (1 - _TAIL), 100 * _TAIL])
    spread = _t_over_normal(freedom)
    low, high = (math.exp(min(value + spread * (end - value), _LARGEST_LOG)) for end in ends)
    if math.isnan(low) or math.isnan(high):
        return Estimate(math.exp(value), math.nan, math.nan)
    # A value outside its replicates' quantiles is rare, but an error bar has to include it.
    return Estimate(math.exp(value), min(low, math.exp(value)), max(high, math.exp(value)))


def _t_over_normal(freedom: float) -> float:
    return float(stdtrit(freedom, _TAIL) / ndtri(_TAIL))


def _statistic(blocks: LogBlocks) -> float:
    above, *below = (float(np.median(part)) for part in blocks)
    return above - sum(below)


def _resampled_statistic(blocks: LogBlocks, count: int, random: np.random.Generator) -> Floats:
    above, *below = (_resampled_medians(part, count, random) for part in blocks)
    return above - sum(below)


def _resampled_medians(values: Floats, count: int, random: np.random.Generator) -> Floats:
    """`count` medians of resamples of `values`, each as large as `values`.

    Drawn from the exact distribution instead of value by value, a thousand times faster: the
    k-th smallest of n uniform positions is floor(n U), where U is the k-th smallest of n
    uniform random numbers, that is Beta(k, n + 1 - k), and the next one is the smallest of
    the n - k above it (David and Nagaraja, Order Statistics, 3rd ed., 2003, chapter 2).
    """
    ordered, number = np.sort(values), len(values)
    half = (number + 1) // 2
    below = random.beta(half, number + 1 - half, size=count)
    if number % 2:
        return _at(ordered, below)
    above = below + (1 - below) * random.beta(1, number - half, size=count)
    return (_at(ordered, below) + _at(ordered, above)) / 2


def _at(ordered: Floats, shares: Floats) -> Floats:
    positions = (len(ordered) * shares).astype(np.int64)
    # A share can round up to 1.
    chosen: Floats = ordered[np.minimum(positions, len(ordered) - 1)]
    return chosen
