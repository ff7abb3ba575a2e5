"""Learn that another rank gave a backward pass up."""

from __future__ import annotations

import torch
from torch import Tensor

from hvdtools.errors import HvdtoolsError

_WHY = "on an exception of its own (its message is in its own output)"


class AbortWatch:
    """Reads the abort flag that came back with the last bucket of a pass.

    Args:
        deferred: True where the host runs ahead of the GPU. Reading at once
            would make it wait in every step, so the flag is read at the next.
    """

    def __init__(self, *, deferred: bool) -> None:
        self._deferred = deferred
        self._probe: tuple[Tensor, torch.cuda.Event] | None = None

    def check(self, flag: Tensor) -> None:
        """Take the averaged flag, shape (1,), of a pass that was not given up here.

        Raises:
            HvdtoolsError: Another rank raised it.
        """
        if self._deferred:
            copy = torch.empty(1, dtype=flag.dtype, device="cpu", pin_memory=True)
            copy.copy_(flag, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self._probe = (copy, event)
        elif flag.item() > 0:
            raise HvdtoolsError(
                f"Another rank gave up this backward pass half way, {_WHY}, so the gradients are "
                "incomplete on every rank: skip this batch on all ranks, or end the job."
            )

    def recall(self) -> None:
        """Read what `check` put off.

        Raises:
            HvdtoolsError: Another rank raised the flag. This rank may have
                stepped since, so it raises from now on.
        """
        if self._probe is None:
            return
        copy, event = self._probe
        event.synchronize()
        if copy.item() > 0:
            raise HvdtoolsError(
                f"Another rank gave up an earlier backward pass half way, {_WHY}, and with "
                "HOROVOD_ENABLE_ASYNC_COMPLETION=1 this rank may have stepped since: the replicas "
                "have parted; end the job and start it from a checkpoint."
            )
        self._probe = None
