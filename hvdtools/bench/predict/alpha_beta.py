"""The cost of an all-reduce on any number of ranks: an alpha-beta model fitted to measured ones.

A ring all-reduce of m bytes on N ranks takes 2 (N-1) steps, in each of which every rank
sends m/N bytes to its neighbor (Thakur, Rabenseifner and Gropp, Optimization of Collective
Communication Operations in MPICH, IJHPCA 19(1), 2005, section 4.5):

    seconds = constant + 2 (N-1) alpha + 2 (N-1)/N m / bandwidth

The constant is an addition: Horovod looks for finished gradients once a cycle (1 ms by
default) and agrees on them before it sends anything. Every all-reduce waits for that once,
whatever its size and the number of ranks. Messages that are ready together wait together.
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
        constant_s: Of every all-reduce, on any number of ranks and for any size.
        alpha_s: Latency of each of the ring's 2 (N-1) steps.
        bytes_per_s: Of the slowest hop; infinite where no time grows with the bytes.
        fit_error: Median of |fitted / measured - 1| over the points; None where nothing
            was fitted.
    """

    constant_s: float
    alpha_s: float
    bytes_per_s: float
    fit_error: float | None

    def seconds(self, ranks: int, message_bytes: float) -> float:
        """Of one all-reduce; 0 on one rank."""
        if ranks == 1:
            return 0.0
        steps = 2 * (ranks - 1)
        transfer_s = steps / ranks * message_bytes / self.bytes_per_s
        return self.constant_s + steps * self.alpha_s + transfer_s

    def step_seconds(self, ranks: int, gradient_bytes: float, allreduces_per_step: int) -> float:
        """Of a step's all-reduces, queued one behind another: their constants overlap."""
        if ranks == 1:
            return 0.0
        one_s = self.seconds(ranks, gradient_bytes / allreduces_per_step) - self.constant_s
        return self.constant_s + allreduces_per_step * one_s


@dataclass(frozen=True)
class TimedAllreduce:
    """One measured all-reduce."""

    ranks: int
    message_bytes: int
    op_s: float


def fit(timed: Sequence[TimedAllreduce]) -> AlphaBeta:
    """The cost with the least squares of relative errors; no part of it is negative.

    The errors are relative because a 1 KiB message is as good a measurement as one of 1 GiB,
    which takes a million times as long. A single number of ranks cannot tell the latency of a
    step from the constant: it all counts as the constant.

    Raises:
        ValueError: Nothing was timed.
    """
    if not timed:
        raise ValueError("fit needs at least one timed all-reduce")
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
    # Seconds and seconds per byte are ten orders of magnitude apart.
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
