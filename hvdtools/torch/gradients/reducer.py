"""Average gradients over ranks while backward runs; `.grad` is the average when it returns.

The reducer is a state machine over the backward passes of one model. An event
comes from a hook, from the end of a graph task or from the optimizer:

    state    event                                   action                             next
    idle     first gradient of a graph task          begin a pass (`_begin`)            running
    running  gradient of a parameter                 count it, send complete buckets    running
    running  gradient inside a nested graph task     the same; overlap no more          running
    running  end of task, no parameter had one       forget the pass                    idle
    running  end of task, the pass accumulates       add it to the accumulation         idle
    running  end of task, the pass sends             send the other buckets             sent
    sent     end of task, all models have sent       wait, average `.grad` (`_settle`)  idle
    idle     step() without a new gradient           a whole round of zeros             idle
    running  gradient of another task, or step():    abort (`_end_stale`): send the     idle
    or sent  an exception ended the pass's task      other buckets, abort flag set

A pass accumulates under `no_sync()` and before the last of `accumulate`; other
passes send. Buckets are sent strictly in index order, so that all ranks send
the same sequence, and the last one not before the end of the task. A gradient
that torch.autograd.grad computes reaches the output but no parameter: hence
the passes that are forgotten. An aborted round is finished because other ranks
wait for its buckets: the abort flag informs them.

`autograd_hooks` reports the events. `accumulation` has what adds up before it
is sent, and its weight; `bucket_allreduce` one round of averaging;
`transport` what is put on the wire; `consistency_check` what is compared.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import horovod.torch as hvd
from torch.nn import Parameter

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.torch.gradients.accumulation import GradientAccumulation, SavedGradients, restore
from hvdtools.torch.gradients.autograd_hooks import (
    at_end_of_backward,
    current_task,
    hook_parameter,
    is_nested,
    require_reducible,
)
from hvdtools.torch.gradients.bucket_allreduce import (
    BucketAllreduce,
    Round,
    RoundInputs,
    RoundWeight,
)
from hvdtools.torch.gradients.consistency_check import ConsistencyCheck
from hvdtools.torch.gradients.control_flags import RoundStatus
from hvdtools.torch.gradients.observations import Observation
from hvdtools.torch.gradients.transport import GradientTransport
from hvdtools.torch.loss_weights import current_weight


@dataclass
class _Pass:
    """One outermost backward pass.

    Attributes:
        task: Its graph task.
        sends: True if its gradients are averaged at its end.
        weight: None where the script gave none.
        saved: After weight 0, the gradients to restore at its end.
        problem: Why it is refused; None if it is not.
        round: The round that it fills, from its first parameter's gradient on;
            None if it accumulates.
        seen: The parameters whose gradient has arrived, by index.
        begun_s: When it reached the model's output, by time.monotonic(); None if
            that was not seen.
    """

    task: int
    sends: bool
    weight: float | None
    saved: SavedGradients | None
    problem: str | None = None
    round: Round | None = None
    seen: set[int] = field(default_factory=set)
    begun_s: float | None = None


class Reducer:
    """The state machine of one model.

    Args:
        named: (name, parameter) of every parameter, each once, in model order.
        label: Names this reducer's all-reduces; the same on every rank.
        accumulate: Backward passes for each all-reduce.
        bucket_bytes: The size at which a bucket is closed.
        check_every: Steps between two consistency checks.
        transport: What is put on the wire.
        observations: What the consistency checks compare besides weights and averages.

    Attributes:
        paused: The depth of `no_sync()`.
        rounds: How often gradients were averaged, also in a job of one rank.
        last_weight: This rank's weight in the last round; 1 without weights.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Parameter]],
        *,
        label: str,
        accumulate: int,
        bucket_bytes: float,
        check_every: int,
        transport: GradientTransport,
        observations: Sequence[Observation] = (),
    ) -> None:
        self.accumulate = accumulate
        self.paused = 0
        self.rounds = 0
        self.last_weight = 1.0
        self._named = list(named)
        self._lock = threading.RLock()  # one autograd thread per device calls the hooks
        self._check = ConsistencyCheck(
            self._named, label=label, every=check_every, observations=observations
        )
        self._allreduce = BucketAllreduce(
            self._named,
            label=label,
            bucket_bytes=bucket_bytes,
            transport=transport,
            before_sending=self._check.before_sending,
        )
        self._accumulation = GradientAccumulation(self._named)
        self._pass: _Pass | None = None  # None: idle
        # Nothing is sent before the end of the first pass, and never again once
        # a nested pass was seen: there a parameter can get gradients twice.
        self._overlap = False
        self._saw_nested = False
        for index, (_, parameter) in enumerate(self._named):
            hook_parameter(parameter, self, index)

    # -- events of autograd ------------------------------------------------------

    def on_output_gradient(self) -> None:
        """A gradient reached the model's output."""
        with self._lock:
            task = current_task()
            known = self._pass is not None and self._pass.task == task
            if not known and not is_nested():
                self._begin(task)

    def on_parameter_gradient(self, index: int) -> None:
        """A gradient was added to parameter `index`.

        Raises:
            HvdtoolsError: It cannot be averaged, or the pass is refused.
        """
        with self._lock:
            running = self._pass_of(current_task(), index)
            if running.problem is not None and not running.seen:
                running.seen.add(index)
                self._begin_round(running)  # to be aborted, so that all ranks know
                raise HvdtoolsError(running.problem)
            require_reducible(*self._named[index])
            if index in running.seen:
                self._require_unsent(running, index)
                return
            running.seen.add(index)
            round_ = self._begin_round(running)
            if round_ is not None:
                round_.mark_ready(index)
                if self._overlap:
                    round_.send_ready()

    def _on_end_of_task(self, task: int) -> None:
        with self._lock:
            running = self._pass
            if running is None or running.task != task:
                return
            if running.round is not None:
                running.round.send_rest()
                # Once the other models of this backward pass have sent theirs:
                # on another rank they may come first, and the ranks would deadlock.
                at_end_of_backward(functools.partial(self._on_all_sent, running))
                return
            self._pass = None
            if running.seen:
                self._accumulation.add(
                    running.seen, running.weight, running.saved, counts=not self.paused
                )
            elif running.saved is not None:
                restore(running.saved, self._parameters())

    def _on_all_sent(self, running: _Pass) -> None:
        with self._lock:
            if self._pass is running:
                self._pass = None
                self._settle(running)

    # -- what they do ------------------------------------------------------------

    def _pass_of(self, task: int, index: int) -> _Pass:
        """The pass that a parameter's gradient belongs to: the running one, or a new one."""
        if self._pass is not None and self._pass.task == task:
            return self._pass
        if not is_nested():
            return self._begin(task, first=index)
        if self._pass is None:
            raise HvdtoolsError(
                f"Re-entrant checkpointing reached parameter {self._named[index][0]} before any "
                "gradient reached the output of the prepared model: call the model that was given "
                "to prepare(), or use checkpoint(..., use_reentrant=False)."
            )
        self._saw_nested = True
        self._overlap = False
        return self._pass

    def _begin(self, task: int, first: int | None = None) -> _Pass:
        """Begin a pass; `first` is a parameter that already has its gradient of it."""
        problem = self._end_stale(first)
        self._accumulation.forget_discarded(first)
        sends = not self.paused and self._accumulation.counted + 1 >= self.accumulate
        weight = current_weight()
        problem = problem or self._accumulation.problem(weight, first, sends=sends)
        saved = None if problem else self._accumulation.begin(weight, first)
        begun_s = time.monotonic() if first is None else None
        self._pass = _Pass(task, sends, weight, saved, problem, begun_s=begun_s)
        at_end_of_backward(functools.partial(self._on_end_of_task, task))
        return self._pass

    def _begin_round(self, running: _Pass) -> Round | None:
        """The round of a pass that sends, begun with its first gradient; None if it accumulates.

        What the round before deferred is read first.

        Raises:
            HvdtoolsError: That round was not sound, or replicas diverged: on
                every rank, so that no rank waits for this round.
        """
        if running.round is not None or not running.sends:
            return running.round
        try:
            status = self._allreduce.read_deferred()
            if status is not None:
                self._check.name_nonfinite(status)
                if status.some_idle:
                    self._check.require_check(self._allreduce.rounds + 1)
            self._check.conclude()
        except HvdtoolsError:
            self._pass = None
            raise
        accumulation = self._accumulation
        weight = None
        if running.weight is not None and accumulation.scale is not None:
            total = accumulation.weight + running.weight
            weight = RoundWeight(accumulation.scale, total, accumulation.passes + 1)
        # With nothing accumulated before, a pass of weight 0 has nothing to send.
        saved = running.saved if accumulation.passes or running.saved is None else {}
        inputs = RoundInputs(running.begun_s, weight, saved, idle=not running.seen)
        running.round = self._allreduce.begin_round(inputs)
        return running.round

    def _settle(self, running: _Pass) -> None:
        """Average the gradients of the pass and of those accumulated before it."""
        round_ = running.round
        assert round_ is not None
        self.rounds += 1
        weight = round_.inputs.weight
        self.last_weight = 1.0 if weight is None else weight.weight
        try:
            status = round_.settle()
            self._log_idle(status, round_)
            self._check.after(round_.step, status, self._allreduce.layout.buckets)
        except HvdtoolsError:
            self._accumulation.discard(running.seen)
            raise
        self._accumulation.clear()
        if running.seen:
            self._overlap = not self._saw_nested

    def _log_idle(self, status: RoundStatus | None, round_: Round) -> None:
        """Where some ranks had no gradient, those log it and all check whether it did harm."""
        if status is not None and status.some_idle:
            self._check.require_check(round_.step + 1)
        if round_.inputs.idle and (status is None or status.some_idle):
            logger.warning(
                f"rank {hvd.rank()} came to step() {round_.step} without a new gradient: its loss "
                "touched no parameter, or it ran no backward(). It counts as zeros; with clipping "
                "or a GradScaler, which look at gradients before step(), let every loss touch the "
                "model (+ 0 * output.sum())."
            )

    def _end_stale(self, first: int | None) -> str | None:
        """End the pass that an exception cut off, if there is one.

        Args:
            first: A parameter that already has its gradient of the next pass.

        Returns:
            Why the next pass cannot be averaged; None if it can.
        """
        stale, self._pass = self._pass, None
        if stale is None:
            return None
        if not stale.seen:
            if stale.saved is not None:
                restore(stale.saved, self._parameters())
            return None
        if not stale.sends:
            gradients = (self._named[index][1].grad for index in stale.seen)
            # If the script dropped what the pass left, it dropped what was saved for it, too.
            cleared = all(gradient is None or not gradient.any() for gradient in gradients)
            saved = None if cleared else stale.saved
            self._accumulation.add(stale.seen, stale.weight, saved, counts=not self.paused)
            return None
        self._accumulation.discard(stale.seen)
        if stale.round is None or not stale.round.abort(first) or first is None:
            return None
        return (
            f"After an exception in backward(), a new gradient of {self._named[first][0]} was "
            "added to an all-reduce still under way: use zero_grad(set_to_none=True), or call the "
            "model that was given to prepare()."
        )

    def _require_unsent(self, running: _Pass, index: int) -> None:
        """Raise at a second gradient for one parameter in one pass, if its bucket was sent."""
        if running.round is not None and running.round.has_sent(index):
            raise HvdtoolsError(
                f"Parameter {self._named[index][0]} got a second gradient from re-entrant "
                "checkpointing after the first was sent: use checkpoint(..., use_reentrant=False)."
            )

    def _parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self._named]

    # -- events of the optimizer ---------------------------------------------------

    def require_reduced(self) -> None:
        """Raise if some `.grad` is this rank's own and not the average.

        Raises:
            HvdtoolsError: The last passes ran under `no_sync()`, are fewer than
                `accumulate`, or ended in an exception.
        """
        with self._lock:
            self._end_stale(None)
            unreduced = self._accumulation.unreduced_now()
            if not unreduced:
                return
            done = f"{self._accumulation.counted} of {self.accumulate} backward passes are done"
            raise HvdtoolsError(
                f"step() would use gradients that are not averaged over ranks ({len(unreduced)} "
                f"parameters, {self._named[unreduced[0]][0]} first; {done}): call step() after "
                "the backward() that averages, which is the last of `accumulate` or the first "
                "outside no_sync(), or drop them with zero_grad(). (Groups of passes that end "
                "with a shorter one are for no_sync().)"
            )

    def reduce_nothing(self) -> None:
        """Take part in the other ranks' round although this rank has no new gradient.

        They would wait for it, and then take its next gradients for this step's.
        """
        with self._lock:
            self._accumulation.forget_discarded(None)
            if hvd.size() == 1 or self.paused or self._accumulation.passes:
                return
            if not any(parameter.requires_grad for _, parameter in self._named):
                return
            weight = current_weight()
            idle = _Pass(-1, True, weight, self._accumulation.begin(weight, None))
            round_ = self._begin_round(idle)
            assert round_ is not None
            round_.send_rest()
            self._settle(idle)
