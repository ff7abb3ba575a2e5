"""Algorithm and bus bandwidth of an all-reduce. GB is 1e9 bytes.

*Algorithm bandwidth* is what a caller sees: the bytes of the message over the time. It
falls with the number of ranks on the same network, because each byte travels more often.

*Bus bandwidth* is what the links carry. A ring all-reduce of S bytes on N ranks is a
reduce-scatter and an all-gather. Each has N - 1 steps, and in each step every rank sends
S/N bytes to its neighbor, so a rank sends 2 (N - 1) S/N bytes in all, and receives as
many. No algorithm needs less: each rank has to send that much on average for the sum to
include and to reach all ranks (Patarasuk and Yuan, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", J. Parallel Distrib. Comput. 69, 2009, pages
117-124). Over the time, that is

    bus bandwidth = (S / seconds) x 2 (N - 1) / N

the same formula as in NVIDIA's nccl-tests (doc/PERFORMANCE.md, "AllReduce"). It compares
with the speed of a link for any N. On a single rank it is 0, because nothing is sent. For
other algorithms (a tree, in-network reduction) it is the speed that a ring would need.
"""

from __future__ import annotations

BYTES_IN_GB = 1e9


def algbw_gb_per_s(message_bytes: int, seconds: float) -> float:
    """Algorithm bandwidth of one all-reduce in GB/s: the bytes of the message over the time."""
    return message_bytes / seconds / BYTES_IN_GB


def busbw_gb_per_s(message_bytes: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth of one all-reduce in GB/s: 2 (N - 1) / N times the algorithm bandwidth."""
    return algbw_gb_per_s(message_bytes, seconds) * 2 * (ranks - 1) / ranks
