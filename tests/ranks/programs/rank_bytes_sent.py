"""Run in every rank, one a host: prints in JSON how much this host sent for all-reduces.

`sent` is in units of the message: 2 (N-1) / N for a ring. `right` says whether the sums were.
"""

from __future__ import annotations

import json
from pathlib import Path

import horovod.torch as hvd
import torch

import hvdtools.torch as hvt

SIZE_BYTES = 8 * 2**20
TIMES = 4
COUNTER = Path("/sys/class/net/eth0/statistics/tx_bytes")

topology = hvt.init()


def message(rank: int) -> torch.Tensor:
    return torch.arange(SIZE_BYTES // 8, dtype=torch.float64) * (rank + 1)


def allreduce() -> torch.Tensor:
    return hvd.allreduce(message(topology.rank), op=hvd.Sum, name="message")


allreduce()  # connections are made, sizes agreed on
before_bytes = int(COUNTER.read_text())
sums = [allreduce() for _ in range(TIMES)]
hvd.barrier()
sent = (int(COUNTER.read_text()) - before_bytes) / (TIMES * SIZE_BYTES)
wanted = sum(message(rank) for rank in range(topology.size))
right = all(torch.equal(total, wanted) for total in sums)
print(json.dumps({"rank": topology.rank, "sent": sent, "right": right}), flush=True)
