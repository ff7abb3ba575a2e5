"""An estimate with its 95 % interval; the distribution-free interval of a median."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its 95 % interval; the ends are NaN where there is no interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """The longer side of the interval as a share of the value."""
        return max(self.high - self.value, self.value - self.low) / abs(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


def median_interval(values: Sequence[float], level: float = LEVEL) -> Estimate | None:
    """The median and an interval that contains the true one with probability `level` or more.

    The true median lies between the k-th smallest and the k-th largest value unless
    fewer than k values fall on one side of it, and each falls there with probability
    1/2: k is the largest with 2 P(Binomial(n, 1/2) < k) <= 1 - level (Conover, Practical
    Nonparametric Statistics, 3rd ed., 1999, section 3.2). The only assumption is that
    the values are independent.

    Returns:
        None for too few values: under 6 at 95 %.
    """
    below = _values_outside(len(values), level)
    if below is None:
        return None
    ordered = np.sort(np.asarray(values, dtype=float))
    return Estimate(float(np.median(ordered)), float(ordered[below]), float(ordered[-1 - below]))


def _values_outside(count: int, level: float) -> int | None:
    """How many values at each end lie outside the interval; None for too few values."""
    tail, outside = 0.0, None
    for k in range((count + 1) // 2):
        # P(Binomial(count, 1/2) <= k), in logarithms because 2**-count underflows.
        log_term = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        tail += math.exp(log_term - count * math.log(2))
        if 2 * tail > 1 - level:
            break
        outside = k
    return outside
