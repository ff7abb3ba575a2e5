"""Average gradients over ranks while backward runs, and hand them over when it returns.

The life of a backward pass:

1. A gradient reaches the model's output, or the first parameter: `_begin`
   remembers the graph task and queues `_finish` for its end.
2. Each parameter's hook counts its bucket down; buckets that are complete are
   sent, strictly in index order, so that all ranks send the same sequence. The
   last waits for step 3.
3. At the end of the pass `_finish` sends what is left (zeros where this rank
   had no gradient).
4. Once every model of the pass has done so, `_settle` waits for all buckets and
   hands the averages to `.grad`.

An exception in backward skips steps 3 and 4. Other ranks may be waiting for the
buckets that were not sent: the next pass or optimizer step finds the stale
task and ends it (`_end_stale`), which sends the rest with the abort flag
raised, so that every rank learns of it.

The parts: `accumulation` keeps what adds up before it is sent and what it weighs,
`bucket_allreduce` the buckets of one round, `consistency_check` what is compared in some steps.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import horovod.torch as hvd
import torch
from torch.nn import Parameter

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.torch.gradients.accumulation import GradientAccumulation, SavedGradients, put_back
from hvdtools.torch.gradients.backward import at_end_of_backward, current_task, is_nested
from hvdtools.torch.gradients.bucket_allreduce import AllreduceRound, BucketAllreduce, RoundWeight
from hvdtools.torch.gradients.consistency_check import ConsistencyCheck
from hvdtools.torch.gradients.control_flags import RoundStatus
from hvdtools.torch.gradients.hooks import listen, refuse_unreducible
from hvdtools.torch.weighting import current_weight


@dataclass
class _Pass:
    """One outermost backward pass.

    Attributes:
        task: Its graph task.
        sends: True if its gradients go over the wire at its end.
        weight: How much it counts; None where the script gave no weight.
        saved: Gradients to put back at its end, if its own count for nothing.
        problem: Why it is refused; None if it is not.
        round: The round of all-reduces that it fills; None if it sends nothing.
        seen: The parameters whose gradient has arrived, by index.
        begun_s: When it reached the model's output, by time.monotonic(); None if
            that was not seen.
    """

    task: int
    sends: bool
    weight: float | None
    saved: SavedGradients | None
    problem: str | None = None
    round: AllreduceRound | None = None
    seen: set[int] = field(default_factory=set)
    begun_s: float | None = None


class Reducer:
    """The hooks on one model's parameters, and what they do.

    Args:
        named: (name, parameter) of every parameter, each once, in model order.
        label: Names this reducer's all-reduces; the same on every rank.
        accumulate: Backward passes for each all-reduce.
        bucket_bytes: The size at which a bucket is closed.
        check_every: Steps between two proofs that the replicas are equal.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Parameter]],
        *,
        label: str,
        accumulate: int,
        bucket_bytes: float,
        check_every: int,
    ) -> None:
        self.accumulate = accumulate
        self.paused = 0  # depth of no_sync()
        self.rounds = 0  # of averaging, whether or not there is anybody to average with
        self.last_weight = 1.0
        self._named = list(named)
        self._alone = hvd.size() == 1
        self._lock = threading.RLock()  # one autograd thread per device calls the hooks
        self._check = ConsistencyCheck(self._named, label=label, every=check_every)
        self._allreduce = BucketAllreduce(
            self._named,
            label=label,
            bucket_bytes=bucket_bytes,
            before_sending=self._check.before_sending,
        )
        self._accumulation = GradientAccumulation(self._named)
        self._pass: _Pass | None = None
        # Until one whole pass was seen, nothing is sent before its end, and never
        # once a nested pass was seen: there a parameter can get gradients twice.
        self._overlap = False
        self._saw_nested = False
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
            if self._pass.problem is not None and not self._pass.seen:
                self._refuse(self._pass, index)
            refuse_unreducible(*self._named[index])
            if index in self._pass.seen:
                self._refuse_late(index)
                return
            self._pass.seen.add(index)
            if self._pass.sends and not self._alone:
                self._count_down(self._pass, index)

    def _count_down(self, running: _Pass, index: int) -> None:
        if running.round is None:
            running.round = self._open(running)
        running.round.missing[self._allreduce.layout.bucket_of(index)] -= 1
        if self._overlap:
            self._allreduce.send_complete(running.round)

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
        problem = self._end_stale(first)
        self._accumulation.forget_discarded(first)
        sends = not self.paused and self._accumulation.counted + 1 >= self.accumulate
        weight = current_weight()
        problem = problem or self._accumulation.problem(weight, first, sends=sends)
        saved = None if problem else self._accumulation.begin(weight, first)
        begun_s = time.monotonic() if first is None else None
        self._pass = _Pass(task, sends, weight, saved, problem, begun_s=begun_s)
        at_end_of_backward(functools.partial(self._finish, task))

    def _refuse(self, running: _Pass, index: int) -> None:
        """Raise what is wrong with a pass, now that it is one and not torch.autograd.grad's."""
        running.seen.add(index)
        if running.sends and not self._alone:
            running.round = self._open(running)  # to be abandoned, so that all ranks know
        raise HvdtoolsError(running.problem)

    def _open(self, running: _Pass) -> AllreduceRound:
        """Begin a round; what was put off in the one before is read first.

        Raises:
            HvdtoolsError: That round was not sound, or replicas diverged: on
                every rank, so that nobody waits for this one.
        """
        try:
            status = self._allreduce.recall()
            if status is not None:
                self._check.name_nonfinite(status)
                if status.some_idle:
                    self._check.doubt(self._allreduce.rounds + 1)
            self._check.conclude()
        except HvdtoolsError:
            self._pass = None
            raise
        # With nothing added up before, a pass of weight 0 has nothing to send.
        saved = running.saved if self._accumulation.passes or running.saved is None else {}
        idle = not running.seen
        return self._allreduce.open(running.begun_s, self._round_weight(running), saved, idle=idle)

    def _round_weight(self, running: _Pass) -> RoundWeight | None:
        accumulation = self._accumulation
        if running.weight is None or accumulation.scale is None:
            return None
        return RoundWeight(
            accumulation.scale, accumulation.weight + running.weight, accumulation.passes + 1
        )

    def _finish(self, task: int) -> None:
        with self._lock:
            running = self._pass
            if running is None or running.task != task:
                return
            if running.seen and running.sends:
                if running.round is not None:
                    self._allreduce.send_rest(running.round)
                # Once the other models of this backward pass have sent theirs: on
                # another rank they may come first, and waiting now would be for ever.
                at_end_of_backward(functools.partial(self._settle, running))
                return
            self._pass = None
            if running.seen:
                self._accumulation.add(
                    running.seen, running.weight, running.saved, counts=not self.paused
                )
            else:
                self._put_back(running)

    def _settle(self, running: _Pass) -> None:
        with self._lock:
            if self._pass is running:
                self._pass = None
                self._reduce(running)

    def _reduce(self, running: _Pass) -> None:
        """Average what the pass and those before it left."""
        round_weight = self._round_weight(running)
        self.rounds += 1
        self.last_weight = 1.0 if round_weight is None else round_weight.weight
        try:
            if running.round is not None:
                status = self._allreduce.settle(running.round)
                self._note_idle(status, running.round)
                self._check.after(running.round.step, status, self._allreduce.layout.buckets)
            elif round_weight is not None:
                self._settle_alone(running, round_weight)
        except HvdtoolsError:
            self._accumulation.clear()
            self._accumulation.unreduced = set(running.seen)
            raise
        self._accumulation.clear()
        if running.seen:
            self._overlap = not self._saw_nested

    def _note_idle(self, status: RoundStatus | None, last: AllreduceRound) -> None:
        """Where some ranks had no gradient: they say so, and all look whether that did harm."""
        if status is not None and status.some_idle:
            self._check.doubt(last.step + 1)
        if last.idle and (status is None or status.some_idle):
            logger.warning(
                f"rank {hvd.rank()} came to step() {last.step} without a new gradient: its loss "
                "touched no parameter, or it ran no backward(). It counts as zeros; with clipping "
                "or a GradScaler, which look at gradients before step(), let every loss touch the "
                "model (+ 0 * output.sum())."
            )

    @torch.no_grad()
    def _settle_alone(self, running: _Pass, round_weight: RoundWeight) -> None:
        """The weighted mean over the passes of a job of one rank."""
        RoundStatus(0, 1, round_weight.weight, round_weight.passes, 0, 0).require_sound(late=False)
        self._put_back(running)
        factor = round_weight.scale * round_weight.passes / round_weight.weight
        gradients = [p.grad for _, p in self._named if p.grad is not None]
        if factor != 1 and gradients:
            torch._foreach_mul_(gradients, factor)

    def _put_back(self, running: _Pass) -> None:
        if running.saved is not None:
            put_back(running.saved, (parameter for _, parameter in self._named))

    def _end_stale(self, first: int | None) -> str | None:
        """End the pass that an exception cut off, if there is one.

        Args:
            first: A parameter that already has its gradient of the next pass.

        Returns:
            Why the next pass cannot go on; None if it can.
        """
        stale, self._pass = self._pass, None
        if stale is None:
            return None
        if not stale.seen:
            self._put_back(stale)
            return None
        if not stale.sends:
            saved = None if self._cleared(stale.seen) else stale.saved
            self._accumulation.add(stale.seen, stale.weight, saved, counts=not self.paused)
            return None
        self._accumulation.clear()
        self._accumulation.unreduced = set(stale.seen)
        if stale.round is None:
            return None
        sent = len(stale.round.handles)
        mixed = first is not None and self._allreduce.layout.holds(first, sent=sent)
        self._allreduce.abort(stale.round)
        if first is None or not mixed:
            return None
        return (
            f"After an exception in backward(), the gradient of {self._named[first][0]} met an "
            "all-reduce still under way: use zero_grad(set_to_none=True), or call the model "
            "that was given to prepare()."
        )

    # -- what the optimizer may see ------------------------------------------

    def require_reduced(self) -> None:
        """Raise if some `.grad` is this rank's own and not the average.

        Raises:
            HvdtoolsError: The last passes ran under `no_sync()`, are fewer than
                `accumulate`, or ended in an exception.
        """
        with self._lock:
            self._end_stale(None)
            waiting = self._accumulation.unreduced_now()
            if not waiting:
                return
            done = f"{self._accumulation.counted} of {self.accumulate} backward passes are done"
            raise HvdtoolsError(
                f"step() would use gradients that are not averaged over ranks ({len(waiting)} "
                f"parameters, {self._named[waiting[0]][0]} first; {done}): call step() after "
                "the backward() that averages, which is the last of `accumulate` or the first "
                "outside no_sync(), or drop them with zero_grad(). (Groups of passes that end "
                "with a shorter one are for no_sync().)"
            )

    def reduce_nothing(self) -> None:
        """Take part in the others' round although this rank has no new gradient.

        They would wait for it, and then take its next gradients for this step's.
        """
        with self._lock:
            self._accumulation.forget_discarded(None)
            if self._alone or self.paused or self._accumulation.passes:
                return
            if not any(parameter.requires_grad for _, parameter in self._named):
                return
            weight = current_weight()
            running = _Pass(-1, True, weight, self._accumulation.begin(weight, None))
            running.round = self._open(running)
            self._allreduce.send_rest(running.round)
            self._reduce(running)

    # -- small parts -----------------------------------------------------------

    def _cleared(self, seen: set[int]) -> bool:
        """Whether the script dropped what a pass left: what was put aside for it goes as well."""
        gradients = (self._named[index][1].grad for index in seen)
        return all(gradient is None or not gradient.any() for gradient in gradients)

    def _refuse_late(self, index: int) -> None:
        """A second gradient for one parameter in one pass, after its bucket left."""
        assert self._pass is not None
        sent = len(self._pass.round.handles) if self._pass.round is not None else 0
        if sent and self._allreduce.layout.bucket_of(index) < sent:
            raise HvdtoolsError(
                f"Parameter {self._named[index][0]} got a second gradient from re-entrant "
                "checkpointing after the first was sent: use checkpoint(..., use_reentrant=False)."
            )
