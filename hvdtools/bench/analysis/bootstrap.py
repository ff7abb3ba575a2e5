"""95 % intervals of what was measured in blocks, in repeats: a cluster bootstrap.

Blocks of one job share its luck (where it was put, who else was there), so repeats
are drawn first, with replacement, and then blocks within each drawn repeat
(Davison and Hinkley, Bootstrap Methods and Their Application, 1997, section 3.8).
A bootstrap of few values is too narrow: its spread is by sqrt((n-1)/n) too small and knows
nothing of the uncertainty of the spread itself. Both are fixed as Hesterberg says (What
Teachers Should Know About the Bootstrap, The American Statistician 69(4), 2015,
section 3.2): by sqrt(n/(n-1)), and by Student's t in the place of the normal quantile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from hvdtools.bench.analysis.interval import LEVEL, Span

Floats = NDArray[np.float64]
# Logarithms of one repeat's blocks: a rate's alone, or those above and those below a ratio.
Repeat = tuple[Floats] | tuple[Floats, Floats]

DRAWS = 2000
_SEED = 2000
_TAIL = (1 + LEVEL) / 2


@dataclass(frozen=True)
class Draws:
    """What was measured, and what might have been, in logarithms.

    Attributes:
        middle: The mean over repeats of the median of their blocks; for a ratio, of the
            medians' difference.
        values: The same of each draw, spread out by sqrt(n/(n-1)); NaN where one block is all.
        units: Of which independent values there are n: repeats, or the blocks of a single repeat.
    """

    middle: float
    values: Floats
    units: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom of its spread."""
        return max(self.units - 1, 1)


def generator() -> np.random.Generator:
    """The same random numbers in every report of the same results."""
    return np.random.default_rng(_SEED)


def resample(repeats: Sequence[Repeat], random: np.random.Generator, draws: int = DRAWS) -> Draws:
    """Draw repeats, then blocks within the drawn repeats.

    Raises:
        ValueError: There are no repeats.
    """
    if not repeats:
        raise ValueError("there are no repeats to draw from")
    chosen = random.integers(len(repeats), size=(draws, len(repeats)))
    drawn = np.empty(chosen.shape)
    for number, blocks in enumerate(repeats):
        places = chosen == number
        drawn[places] = _drawn_statistic(blocks, int(places.sum()), random)
    middle = float(np.mean([_statistic(blocks) for blocks in repeats]))
    units = len(repeats) if len(repeats) > 1 else min(len(part) for part in repeats[0])
    wider = math.sqrt(units / (units - 1)) if units > 1 else math.nan
    return Draws(middle, middle + wider * (drawn.mean(axis=1) - middle), units)


def span_of(draws: Draws) -> Span:
    """Back from logarithms; low and high are NaN where one block is all there is."""
    return _span(draws.middle, draws.values, draws.freedom)


def span_of_ratio(above: Draws, below: Draws) -> Span:
    """Of two that were measured apart; degrees of freedom after Welch (Biometrika 34, 1947)."""
    spreads = [float(np.var(side.values)) for side in (above, below)]
    weights = [spreads[0] ** 2 / above.freedom, spreads[1] ** 2 / below.freedom]
    freedom = sum(spreads) ** 2 / sum(weights) if sum(weights) > 0 else 1.0
    return _span(above.middle - below.middle, above.values - below.values, freedom)


def span_of_lone_ratio(
    above: Draws, below: Draws, repeats: tuple[int, int], random: np.random.Generator
) -> Span:
    """The same where one side has a single repeat.

    How its jobs differ is taken from the other side, whose n repeats say it with n - 1
    degrees of freedom: the spread of one repeat is sqrt(n) times that of their mean.
    """
    known, many = (below, repeats[1]) if repeats[0] == 1 else (above, repeats[0])
    spread = random.permutation(known.values - known.middle)
    values = known.values - known.middle + math.sqrt(many) * spread
    middle = above.middle - below.middle
    return _span(middle, middle + values, known.freedom)


def widened(draws: Draws) -> Floats:
    """The draws in their own units, spread out so far that their quantiles are the interval's."""
    return np.exp(draws.middle + _widening(draws.freedom) * (draws.values - draws.middle))


def span_of_values(middle: float, values: Floats) -> Span:
    """The interval of what was made of `widened` draws; low and high are NaN without any."""
    if not values.size:
        return Span(middle, math.nan, math.nan)
    low, high = np.percentile(values, [100 * (1 - _TAIL), 100 * _TAIL])
    return Span(middle, min(float(low), middle), max(float(high), middle))


def _span(middle: float, values: Floats, freedom: float) -> Span:
    low, high = np.percentile(values, [100 * (1 - _TAIL), 100 * _TAIL])
    wider = _widening(freedom)
    ends = [math.exp(_no_overflow(middle + wider * (end - middle))) for end in (low, high)]
    # A middle outside the draws' quantiles is rare, but a bar must not begin above its value.
    return Span(math.exp(middle), *_around(math.exp(middle), ends[0], ends[1]))


def _around(middle: float, low: float, high: float) -> tuple[float, float]:
    if math.isnan(low) or math.isnan(high):
        return math.nan, math.nan
    return min(low, middle), max(high, middle)


def _no_overflow(log: float) -> float:
    return min(log, 700.0)  # exp(709.8) is the largest float: two repeats far apart may pass it


def _widening(freedom: float) -> float:
    return float(stdtrit(freedom, _TAIL) / ndtri(_TAIL))


def _statistic(blocks: Repeat) -> float:
    above, *below = (float(np.median(part)) for part in blocks)
    return above - sum(below)


def _drawn_statistic(blocks: Repeat, count: int, random: np.random.Generator) -> Floats:
    above, *below = (_drawn_medians(part, count, random) for part in blocks)
    return above - sum(below)


def _drawn_medians(values: Floats, count: int, random: np.random.Generator) -> Floats:
    """`count` medians of as many values as there are, drawn with replacement.

    Drawn from their exact distribution instead of value by value, a thousand times faster: the
    k-th smallest of n places drawn evenly is floor(n U), where U is the k-th smallest of
    n even random numbers, so Beta(k, n + 1 - k), and the next one's is the least of the
    n - k that lie above it (David and Nagaraja, Order Statistics, 3rd ed., 2003, chapter 2).
    """
    ordered, number = np.sort(values), len(values)
    half = (number + 1) // 2
    below = random.beta(half, number + 1 - half, size=count)
    if number % 2:
        return _at(ordered, below)
    above = below + (1 - below) * random.beta(1, number - half, size=count)
    return (_at(ordered, below) + _at(ordered, above)) / 2


def _at(ordered: Floats, shares: Floats) -> Floats:
    places = (len(ordered) * shares).astype(np.int64)
    chosen: Floats = ordered[np.minimum(places, len(ordered) - 1)]  # a share may repeat up to 1
    return chosen
