"""One round of all-reduces: the buckets of a model, sent in order and handed back averaged."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import horovod.torch as hvd
import torch
from torch.nn import Parameter

from hvdtools.core.log import logger
from hvdtools.torch.gradients.accumulation import SavedGradients, put_back
from hvdtools.torch.gradients.buckets import Bucket
from hvdtools.torch.gradients.control_flags import (
    ABORT,
    IDLE,
    PASSES,
    WEIGHT,
    WEIGHTED,
    FlagReader,
    RoundStatus,
)
from hvdtools.torch.gradients.layout import Layout
from hvdtools.torch.waiting import join_default_stream, wait_for, waiting

_STEP_OF_NOTE = 3  # the first learns the order, the second may still compile
_LATE = 0.9
_AT_ITS_END = "all at the end of backward, so that nothing overlaps"
_UNSEEN = (
    "unseen when: with torch.compile around the whole model all at the end of backward "
    "(hvt.compile(model) lets them leave earlier)"
)


@dataclass(frozen=True)
class RoundWeight:
    """What the gradients of a round weigh on this rank.

    Attributes:
        scale: What `.grad` is to be multiplied by.
        weight: The sum of the weights of its passes.
        passes: The number of its passes.
    """

    scale: float
    weight: float
    passes: int


@dataclass
class AllreduceRound:
    """One all-reduce of all buckets.

    Attributes:
        step: Its number, from 1, the same on every rank.
        begun_s: When its last backward pass reached the model's output, by
            time.monotonic(); None if that was not seen.
        round_weight: None where the script gave no weights.
        saved: Gradients to put back before they are sent, after a pass of weight 0.
        idle: True if this rank has no new gradient and only keeps the others company.
        missing: For each bucket how many parameters have no gradient yet.
        unused: For each bucket sent, the places without a gradient on this rank.
        handles: Horovod's handle of each bucket sent.
        versions: PyTorch's count of in-place changes of each bucket when it was sent.
        first_left_s: When the first bucket left, before the end of backward or at it.
    """

    step: int
    begun_s: float | None
    round_weight: RoundWeight | None
    saved: SavedGradients | None
    idle: bool
    missing: list[int]
    unused: list[list[int]] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    first_left_s: float = 0.0


class BucketAllreduce:
    """The buckets of one model, and the rounds in which they travel.

    Args:
        named: (name, parameter) of every parameter, each once, in model order.
        label: Names the all-reduces; the same on every rank.
        bucket_bytes: The size at which a bucket is closed.
        before_sending: Called with the round's step, a bucket's index and the bucket
            when it is about to leave.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Parameter]],
        *,
        label: str,
        bucket_bytes: float,
        before_sending: Callable[[int, int, Bucket], None],
    ) -> None:
        self.layout = Layout(named, bucket_bytes)
        self.rounds = 0
        self._label = label
        self._before_sending = before_sending
        self._on_gpu = any(parameter.is_cuda for _, parameter in named)
        wanted = os.environ.get("HOROVOD_ENABLE_ASYNC_COMPLETION", "0") not in ("", "0")
        self._async = wanted and self._on_gpu
        self._flag_reader = FlagReader(deferred=self._async)

    def recall(self) -> RoundStatus | None:
        """The control flags of the round before, where the host runs ahead of the GPU.

        Raises:
            HvdtoolsError: That round was not sound.
        """
        return self._flag_reader.recall()

    def open(
        self,
        begun_s: float | None,
        round_weight: RoundWeight | None,
        saved: SavedGradients | None,
        *,
        idle: bool,
    ) -> AllreduceRound:
        """Begin a round, as often on every rank. The arguments are `AllreduceRound`'s."""
        self.layout.refresh()
        self.rounds += 1
        missing = [len(bucket.parameters) for bucket in self.layout.buckets]
        return AllreduceRound(self.rounds, begun_s, round_weight, saved, idle, missing)

    def send_complete(self, running: AllreduceRound) -> None:
        """Send the next buckets in order, as far as all their gradients have arrived.

        The last stays until backward has ended: in it every rank learns whether
        one gave up, and an exception may come after the last gradient.
        """
        while len(running.handles) < len(self.layout.buckets) - 1:
            if running.missing[len(running.handles)]:
                return
            self._send_next(running)

    def send_rest(self, running: AllreduceRound) -> None:
        """Send every bucket that is left: the gradients that have not arrived never will."""
        while len(running.handles) < len(self.layout.buckets):
            self._send_next(running)
        if running.step == _STEP_OF_NOTE:
            self._note_overlap(running)

    def _note_overlap(self, running: AllreduceRound) -> None:
        """Say once how early gradients leave, since what runs decides it, not what was asked."""
        count = len(self.layout.buckets)
        if count == 1:
            return
        if running.begun_s is None:
            when = _UNSEEN
        else:
            backward_s = time.monotonic() - running.begun_s
            share = (running.first_left_s - running.begun_s) / max(backward_s, 1e-9)
            when = f"the first after {share:.0%} of backward" if share < _LATE else _AT_ITS_END
        logger.info(f"gradients leave in {count} buckets, {when}")

    @torch.no_grad()
    def _send_next(self, running: AllreduceRound) -> None:
        index = len(running.handles)
        if index == 0:
            running.first_left_s = time.monotonic()
        bucket = self.layout.buckets[index]
        if running.saved is not None:
            put_back(running.saved, bucket.parameters)
        round_weight = running.round_weight
        running.unused.append(bucket.fill(1.0 if round_weight is None else round_weight.scale))
        if round_weight is not None:
            weighed = {WEIGHTED: 1.0, WEIGHT: round_weight.weight, PASSES: round_weight.passes}
            bucket.set_flags({**weighed, IDLE: float(running.idle)})
        elif running.idle:
            # If the others gave weights, this rank's is 0.
            bucket.set_flags({PASSES: 1.0, IDLE: 1.0})
        self._before_sending(running.step, index, bucket)
        running.versions.append(bucket.flat._version)
        running.handles.append(self._allreduce(index))

    def _allreduce(self, index: int) -> int:
        name = f"{self._label}.bucket{index}"
        handle: int = hvd.allreduce_async_(
            self.layout.buckets[index].flat, name=name, op=hvd.Average
        )
        return handle

    @torch.no_grad()
    def settle(self, running: AllreduceRound) -> RoundStatus | None:
        """Wait for all buckets and make every `.grad` the average.

        Returns:
            What the ranks signalled; None if the host runs ahead of the GPU.

        Raises:
            HvdtoolsError: The round is not sound.
        """
        self._wait(running)
        for bucket, unused in zip(self.layout.buckets, running.unused, strict=True):
            if running.round_weight is not None or running.idle:
                bucket.divide_by_weight()
            bucket.give_back(unused)
        # Buckets leave in order: if another rank gave up, the last one knows.
        return self._flag_reader.listen(self.layout.buckets[-1].flags)

    def _wait(self, running: AllreduceRound) -> None:
        for index, handle in enumerate(running.handles):
            with waiting(functools.partial(self._describe, running.step, index)):
                wait_for(handle, on_gpu=self._on_gpu)
        if self._async:
            join_default_stream()

    def _describe(self, step: int, index: int) -> str:
        buckets = self.layout.buckets
        names = " to ".join(self.layout.ends_of(index))
        model = self._label.rpartition(".")[2]
        return f"bucket {index + 1} of {len(buckets)} ({names}) of model {model} in step {step}"

    @torch.no_grad()
    def abort(self, running: AllreduceRound) -> None:
        """End a round that an exception cut off, so that no other rank waits for it.

        The script may have cleared gradients since, and the next pass may have
        begun to add to them: what is left is sent as zeros from new buffers.
        """
        sent = self.layout.buckets[: len(running.handles)]
        for index in range(len(sent), len(self.layout.buckets)):
            bucket = self.layout.buckets[index]
            bucket.allocate()
            bucket.flags[ABORT] = 1
            running.handles.append(self._allreduce(index))
        self._wait(running)
        for bucket, version in zip(sent, running.versions, strict=True):
            # zero_grad(set_to_none=False) met an all-reduce under way: it meant zeros.
            if bucket.flat._version != version:
                bucket.clear_gradients()
