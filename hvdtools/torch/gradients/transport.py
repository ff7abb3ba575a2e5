"""How a bucket's gradients travel: the extension point for what is put on the wire.

A bucket has a payload, which holds its gradients, and control flags
(`control_flags.py`). A transport decides in which form the payload travels:
averaged unchanged (the default), in another dtype, compressed. Hooks, the order
of buckets, accumulation, weights and checks do not depend on it.

The flags must arrive as exact averages. Where the transport carries them, they
are the tail of the payload and cost no message. Otherwise the flags of all
buckets of a round travel in one small float64 all-reduce after the last payload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import horovod.torch as hvd
import torch
from torch import Tensor


def _keep() -> None:
    """The result already is where it belongs."""


@dataclass(frozen=True)
class Transfer:
    """A message under way.

    Attributes:
        handles: Horovod's handles of its collectives.
        unpack: Called once all handles have completed: writes the average into
            the tensor that was sent. Not called in a round that is aborted.
    """

    handles: Sequence[int]
    unpack: Callable[[], None] = _keep


class GradientTransport(Protocol):
    """Averages the payloads of buckets over ranks.

    For every bucket of a round, in bucket order and in the same order on every
    rank, `send` is called once; after all of them have completed, each
    transfer's `unpack`. Both run without autograd.
    """

    def carries_flags(self, dtype: torch.dtype) -> bool:
        """Whether the control flags may be the tail of a payload of this dtype.

        Only if each number of the payload arrives as its own average over
        ranks, to the rounding of float32 or better. The answer may depend on
        `dtype` alone and must be the same on every rank.
        """

    def send(self, payload: Tensor, name: str) -> Transfer:
        """Start to average `payload` over ranks; does not wait.

        Args:
            payload: Shape (n,), float32 or float64, contiguous, on the
                parameters' device. It stays unchanged until the transfer ends.
            name: Names the collectives; unique among those under way and the
                same on every rank. A second collective appends to it.

        Returns:
            The transfer, after which `payload` holds the average over ranks.
        """


@dataclass(frozen=True)
class AllreduceTransport:
    """Averages the payload in place and in its own dtype, with one all-reduce."""

    def carries_flags(self, dtype: torch.dtype) -> bool:
        """True for float32 and float64."""
        return dtype in (torch.float32, torch.float64)

    def send(self, payload: Tensor, name: str) -> Transfer:
        """Start the all-reduce."""
        return Transfer([hvd.allreduce_async_(payload, name=name, op=hvd.Average)])


def send_flags(rows: Sequence[Tensor], name: str) -> Transfer:
    """Start to average the flags that no payload carries, in one all-reduce.

    Args:
        rows: The flags of each such bucket, shape (m,), float64, on any device.
        name: Names the all-reduce; the same on every rank.
    """
    message = torch.cat([row.to(rows[-1].device) for row in rows])
    handle = hvd.allreduce_async_(message, name=name, op=hvd.Average)

    def unpack() -> None:
        parts = message.split([row.numel() for row in rows])
        for row, part in zip(rows, parts, strict=True):
            row.copy_(part)

    return Transfer([handle], unpack)
