"""Average gradients over ranks while backward runs, and hand them over when it returns.

The life of a backward pass:

1. A gradient reaches the model's output, or the first parameter: `_begin`
   remembers the graph task and queues `_finish` for its end.
2. Each parameter's hook counts its bucket down; buckets that are complete are
   sent, strictly in index order, so that all ranks send the same sequence.
3. At the end of the pass `_finish` sends what is left (zeros where this rank
   had no gradient), waits for all buckets and hands the averages to `.grad`.

An exception in backward skips step 3. Other ranks may be waiting for the
buckets that were not sent: the next pass or optimizer step finds the stale
task and `_abandon`s it, which sends the rest with the abort flag raised, so
that every rank learns of it.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import horovod.torch as hvd
import torch
from torch.nn import Parameter

from hvdtools.errors import HvdtoolsError
from hvdtools.torch.abort import AbortWatch
from hvdtools.torch.backward import at_end_of_backward, current_task, is_nested
from hvdtools.torch.hooks import listen, refuse_unreducible
from hvdtools.torch.layout import Layout

_POLL_S = 50e-6


@dataclass
class _Pass:
    """One outermost backward pass.

    Attributes:
        task: Its graph task.
        sends: True if its gradients go over the wire at its end.
        missing: For each bucket how many parameters have no gradient yet.
        seen: The parameters whose gradient has arrived, by index.
        unused: For each bucket sent, the places without a gradient on this rank.
        handles: Horovod's handle of each bucket sent.
        versions: PyTorch's count of in-place changes of each bucket when it was sent.
    """

    task: int
    sends: bool
    missing: list[int]
    seen: set[int] = field(default_factory=set)
    unused: list[list[int]] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)


class Reducer:
    """The hooks on one model's parameters, and the buckets behind them.

    Args:
        named: (name, parameter) of every parameter, each once, in model order.
        label: Names this reducer's all-reduces; the same on every rank.
        accumulate: Backward passes for each all-reduce.
        bucket_bytes: The size at which a bucket is closed.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Parameter]],
        *,
        label: str,
        accumulate: int,
        bucket_bytes: float,
    ) -> None:
        self.accumulate = accumulate
        self.paused = 0  # depth of no_sync()
        self._named = list(named)
        self._label = label
        self._alone = hvd.size() == 1
        self._lock = threading.RLock()  # one autograd thread per device calls the hooks
        self._layout = Layout(self._named, bucket_bytes)
        self._pass: _Pass | None = None
        self._passes_done = 0
        self._unreduced: set[int] = set()
        # Until one whole pass was seen, nothing is sent before its end, and never
        # once a nested pass was seen: there a parameter can get gradients twice.
        self._overlap = False
        self._saw_nested = False
        self._on_gpu = any(parameter.is_cuda for _, parameter in self._named)
        wanted = os.environ.get("HOROVOD_ENABLE_ASYNC_COMPLETION", "0") not in ("", "0")
        self._async = wanted and self._on_gpu
        self._abort = AbortWatch(deferred=self._async)
        for index, (_, parameter) in enumerate(self._named):
            listen(parameter, self, index)

    # -- one backward pass -------------------------------------------------

    def on_output_gradient(self) -> None:
        """Called when a gradient reaches the model's output.

        It may be torch.autograd.grad that runs, which adds nothing to any
        parameter: a pass without a parameter's gradient is forgotten at its end.
        """
        with self._lock:
            task = current_task()
            known = self._pass is not None and self._pass.task == task
            if not known and not is_nested():
                self._begin(task)

    def on_parameter_gradient(self, index: int) -> None:
        """Called after a gradient was added to parameter `index`."""
        with self._lock:
            task = current_task()
            if self._pass is None or self._pass.task != task:
                self._enter(task, index)
            assert self._pass is not None
            refuse_unreducible(*self._named[index])
            if index in self._pass.seen:
                self._refuse_late(index)
                return
            self._pass.seen.add(index)
            if self._pass.sends and not self._alone:
                self._pass.missing[self._layout.bucket_of(index)] -= 1
                if self._overlap:
                    self._send_complete(self._pass)

    def _enter(self, task: int, index: int) -> None:
        """A gradient from another graph task than the last: a nested pass, or a new one."""
        nested = is_nested()
        if nested and self._pass is not None:
            self._saw_nested = True
            self._overlap = False
            return
        if nested:
            raise HvdtoolsError(
                f"Re-entrant checkpointing reached parameter {self._named[index][0]} before any "
                "gradient reached the output of the prepared model: call the model that was given "
                "to prepare(), or use checkpoint(..., use_reentrant=False)."
            )
        self._begin(task, first=index)

    def _begin(self, task: int, first: int | None = None) -> None:
        stale = self._pass
        mixed = False
        if stale is not None:
            mixed = first is not None and self._layout.holds(first, sent=len(stale.handles))
            self._abandon(stale)
        self._abort.recall()
        self._forget_discarded(first)
        sends = not self.paused and self._passes_done + 1 >= self.accumulate
        if sends and not self._alone:
            self._layout.refresh()
        missing = [len(bucket.parameters) for bucket in self._layout.buckets]
        self._pass = _Pass(task, sends, missing)
        at_end_of_backward(functools.partial(self._finish, task))
        if mixed and first is not None:
            self._pass.seen.add(first)  # so that this pass is abandoned, and all ranks know
            raise HvdtoolsError(
                f"After an exception in backward(), the gradient of {self._named[first][0]} met an "
                "all-reduce still under way: use zero_grad(set_to_none=True), or call the model "
                "that was given to prepare()."
            )

    def _finish(self, task: int) -> None:
        with self._lock:
            running = self._pass
            if running is None or running.task != task:
                return
            self._pass = None
            if not running.seen:
                return
            if not running.sends:
                self._passes_done += 0 if self.paused else 1
                self._unreduced |= running.seen
                return
            self._passes_done = 0
            if not self._alone:
                while len(running.handles) < len(self._layout.buckets):
                    self._send_next(running)
                self._wait(running)
                self._hand_over(running)
                # Buckets leave in order: if another rank gave up, the last one knows.
                self._abort.check(self._layout.buckets[-1].abort)
            self._unreduced.clear()
            self._overlap = not self._saw_nested

    @torch.no_grad()
    def _abandon(self, stale: _Pass) -> None:
        """End a pass that an exception cut off, so that no other rank waits for it.

        The script may have cleared gradients since, and the next pass may have
        begun to add to them: what is left is sent as zeros from new buffers.
        """
        self._pass = None
        if not stale.seen:
            return
        self._unreduced |= stale.seen
        if not stale.sends:
            self._passes_done += 0 if self.paused else 1
            return
        self._passes_done = 0
        if self._alone:
            return
        already_sent = self._layout.buckets[: len(stale.handles)]
        for index in range(len(stale.handles), len(self._layout.buckets)):
            self._layout.buckets[index].allocate()
            self._layout.buckets[index].abort.fill_(1)
            stale.handles.append(self._allreduce(index))
        self._wait(stale)
        for bucket, version in zip(already_sent, stale.versions, strict=True):
            # zero_grad(set_to_none=False) met an all-reduce under way: it meant zeros.
            if bucket.flat._version != version:
                bucket.clear_gradients()

    # -- sending and waiting -----------------------------------------------

    def _send_complete(self, running: _Pass) -> None:
        while len(running.handles) < len(self._layout.buckets):
            if running.missing[len(running.handles)]:
                return
            self._send_next(running)

    @torch.no_grad()
    def _send_next(self, running: _Pass) -> None:
        index = len(running.handles)
        running.unused.append(self._layout.buckets[index].fill())
        running.versions.append(self._layout.buckets[index].flat._version)
        running.handles.append(self._allreduce(index))

    def _allreduce(self, index: int) -> int:
        name = f"{self._label}.bucket{index}"
        handle: int = hvd.allreduce_async_(
            self._layout.buckets[index].flat, name=name, op=hvd.Average
        )
        return handle

    def _wait(self, running: _Pass) -> None:
        for handle in running.handles:
            if not self._on_gpu:
                _sleep_until_done(handle)
            hvd.synchronize(handle)
        if self._async:
            # Asynchronous completion makes the device's default stream wait for
            # the result, whichever stream the script trains on.
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())

    @torch.no_grad()
    def _hand_over(self, running: _Pass) -> None:
        for bucket, unused in zip(self._layout.buckets, running.unused, strict=True):
            bucket.give_back(unused)

    # -- what the optimizer may see ------------------------------------------

    def require_reduced(self) -> None:
        """Raise if some `.grad` is this rank's own and not the average.

        Raises:
            HvdtoolsError: The last passes ran under `no_sync()`, are fewer than
                `accumulate`, or ended in an exception.
        """
        with self._lock:
            if self._pass is not None:
                self._abandon(self._pass)
            waiting = [i for i in self._unreduced if self._named[i][1].grad is not None]
            if not waiting:
                return
            done = f"{self._passes_done} of {self.accumulate} backward passes are done"
            raise HvdtoolsError(
                f"step() would use gradients that are not averaged over ranks ({len(waiting)} "
                f"parameters, {self._named[min(waiting)][0]} first; {done}): call step() after "
                "the backward() that averages, which is the last of `accumulate` or the first "
                "outside no_sync(), or drop them with zero_grad()."
            )

    # -- small parts -----------------------------------------------------------

    def _forget_discarded(self, first: int | None) -> None:
        """Start counting anew if zero_grad() dropped what earlier passes left."""
        earlier = self._unreduced - {first}
        if earlier and all(self._named[index][1].grad is None for index in earlier):
            self._unreduced.clear()
            self._passes_done = 0

    def _refuse_late(self, index: int) -> None:
        """A second gradient for one parameter in one pass, after its bucket left."""
        running = self._pass
        assert running is not None
        sends = running.sends and not self._alone
        if sends and self._layout.bucket_of(index) < len(running.handles):
            raise HvdtoolsError(
                f"Parameter {self._named[index][0]} got a second gradient from re-entrant "
                "checkpointing after the first was sent: use checkpoint(..., use_reentrant=False)."
            )


def _sleep_until_done(handle: int) -> None:
    """Horovod's own wait spins, on a core that its thread needs to add up the gradients."""
    while not hvd.poll(handle):
        time.sleep(_POLL_S)
