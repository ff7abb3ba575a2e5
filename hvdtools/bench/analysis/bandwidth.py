"""How fast an all-reduce moved its message, in two readings. GB is 1e9 bytes.

*Algorithm bandwidth* is what a caller sees: the message's bytes over the time. It
falls with the number of ranks on the same wires, since each byte travels more
often.

*Bus bandwidth* is what the wires saw. A ring all-reduce of S bytes on N ranks is
a reduce-scatter and an all-gather. Each has N - 1 steps, and in each step every
rank sends S/N bytes to its neighbour, so a rank sends 2 (N - 1) S/N bytes in all,
and receives as many. No algorithm can do with less: for the sum to be made of all
ranks' parts and to reach all of them, each rank must send that much on average
(Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
workstations", J. Parallel Distrib. Comput. 69, 2009, pages 117-124). Over the time,
that is

    bus bandwidth = (S / seconds) x 2 (N - 1) / N

as NVIDIA's nccl-tests have it too (doc/PERFORMANCE.md, "AllReduce"). It can be
held against the speed of a link whatever N is. It says nothing about a single
rank, which sends nothing: there it is 0. Where the algorithm is no ring (a tree,
a switch that adds), it is the speed that a ring would have needed.
"""

from __future__ import annotations

BYTES_IN_GB = 1e9


def algbw_gb_per_s(message_bytes: int, seconds: float) -> float:
    """Algorithm bandwidth of one all-reduce in GB/s: the message's bytes over the time."""
    return message_bytes / seconds / BYTES_IN_GB


def busbw_gb_per_s(message_bytes: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth of one all-reduce in GB/s, 2 (N - 1) / N of the algorithm's; see above."""
    return algbw_gb_per_s(message_bytes, seconds) * 2 * (ranks - 1) / ranks
