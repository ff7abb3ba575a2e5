"""In every rank: benchmarks/allreduce/allreduce.py with something wrong in it, which must come out.

rank_allreduce.py off ...      torch, but 3 elements of every sum are off on the last rank
rank_allreduce.py clocks ...   each rank's clock runs at a rate of its own; prints the ops of blocks
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from torch import Tensor

from hvdtools.bench.programs.allreduce import allreduce
from hvdtools.bench.programs.allreduce import point as allreduce_point
from hvdtools.bench.programs.allreduce import timing as allreduce_timing
from hvdtools.bench.programs.allreduce.engines import ENGINES, Operation, Torch

OFF = (0, 7, -1)


class Off(Torch):
    def operation(self, tensors: Sequence[Tensor]) -> Operation:
        operation = super().operation(tensors)
        if self.rank < self.size - 1:
            return operation

        def off() -> None:
            operation()
            if tensors[0].numel() > 1:
                for place in OFF:
                    tensors[0][place] += 1

        return off


def clocks() -> None:
    agree, seconds = allreduce_timing.agree_on_ops, time.perf_counter

    def said(*arguments: object) -> int:
        ops = agree(*arguments)  # type: ignore[arg-type]
        print("ops", ops, flush=True)
        return ops

    allreduce_point.agree_on_ops = said
    from hvdtools.core.topology import read_launch_environment

    rate = 1 + 4 * read_launch_environment(os.environ).rank
    time.perf_counter = lambda: rate * seconds()


if __name__ == "__main__":
    if sys.argv[1] == "off":
        ENGINES["torch"] = Off
    else:
        clocks()
    sys.exit(allreduce.main(sys.argv[2:]))
