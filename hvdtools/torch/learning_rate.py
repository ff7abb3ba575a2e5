"""Scale the learning rate to the number of ranks, with a gradual warm-up.

The warm-up changes the rate during `optimizer.step()` alone, so that a scheduler
that computes from `group["lr"]` sees the rate without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.optim import Optimizer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.learning_rate import require_warmup_steps, scale_factor, scaling_text
from hvdtools.core.log import logger
from hvdtools.torch.session import require_started

# In each parameter group: {"factor", "warmup_steps", "step"}; "step" counts the
# steps taken up to warmup_steps. Replaced as a whole, never changed: a
# state_dict() that was taken earlier shares it.
KEY = "hvdtools_scale_lr"

Groups = list[dict[str, Any]]

_scaled: WeakSet[Optimizer] = WeakSet()


def scale_lr(optimizer: Optimizer, policy: str = "linear", warmup_steps: int = 0) -> float:
    """Multiply every group's learning rate by a factor that grows with the number of ranks.

    Call it before the learning-rate scheduler is made, which then takes the
    scaled value as its base; before or after `prepare()`. A scheduler with a
    rate of its own (`OneCycleLR(max_lr=...)`) wants it multiplied by the factor
    that is returned, and so does a group that is added later.

    With `warmup_steps` the first optimizer step uses the rate as it was, and the
    factor rises by equal amounts until, after that many steps, it is whole. The
    warm-up multiplies whatever the scheduler sets, during `step()` alone: at all
    other times the groups show the rate without it. Steps that `GradScaler`
    skips do not count.

    The progress is kept in each parameter group under "hvdtools_scale_lr" and so
    is part of `state_dict()`. On resume call `scale_lr` before or after
    `load_state_dict`, and again on a copy or an unpickled optimizer: a rate that
    is scaled already is not scaled twice, and the saved warm-up goes on.

    Args:
        optimizer: Its "lr" may be a number or a tensor (capturable).
        policy: "linear", factor N for N ranks (Goyal et al. 2017, arXiv
            1706.02677, as is the warm-up); "sqrt", factor sqrt(N) (Krizhevsky
            2014, arXiv 1404.5997; for Adam: Malladi et al. 2022, arXiv
            2205.10287); or "none", factor 1.
        warmup_steps: Optimizer steps, 0 or more.

    Returns:
        The factor.

    Raises:
        HvdtoolsError: Unknown policy, a negative number of steps, a scheduler
            came before, or a second call for one optimizer. Also, and then from
            `load_state_dict` where that comes second: the saved rate was scaled
            by another factor (a job of another number of ranks), or not scaled.
            A scheduler's saved state would bring that rate back, so it is
            refused; with policy="none" the rate and its warm-up continue as saved.
    """
    ranks = require_started("scale_lr()").size
    factor = scale_factor(policy, ranks)
    require_warmup_steps(warmup_steps)
    if optimizer in _scaled:
        raise HvdtoolsError("This optimizer's lr is scaled already: call scale_lr() once for it.")
    warm_up = _WarmUp(factor, policy)
    groups = optimizer.param_groups
    if any(KEY in group for group in groups):
        warm_up.require_fits(groups)
        logger.info("lr %s as loaded: it was scaled before", _rates(optimizer))
    else:
        _refuse_scheduler(groups)
        before = _rates(optimizer)
        _multiply(groups, factor)
        for group in groups:
            group[KEY] = {"factor": factor, "warmup_steps": warmup_steps, "step": 0}
        after = _rates(optimizer)
        logger.info(scaling_text(before, after, policy, ranks, factor, warmup_steps))
    warm_up.attach(optimizer)
    _scaled.add(optimizer)
    return factor


def _refuse_scheduler(groups: list[dict[str, Any]]) -> None:
    if any("initial_lr" in group for group in groups):
        raise HvdtoolsError(
            "A learning-rate scheduler was made for this optimizer, or for the one that its loaded "
            "state is from, and keeps the old lr: call scale_lr() before the scheduler is made."
        )
    if any("lr" not in group for group in groups):
        raise HvdtoolsError('scale_lr() found a parameter group without "lr": give it one.')


def _multiply(groups: list[dict[str, Any]], factor: float) -> None:
    done: set[int] = set()
    for group in groups:
        if not isinstance(group["lr"], Tensor):
            group["lr"] *= factor
        elif id(group["lr"]) not in done:  # groups may share one tensor
            done.add(id(group["lr"]))
            # In place: a captured CUDA graph reads this tensor.
            group["lr"].mul_(factor)


def _rates(optimizer: Optimizer) -> str:
    """Each different rate once, in the order of the groups."""
    rates = dict.fromkeys(f"{float(group['lr']):g}" for group in optimizer.param_groups)
    return ", ".join(rates)


def fraction(record: dict[str, Any]) -> float:
    """The part of the scaled rate that the next step uses, 1 / factor rising to 1.

    After k of W steps the factor is ``1 + (factor - 1) * k / W`` (Goyal et al.
    2017, arXiv 1706.02677, section 2.2).
    """
    factor, steps, done = record["factor"], record["warmup_steps"], record["step"]
    if done >= steps:
        return 1.0
    return float((1 + (factor - 1) * done / steps) / factor)


class _WarmUp:
    """The hooks on one optimizer.

    Args:
        factor: By which this job scales.
        policy: Its name; with "none" a loaded rate stays unchanged.
    """

    def __init__(self, factor: float, policy: str) -> None:
        self._factor = factor
        self._policy = policy
        # While a step runs: (group, its rate, the rate it steps with).
        self._borrowed: list[tuple[dict[str, Any], Any, Any]] = []

    def attach(self, optimizer: Optimizer) -> None:
        """Hook into the optimizer's steps, and its saving and loading of a state."""
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        optimizer.register_state_dict_pre_hook(lambda _: self._recover())
        optimizer.register_load_state_dict_pre_hook(self._before_load)
        optimizer.register_load_state_dict_post_hook(self._after_load)

    # -- a step ------------------------------------------------------------------

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._recover()
        changed: dict[int, Any] = {}
        for group in optimizer.param_groups:
            part = fraction(group[KEY]) if KEY in group else 1.0
            if part == 1.0 or id(group["lr"]) in changed:
                continue
            rate = group["lr"]
            if isinstance(rate, Tensor):
                changed[id(rate)] = rate  # groups may share one tensor
                exact = rate.clone()
                rate.mul_(part)
                self._borrowed.append((group, exact, rate.clone()))
            else:
                group["lr"] = rate * part
                self._borrowed.append((group, rate, group["lr"]))
        if not self._borrowed:
            return None
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._guarded(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._guarded(kwargs["closure"])}
        return None

    def _guarded(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that may raise without leaving the warm-up's rate behind."""

        def guarded() -> Any:
            try:
                return closure()
            except BaseException:
                self._put_back()
                raise

        return guarded

    def _after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._put_back()
        groups = [group for group in optimizer.param_groups if KEY in group]
        warming = [group for group in groups if group[KEY]["step"] < group[KEY]["warmup_steps"]]
        if not warming or _skipped(optimizer):
            return
        for group in warming:
            group[KEY] = {**group[KEY], "step": group[KEY]["step"] + 1}

    def _put_back(self) -> None:
        for group, exact, _ in self._borrowed:
            if isinstance(exact, Tensor):
                group["lr"].copy_(exact)
            else:
                group["lr"] = exact
        self._borrowed.clear()

    def _recover(self) -> None:
        """After a step that raised: put the rate back, if it is still the one that was set."""
        if any(bool(group["lr"] != rate) for group, _, rate in self._borrowed):
            self._borrowed.clear()
            raise HvdtoolsError(
                "An optimizer step raised in the middle of the warm-up and the lr was changed "
                "since, so a scheduler may have computed from the warm-up's lr: load a "
                "checkpoint, or set every group's lr."
            )
        self._put_back()

    # -- a saved state -------------------------------------------------------------

    def require_fits(self, groups: Groups) -> None:
        """Raise if the groups' rates were not scaled by this job's factor.

        Raises:
            HvdtoolsError: They were scaled by another, or not at all.
        """
        if self._policy == "none":
            return
        # A group that was added after scaling has no record; its lr was scaled by hand.
        for group in [group for group in groups if KEY in group] or groups:
            found = group[KEY]["factor"] if KEY in group else 1.0
            if not math.isclose(found, self._factor, rel_tol=1e-9):
                raise HvdtoolsError(
                    f"The optimizer's saved lr was scaled by {found:g} and this job scales by "
                    f"{self._factor:g}: resume on the number of ranks and with the policy it was "
                    'saved with, or keep the saved lr with scale_lr(optimizer, policy="none").'
                )

    def _before_load(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        self.require_fits(state["param_groups"])
        self._put_back()

    def _after_load(self, optimizer: Optimizer) -> None:
        # A state that was saved without scaling fits a factor of 1 only.
        if any(KEY in group for group in optimizer.param_groups):
            return
        for group in optimizer.param_groups:
            group[KEY] = {"factor": 1.0, "warmup_steps": 0, "step": 0}


def _skipped(optimizer: Optimizer) -> bool:
    """Whether the fused step that has just run found an inf or NaN under `GradScaler`.

    Other optimizers are not called at all then.
    """
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)
