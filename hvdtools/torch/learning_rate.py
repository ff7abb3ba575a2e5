"""Scale the learning rate to the number of ranks, with a gradual warm-up."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.optim import Optimizer

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.learning_rate import require_warmup_steps, scale_factor, scaling_text
from hvdtools.core.log import logger
from hvdtools.torch.session import require_started
from hvdtools.torch.warmup import KEY, WarmUp

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

    The progress lies in each parameter group under "hvdtools_scale_lr" and so
    goes with `state_dict()`. On resume call `scale_lr` before or after
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
            refused; with policy="none" the rate and its warm-up go on as saved.
    """
    ranks = require_started("scale_lr()").size
    factor = scale_factor(policy, ranks)
    require_warmup_steps(warmup_steps)
    if optimizer in _scaled:
        raise HvdtoolsError("This optimizer's lr is scaled already: call scale_lr() once for it.")
    warm_up = WarmUp(factor, policy)
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
            "A learning-rate scheduler has met this optimizer, or the one whose state it loaded, "
            "and keeps the lr it found: call scale_lr() before the scheduler is made."
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
