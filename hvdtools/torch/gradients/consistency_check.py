"""The consistency check in every run: replicas are equal, gradients are finite."""

from __future__ import annotations

import atexit
import functools
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor
from torch.nn import Parameter

from hvdtools.core.agreement import Differences, describe_differences, divergence_error
from hvdtools.core.log import logger
from hvdtools.core.text import ranks_text
from hvdtools.torch.checksum import Comparison, checksum, checksums, combined_checksum
from hvdtools.torch.gradients.buckets import Bucket
from hvdtools.torch.gradients.control_flags import NONFINITE, RoundStatus
from hvdtools.torch.gradients.observations import Observation
from hvdtools.torch.waiting import waiting

_FIRST_STEPS = 3
_EXIT_S = 10.0  # at most, for ranks that are behind when this one ends
_POLL_S = 1e-3


@dataclass(frozen=True)
class _Due:
    """A comparison under way: its step, and the buckets of the weights and averages compared."""

    step: int
    buckets: list[Bucket]
    comparison: Comparison


class ConsistencyCheck:
    """Compares one model's weights and averaged gradients over ranks, in some steps.

    In a step that is due, the gradients of each bucket are checked for NaN and
    infinity before it is sent. After the round, the comparison of checksums of
    weights and averages, one of each per bucket, starts; it is read when the
    next step begins.

    Args:
        named: (name, parameter) of every parameter of the model.
        label: Names the messages; the same on every rank.
        every: Steps between two checks, and the first three; 0 for none.
        observations: What else is compared.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Parameter]],
        *,
        label: str,
        every: int,
        observations: Sequence[Observation] = (),
    ) -> None:
        self._named = named
        self._observations = observations
        self._label = label
        self._every = every if hvd.size() > 1 else 0
        self._bad: list[Tensor] = []  # for each bucket sent, shape (): not all is finite
        self._due: _Due | None = None
        self._required = 0
        _watch_exit()
        _checks.add(self)

    def due(self, step: int) -> bool:
        """Whether step `step`, from 1, has a consistency check."""
        if not self._every:
            return False
        return step <= _FIRST_STEPS or step % self._every == 0 or step == self._required

    def require_check(self, step: int) -> None:
        """Check in step `step` as well; every rank must ask for it."""
        self._required = step

    def before_sending(self, step: int, index: int, bucket: Bucket) -> None:
        """Set the control flag of bucket `index` if a gradient of this rank is not finite."""
        if not self.due(step):
            return
        # A sum is NaN or infinite if an element is, and reads each once.
        bad = ~torch.isfinite(bucket.gradients.sum())
        earlier = self._bad if index else []
        self._bad = [*earlier, bad]
        # Only the flags of the last bucket are read: they count for all.
        bucket.flags[NONFINITE] = sum(each.to(bad.device, bucket.flags.dtype) for each in self._bad)

    def after(self, step: int, status: RoundStatus | None, buckets: Sequence[Bucket]) -> None:
        """Start the comparison of a step that is due; name the ranks whose gradients were bad."""
        if not self.due(step):
            return
        weights = [combined_checksum(bucket.parameters) for bucket in buckets]
        averages = [checksum(bucket.gradients) for bucket in buckets]
        device = weights[0].device
        facts = [
            torch.as_tensor(observation.number(step), dtype=torch.int64)
            for observation in self._observations
        ]
        numbers = torch.stack([number.to(device) for number in (*weights, *averages, *facts)])
        comparison = Comparison(numbers, f"{self._label}.check", free=len(facts))
        self._due = _Due(step, list(buckets), comparison)
        if status is not None:
            self.name_nonfinite(status)

    def name_nonfinite(self, status: RoundStatus) -> None:
        """Warn on every rank which ranks' gradients were NaN or infinite, and where.

        Not an error: a GradScaler finds its scale by such steps and skips them.
        """
        if not status.nonfinite > 0 or self._due is None:
            return
        mine = [index for index, bad in enumerate(self._bad) if bad.item()]
        everyone = hvd.allgather_object(mine, name=f"{self._label}.nonfinite")
        ranks = [rank for rank, places in enumerate(everyone) if places]
        buckets = [self._due.buckets[index] for index in sorted(set().union(*everyone))]
        logger.warning(
            f"step {self._due.step}: gradients of {ranks_text(ranks)} were NaN or infinite "
            f"({self._bad_names(buckets)}), and after averaging they are on every rank."
        )

    def _bad_names(self, buckets: Sequence[Bucket]) -> str:
        """The parameters whose average is not finite; all of the buckets if that was cleared."""
        pairs = [pair for b in buckets for pair in zip(b.parameters, b.views, strict=True)]
        bad = [parameter for parameter, view in pairs if not view.isfinite().all()]
        first, *more = self._names(bad or [parameter for parameter, _ in pairs])
        return f"{first} and {len(more)} more" if more else first

    def _names(self, parameters: Sequence[Tensor]) -> list[str]:
        names = {id(parameter): name for name, parameter in self._named}
        return [names[id(parameter)] for parameter in parameters]

    def conclude(self) -> None:
        """Read the comparison that is under way, if one is.

        Raises:
            HvdtoolsError: Replicas diverged: on every rank.
        """
        due, self._due = self._due, None
        if due is None:
            return
        with waiting(f"the comparison of step {due.step}"):
            differences = due.comparison.conclude()
            if differences:
                where = self._in_words(due, differences)
                raise divergence_error(where, f"at step {due.step}")
            pairs = zip(self._observations, due.comparison.agreements, strict=True)
            for observation, agree in pairs:
                observation.conclude(due.step, agree=agree)

    def conclude_at_exit(self, until_s: float) -> None:
        """Read the last comparison, and with it wait for the ranks that are a step behind.

        A rank that ends shuts Horovod down on all ranks, also on one that is
        about to take part in the comparison. Details are not exchanged: the
        other ranks may have ended.
        """
        due, self._due = self._due, None
        if due is None:
            return
        try:
            while not due.comparison.arrived():
                if time.monotonic() > until_s:
                    return
                time.sleep(_POLL_S)
            if due.comparison.found_difference():
                logger.error(f"Replicas diverged at step {due.step}: weights or gradients differ.")
        except HorovodInternalError:
            return  # another rank failed and reports why

    def _in_words(self, due: _Due, differences: Differences) -> str:
        """Which ranks differ in which weights, compared one by one as they are now."""
        count = len(due.buckets)
        suspects = [
            p for place in differences if place < count for p in due.buckets[place].parameters
        ]
        if suspects:
            names = [f"the weight {name}" for name in self._names(suspects)]
            now = Comparison(checksums(suspects), f"{self._label}.weights").conclude()
            if now:
                return describe_differences(now, names)
        names = [f"the weights of bucket {index + 1}" for index in range(count)]
        names += [f"the averaged gradients of bucket {index + 1}" for index in range(count)]
        return describe_differences(differences, names)


_checks: weakref.WeakSet[ConsistencyCheck] = weakref.WeakSet()


@functools.cache
def _watch_exit() -> None:
    # After hvd.init(), so that it runs before Horovod's own end.
    atexit.register(_conclude_at_exit)


def _conclude_at_exit() -> None:
    until_s = time.monotonic() + _EXIT_S
    if hvd.is_initialized():
        for check in list(_checks):
            check.conclude_at_exit(until_s)
