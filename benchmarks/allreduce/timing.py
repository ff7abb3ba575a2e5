"""Blocks of all-reduces: what is timed, and how many make a block."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from hvdtools.bench.programs.allreduce.engines import Operation
from hvdtools.bench.programs.allreduce.values import Values
from hvdtools.bench.programs.torch.process_group import wait_for_device
from hvdtools.bench.run.interleave import Gather

# Long against the clock, against what wakes up on a machine, and against meeting.
BLOCK_S = 0.02
MAX_OPS = 200_000


@dataclass(frozen=True)
class Stretches:
    """One engine's all-reduces of one message, timed in stretches.

    A stretch is as many all-reduces as the numbers last for. Between stretches, and
    outside of what is timed, the message gets its first numbers again, and the ranks
    meet in a tiny all-reduce of the same engine: so the clock starts in every rank
    where an all-reduce has just ended, as the clock stops, and what ranks wait for
    each other is in the time as often as there are all-reduces in it.

    Attributes:
        operation: One all-reduce of the message.
        meet: A tiny one.
        flat: The message's memory.
    """

    operation: Operation
    meet: Operation
    flat: Tensor
    values: Values

    def seconds(self, ops: int) -> float:
        """This rank's time of `ops` all-reduces."""
        taken_s = 0.0
        for begin in range(0, ops, self.values.ops):
            self.values.fill_to_time(self.flat)
            wait_for_device(self.flat.device)
            self.meet()
            wait_for_device(self.flat.device)
            begun_s = time.perf_counter()
            for _ in range(min(self.values.ops, ops - begin)):
                self.operation()
            wait_for_device(self.flat.device)
            taken_s += time.perf_counter() - begun_s
        return taken_s


def agree_on_ops(seconds: Callable[[int], float], gather: Gather) -> int:
    """How many all-reduces last for a block on the slowest rank; the same on every rank.

    Args:
        seconds: This rank's time of so many, run when called.
    """
    ops = 1
    while True:
        # The quicker of two: a single one may have waited for something else.
        slowest_s = min(_slowest(gather, seconds(ops)) for _ in range(2))
        more = next_ops(ops, slowest_s)
        if more == ops:
            return ops
        ops = more


def _slowest(gather: Gather, mine_s: float) -> float:
    rows: Sequence[Sequence[float]] = gather([mine_s])
    return max(row[0] for row in rows)


def next_ops(ops: int, slowest_s: float) -> int:
    """How many to try after `ops` took `slowest_s`; `ops` again if that is a block."""
    if slowest_s >= BLOCK_S or ops >= MAX_OPS:
        return ops
    # A tenth more than it seems to need, and ten times at most, since a short time may deceive.
    wanted = 1.1 * BLOCK_S / max(slowest_s, 1e-9)
    return min(MAX_OPS, max(ops + 1, int(ops * min(wanted, 10.0)) + 1))
