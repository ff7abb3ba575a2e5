"""What the ranks tell each other in the tail of every bucket.

A few numbers travel with the gradients and are averaged like them, so that
they cost no message of their own. The tail of the last bucket of a round, in
which every rank has said all it knows, is read by all.
"""

from __future__ import annotations

from dataclasses import dataclass

import horovod.torch as hvd
import torch
from torch import Tensor

from hvdtools.core.errors import HvdtoolsError

# The places of the tail. Averaged over ranks they hold:
ABORT = 0  # above 0 if some rank gave the pass up
WEIGHTED = 1  # the share of ranks whose gradients are weighted
WEIGHT = 2  # the mean of their weights, summed over the passes that added up
PASSES = 3  # the mean number of those passes
NONFINITE = 4  # above 0 if a gradient of some rank was NaN or infinite
IDLE = 5  # the share of ranks that came to the step without a new gradient
SLOTS = 6


@dataclass(frozen=True)
class RoundStatus:
    """The tail of the last bucket, averaged over ranks."""

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
            HvdtoolsError: A rank gave up, only some ranks gave a weight, or the
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
                "Another rank gave up this backward pass half way, on an exception of its own (its "
                "message is in its own output), so the gradients are incomplete on every rank: "
                "skip this batch on all ranks, or end the job."
            )
        # Counted, since an average of ones can miss 1 by a rounding.
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
    """Reads the tail of each round's last bucket.

    Args:
        deferred: True where the host runs ahead of the GPU. Reading at once
            would make it wait in every step, so the tail is read at the next.
    """

    def __init__(self, *, deferred: bool) -> None:
        self._deferred = deferred
        self._probe: tuple[Tensor, torch.cuda.Event] | None = None

    def listen(self, tail: Tensor) -> RoundStatus | None:
        """The averaged tail, shape (SLOTS,), of a round that this rank did not give up.

        None if it was put off.

        Raises:
            HvdtoolsError: The round is not sound.
        """
        if not self._deferred:
            status = RoundStatus(*tail.tolist())
            status.require_sound(late=False)
            return status
        copy = torch.empty(SLOTS, dtype=tail.dtype, device="cpu", pin_memory=True)
        copy.copy_(tail, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._probe = (copy, event)
        return None

    def recall(self) -> RoundStatus | None:
        """What `listen` put off in the round before, once; None if it did not.

        Raises:
            HvdtoolsError: That round was not sound; again with every call.
        """
        if self._probe is None:
            return None
        copy, event = self._probe
        event.synchronize()
        status = RoundStatus(*copy.tolist())
        status.require_sound(late=True)
        self._probe = None
        return status
