"""Rounds of all-reduces: each sends every bucket of a model once, in order, and averages it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import horovod.torch as hvd
import torch
from torch.nn import Parameter

from hvdtools.core.log import logger
from hvdtools.torch.gradients.accumulation import SavedGradients, restore
from hvdtools.torch.gradients.buckets import Bucket, BucketLayout
from hvdtools.torch.gradients.control_flags import (
    ABORT,
    IDLE,
    PASSES,
    WEIGHT,
    WEIGHTED,
    FlagReader,
    RoundStatus,
)
from hvdtools.torch.gradients.transport import GradientTransport, Transfer, send_flags
from hvdtools.torch.waiting import join_default_stream, wait_for, waiting

_LOGGED_STEP = 3  # the first step learns the order, the second may still compile
_LATE = 0.9
_AT_ITS_END = "all at the end of backward, so that nothing overlaps"
_UNSEEN = (
    "at an unknown point of backward: with torch.compile around the whole model all at its end "
    "(hvt.compile(model) sends them earlier)"
)


@dataclass(frozen=True)
class RoundWeight:
    """The weight of this rank's gradients in a round.

    Attributes:
        scale: The factor that `.grad` has yet to be multiplied by.
        weight: The sum of the weights of its passes.
        passes: The number of its passes.
    """

    scale: float
    weight: float
    passes: int


@dataclass(frozen=True)
class RoundInputs:
    """What a backward pass gives to the round that averages its gradients.

    Attributes:
        begun_s: When the pass reached the model's output, by time.monotonic();
            None if that was not seen.
        weight: None where the script gave no weights.
        saved: After a pass of weight 0, the gradients that are sent in place of its own.
        idle: True if this rank has no new gradient and takes part only because
            the other ranks wait for it.
    """

    begun_s: float | None
    weight: RoundWeight | None
    saved: SavedGradients | None
    idle: bool


class Round:
    """One averaging of all gradients; in a job of one rank nothing is sent.

    `mark_ready` and, to overlap, `send_ready` while gradients arrive; then
    `send_rest` and `settle`. `abort` ends it at any time instead.

    Args:
        step: The number of the round, from 1, the same on every rank.
        inputs: What the backward pass gives to it.
        parameters: Of the model.
    """

    def __init__(self, step: int, inputs: RoundInputs, parameters: Sequence[Parameter]) -> None:
        self.step = step
        self.inputs = inputs
        self._parameters = parameters

    def mark_ready(self, index: int) -> None:
        """Note that the gradient of parameter `index` has arrived."""

    def send_ready(self) -> None:
        """Send the next buckets in order, as far as all their gradients have arrived."""

    def send_rest(self) -> None:
        """Send all other buckets: gradients that have not arrived yet never will."""

    def has_sent(self, index: int) -> bool:
        """Whether the bucket of parameter `index` has been sent."""
        return False

    @torch.no_grad()
    def settle(self) -> RoundStatus | None:
        """Wait for all buckets and make every `.grad` the average over passes and ranks.

        Returns:
            The ranks' control flags; None if the host runs ahead of the GPU,
            and in a job of one rank.

        Raises:
            HvdtoolsError: The averages are not what the script asked for.
        """
        weight = self.inputs.weight
        if weight is None:
            return None
        RoundStatus(0, 1, weight.weight, weight.passes, 0, 0).require_sound(late=False)
        if self.inputs.saved is not None:
            restore(self.inputs.saved, self._parameters)
        factor = weight.scale * weight.passes / weight.weight
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if factor != 1 and gradients:
            torch._foreach_mul_(gradients, factor)
        return None

    def abort(self, next_index: int | None) -> bool:
        """End a round that an exception cut off, so that no other rank waits for it.

        Args:
            next_index: A parameter to whose `.grad` the next pass has already
                added; None if there is none.

        Returns:
            Whether that gradient was added to a bucket that was being averaged.
        """
        return False


class BucketAllreduce:
    """The buckets of one model, and the rounds in which they are averaged.

    Args:
        named: (name, parameter) of every parameter, each once, in model order.
        label: Names the all-reduces; the same on every rank.
        bucket_bytes: The size at which a bucket is closed.
        transport: What is put on the wire.
        before_sending: Called with the round's step, a bucket's index and the
            bucket just before it is sent.

    Attributes:
        rounds: How many have begun, aborted ones included.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Parameter]],
        *,
        label: str,
        bucket_bytes: float,
        transport: GradientTransport,
        before_sending: Callable[[int, int, Bucket], None],
    ) -> None:
        self.rounds = 0
        self.label = label
        self.transport = transport
        self.before_sending = before_sending
        self.layout = BucketLayout(named, bucket_bytes, transport)
        self.on_gpu = any(parameter.is_cuda for _, parameter in named)
        wanted = os.environ.get("HOROVOD_ENABLE_ASYNC_COMPLETION", "0") not in ("", "0")
        self.asynchronous = wanted and self.on_gpu
        self.flag_reader = FlagReader(deferred=self.asynchronous)
        self._parameters = [parameter for _, parameter in named]

    def read_deferred(self) -> RoundStatus | None:
        """The control flags of the previous round, where the host runs ahead of the GPU.

        Raises:
            HvdtoolsError: Its averages were not what the script asked for.
        """
        return self.flag_reader.read_deferred()

    def begin_round(self, inputs: RoundInputs) -> Round:
        """Begin a round; every rank begins the same number of rounds."""
        self.rounds += 1
        if hvd.size() == 1:
            return Round(self.rounds, inputs, self._parameters)
        self.layout.refresh()
        return AllreduceRound(self.rounds, inputs, self._parameters, self)


class AllreduceRound(Round):
    """A round that averages over ranks, with the buckets of `owner`."""

    def __init__(
        self,
        step: int,
        inputs: RoundInputs,
        parameters: Sequence[Parameter],
        owner: BucketAllreduce,
    ) -> None:
        super().__init__(step, inputs, parameters)
        self._owner = owner
        self._layout = owner.layout
        self._buckets = owner.layout.buckets
        self._missing = [len(bucket.parameters) for bucket in self._buckets]
        self._unused: list[list[int]] = []  # for each bucket sent, as Bucket.fill returns it
        self._transfers: list[Transfer] = []  # for each bucket sent
        self._flags: Transfer | None = None  # of the buckets that do not carry theirs
        # PyTorch's count of in-place changes of each payload when it was sent.
        self._versions: list[int] = []
        self._first_sent_s = 0.0

    def mark_ready(self, index: int) -> None:
        """As in `Round`."""
        self._missing[self._layout.bucket_of(index)] -= 1

    def send_ready(self) -> None:
        """As in `Round`.

        The last bucket stays until backward has ended: in its flags every rank
        learns of an abort, and an exception may come after the last gradient.
        """
        while len(self._transfers) < len(self._buckets) - 1:
            if self._missing[len(self._transfers)]:
                return
            self._send_next()

    def send_rest(self) -> None:
        """As in `Round`."""
        while len(self._transfers) < len(self._buckets):
            self._send_next()
        self._send_separate_flags()
        if self.step == _LOGGED_STEP:
            self._log_overlap()

    def _log_overlap(self) -> None:
        """Log how early gradients are sent: the model decides it, not the options."""
        if len(self._buckets) == 1:
            return
        begun_s = self.inputs.begun_s
        if begun_s is None:
            when = _UNSEEN
        else:
            backward_s = time.monotonic() - begun_s
            share = (self._first_sent_s - begun_s) / max(backward_s, 1e-9)
            when = f"the first after {share:.0%} of backward" if share < _LATE else _AT_ITS_END
        logger.info(f"gradients are sent in {len(self._buckets)} buckets, {when}")

    @torch.no_grad()
    def _send_next(self) -> None:
        index = len(self._transfers)
        if index == 0:
            self._first_sent_s = time.monotonic()
        bucket, inputs = self._buckets[index], self.inputs
        if inputs.saved is not None:
            restore(inputs.saved, bucket.parameters)
        self._unused.append(bucket.fill(1.0 if inputs.weight is None else inputs.weight.scale))
        if inputs.weight is not None:
            weighted = {WEIGHTED: 1.0, WEIGHT: inputs.weight.weight, PASSES: inputs.weight.passes}
            bucket.set_flags({**weighted, IDLE: float(inputs.idle)})
        elif inputs.idle:
            # If the other ranks gave weights, this rank's is 0.
            bucket.set_flags({PASSES: 1.0, IDLE: 1.0})
        self._owner.before_sending(self.step, index, bucket)
        self._versions.append(bucket.payload._version)
        self._send(bucket)

    def _send(self, bucket: Bucket) -> None:
        name = f"{self._owner.label}.bucket{len(self._transfers)}"
        self._transfers.append(self._owner.transport.send(bucket.payload, name))

    @torch.no_grad()
    def _send_separate_flags(self) -> None:
        rows = [b.separate_flags for b in self._buckets if b.separate_flags is not None]
        if rows and self._flags is None:
            self._flags = send_flags(rows, f"{self._owner.label}.flags")

    def has_sent(self, index: int) -> bool:
        """As in `Round`."""
        return bool(self._transfers) and self._layout.bucket_of(index) < len(self._transfers)

    @torch.no_grad()
    def settle(self) -> RoundStatus | None:
        """As in `Round`."""
        self._wait()
        for transfer in self._all_transfers():
            transfer.unpack()
        for bucket, unused in zip(self._buckets, self._unused, strict=True):
            if self.inputs.weight is not None or self.inputs.idle:
                bucket.divide_by_weight()
            bucket.give_back(unused)
        # Buckets are sent in order, so the last one has the flags of an abort.
        return self._owner.flag_reader.read(self._buckets[-1].flags)

    def _all_transfers(self) -> list[Transfer]:
        return [*self._transfers, *([self._flags] if self._flags else [])]

    def _wait(self) -> None:
        for index, transfer in enumerate(self._all_transfers()):
            with waiting(functools.partial(self._describe, index)):
                for handle in transfer.handles:
                    wait_for(handle, on_gpu=self._owner.on_gpu)
        if self._owner.asynchronous:
            join_default_stream()

    def _describe(self, index: int) -> str:
        model = self._owner.label.rpartition(".")[2]
        count = len(self._buckets)
        if index == count:
            return f"the control flags of model {model} in step {self.step}"
        names = " to ".join(self._layout.ends_of(index))
        return f"bucket {index + 1} of {count} ({names}) of model {model} in step {self.step}"

    @torch.no_grad()
    def abort(self, next_index: int | None) -> bool:
        """As in `Round`.

        The script may have cleared gradients since, and the next pass may have
        begun to add to them: the other buckets are sent as zeros from new buffers.
        """
        sent = self._buckets[: len(self._transfers)]
        mixed = next_index is not None and self._layout.holds_gradient(next_index, len(sent))
        for bucket in self._buckets[len(sent) :]:
            bucket.allocate()
            bucket.flags[ABORT] = 1
            self._send(bucket)
        self._send_separate_flags()
        self._wait()
        for bucket, version in zip(sent, self._versions, strict=True):
            # zero_grad(set_to_none=False) met an all-reduce under way: it meant zeros.
            if bucket.payload._version != version:
                bucket.clear_gradients()
        return mixed
