"""What the consistency check compares besides weights and averaged gradients."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Observation(Protocol):
    """A fact that each rank states as one number in a step with a consistency check.

    The numbers travel with the checksums of the weights and cost no message. Every rank
    has the same observations in the same order.
    """

    def number(self, step: int) -> int | Tensor:
        """The fact: 64 bits, or a tensor of shape () and dtype int64 on any device.

        Called at the end of the backward pass of `step`. It must not communicate, and
        must not wait for a GPU.
        """

    def conclude(self, step: int, *, agree: bool) -> None:
        """Called on every rank, one step later, so it may communicate.

        Args:
            step: The step that `number` was called in.
            agree: Whether the numbers of all ranks were equal; the same on every rank.

        Raises:
            HvdtoolsError: The ranks can no longer equal one process: the same on every rank.
        """
