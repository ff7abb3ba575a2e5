"""The control flags: the status that ranks exchange with every bucket.

A few numbers are averaged over ranks like the gradients, in the tail of their
payload where the transport carries them (`transport.py`). The flags of the
last bucket of a round are read: by then every rank has set all it knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import horovod.torch as hvd
import torch
from torch import Tensor

from hvdtools.core.errors import HvdtoolsError

# The slots. Averaged over ranks they hold:
ABORT = 0  # above 0 if some rank aborted the pass
WEIGHTED = 1  # the share of ranks whose gradients are weighted
WEIGHT = 2  # the mean of their weights, summed over the passes that added up
PASSES = 3  # the mean number of those passes
NONFINITE = 4  # above 0 if a gradient of some rank was NaN or infinite
IDLE = 5  # the share of ranks that came to the step without a new gradient
SLOTS = 6


@dataclass(frozen=True)
class RoundStatus:
    """The control flags of the last bucket, averaged over ranks."""

    abort: float
    weighted: float
    weight: float
    passes: float
    nonfinite: float
    idle: float

    @property
    def ranks_idle(self) -> int:
        """How many ranks came to the step without a new gradient."""
        size: int = hvd.size()
        return round(self.idle * size)

    @property
    def some_idle(self) -> bool:
        """Whether some ranks did, and not all."""
        size: int = hvd.size()
        return 0 < self.ranks_idle < size

    def require_sound(self, *, late: bool) -> None:
        """Raise if the averages of this round are not what the script asked for.

        Args:
            late: True if this rank may have stepped on them already.

        Raises:
            HvdtoolsError: A rank aborted, only some ranks gave a weight, or the
                weights add up to 0.
        """
        reason = self._unsound()
        if reason is None:
            return
        if late:
            reason += (
                " With HOROVOD_ENABLE_ASYNC_COMPLETION=1 this rank may have stepped since: the "
                "replicas diverged; end the job and start it from a checkpoint."
            )
        raise HvdtoolsError(reason)

    def _unsound(self) -> str | None:
        if self.abort > 0:
            return (
                "Another rank aborted this backward pass after an exception (its output has the "
                "message), so the gradients are incomplete on every rank: skip this batch on all "
                "ranks, or end the job."
            )
        # Counted, since an average of ones may be rounded to a number other than 1.
        ranks_weighted = round(self.weighted * hvd.size())
        if 0 < ranks_weighted < hvd.size() - self.ranks_idle:
            return (
                f"Only {ranks_weighted} of {hvd.size()} ranks gave their "
                "gradients a weight in this backward pass: use hvt.weight() or "
                'shard(uneven="weighted") on all ranks or on none.'
            )
        if self.weighted and not self.weight > 0:
            return (
                "Every rank gave its gradients weight 0, so there is nothing to average: skip "
                "this batch on all ranks."
            )
        return None


class FlagReader:
    """Reads the control flags of each round's last bucket.

    Args:
        deferred: True where the host runs ahead of the GPU. Reading at once
            would make it wait in every step, so they are read in the next.
    """

    def __init__(self, *, deferred: bool) -> None:
        self._deferred = deferred
        self._deferred_flags: tuple[Tensor, torch.cuda.Event] | None = None

    def read(self, flags: Tensor) -> RoundStatus | None:
        """The status from averaged control flags, shape (SLOTS,); None if it is deferred.

        Raises:
            HvdtoolsError: The round is not sound.
        """
        if not self._deferred:
            status = RoundStatus(*flags.tolist())
            status.require_sound(late=False)
            return status
        copy = torch.empty(SLOTS, dtype=flags.dtype, device="cpu", pin_memory=True)
        copy.copy_(flags, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._deferred_flags = (copy, event)
        return None

    def read_deferred(self) -> RoundStatus | None:
        """What `read` deferred in the previous round, once; None if it did not.

        Raises:
            HvdtoolsError: That round was not sound; again with every call.
        """
        if self._deferred_flags is None:
            return None
        copy, event = self._deferred_flags
        event.synchronize()
        status = RoundStatus(*copy.tolist())
        status.require_sound(late=True)
        self._deferred_flags = None
        return status
