"""What an all-reduce costs on any number of ranks: three numbers, fitted to those measured.

A ring all-reduce of m bytes on N ranks takes 2 (N-1) steps, in each of which every
rank sends m/N bytes to its neighbour (Thakur, Rabenseifner and Gropp, Optimization of
Collective Communication Operations in MPICH, IJHPCA 19(1), 2005, section 4.5):

    seconds = constant + 2 (N-1) alpha + 2 (N-1)/N m / bandwidth

The constant is not theirs. Horovod looks for finished gradients once a cycle (1 ms by
default) and agrees on them before anything is sent: that is waited for once an
operation, whatever its size and the number of ranks. Messages that are ready together
wait together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True)
class AlphaBeta:
    """Seconds of a ring all-reduce: constant + 2 (N-1) alpha + 2 (N-1)/N bytes / bandwidth.

    Attributes:
        constant_s: What every operation takes on any number of ranks and bytes.
        alpha_s: Latency of each of the ring's 2 (N-1) steps.
        bytes_per_s: Of the slowest hop; infinite where no time grew with the bytes.
        fit_error: Median of |fitted / measured - 1| over the points; None where
            nothing was fitted.
    """

    constant_s: float
    alpha_s: float
    bytes_per_s: float
    fit_error: float | None

    def seconds(self, ranks: int, message_bytes: float) -> float:
        """Of one all-reduce; one rank has nobody to send to."""
        if ranks == 1:
            return 0.0
        steps = 2 * (ranks - 1)
        moved_s = steps / ranks * message_bytes / self.bytes_per_s
        return self.constant_s + steps * self.alpha_s + moved_s

    def step_seconds(self, ranks: int, gradient_bytes: float, allreduces_per_step: int) -> float:
        """A step's all-reduces, queued one behind another: their constant parts overlap."""
        if ranks == 1:
            return 0.0
        one_s = self.seconds(ranks, gradient_bytes / allreduces_per_step) - self.constant_s
        return self.constant_s + allreduces_per_step * one_s


@dataclass(frozen=True)
class Timed:
    """One measured all-reduce."""

    ranks: int
    message_bytes: int
    op_s: float


def fit(timed: Sequence[Timed]) -> AlphaBeta:
    """The cost with the least squares of relative errors; no part of it is negative.

    Relative, since a 1 KiB message is as good a measurement as one of 1 GiB, whose
    seconds are a million times as many. On a single number of ranks a latency of each
    step cannot be told from a constant: it is all taken as the constant.

    Raises:
        ValueError: Nothing was timed.
    """
    if not timed:
        raise ValueError("nothing was timed")
    can_tell_alpha = len({each.ranks for each in timed}) > 1
    rows = [
        [
            1 / each.op_s,
            2 * (each.ranks - 1) / each.op_s if can_tell_alpha else 0.0,
            2 * (each.ranks - 1) / each.ranks * each.message_bytes / each.op_s,
        ]
        for each in timed
    ]
    matrix = np.array(rows)
    # Seconds and seconds a byte are ten orders of magnitude apart.
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(matrix / scale, np.ones(len(rows)))
    constant_s, alpha_s, byte_s = (float(value) for value in found / scale)
    return AlphaBeta(
        constant_s=constant_s,
        alpha_s=alpha_s,
        bytes_per_s=1 / byte_s if byte_s > 0 else math.inf,
        fit_error=float(np.median(np.abs(matrix @ (found / scale) - 1))),
    )
