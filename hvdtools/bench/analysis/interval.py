"""The 95 % interval of a median, from the order of the values alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Span:
    """A middle value with what lies below and above it."""

    middle: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The longer side of the interval as a share of the middle."""
        return max(self.high - self.middle, self.middle - self.low) / abs(self.middle)


def median_interval(values: Sequence[float], level: float = LEVEL) -> Span | None:
    """The median and an interval that holds the true one with probability `level` or more.

    Between the k-th smallest and the k-th largest value lies the true median
    unless fewer than k values fell on one side of it, and each falls there with
    probability 1/2: k is the largest with 2 P(Binomial(n, 1/2) < k) <= 1 - level
    (Conover, Practical Nonparametric Statistics, 3rd ed., 1999, section 3.2). It
    takes nothing for granted about the values' distribution, but that they are
    independent.

    Returns:
        None where there are too few values to say so: under 6 at 95 %.
    """
    below = _values_outside(len(values), level)
    if below is None:
        return None
    ordered = np.sort(np.asarray(values, dtype=float))
    return Span(float(np.median(ordered)), float(ordered[below]), float(ordered[-1 - below]))


def _values_outside(count: int, level: float) -> int | None:
    """How many values at each end lie outside the interval; None if it would need more values."""
    tail, outside = 0.0, None
    for k in range((count + 1) // 2):
        # P(Binomial(count, 1/2) <= k), in logarithms since 2**-count underflows for many values.
        log_term = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        tail += math.exp(log_term - count * math.log(2))
        if 2 * tail > 1 - level:
            break
        outside = k
    return outside
