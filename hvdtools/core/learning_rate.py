"""Learning-rate scaling with the number of ranks: the arithmetic, without a framework."""

from __future__ import annotations

import math
from collections.abc import Callable

from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.text import count_noun

_POLICIES: dict[str, Callable[[int], float]] = {
    "linear": float,
    "sqrt": math.sqrt,
    "none": lambda ranks: 1.0,
}


def scale_factor(policy: str, ranks: int) -> float:
    """The factor for the learning rate of a single rank.

    "linear": the number of ranks (Goyal et al. 2017, arXiv 1706.02677); "sqrt":
    its square root (Krizhevsky 2014, arXiv 1404.5997; for Adam: Malladi et al.
    2022, arXiv 2205.10287); "none": 1.

    Raises:
        HvdtoolsError: Unknown policy.
    """
    if policy not in _POLICIES:
        raise unknown_name("policy", policy, list(_POLICIES))
    return _POLICIES[policy](ranks)


def require_warmup_steps(warmup_steps: object) -> None:
    """Raise unless `warmup_steps` is an integer of 0 or more."""
    if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int) or warmup_steps < 0:
        raise HvdtoolsError(f"warmup_steps={warmup_steps!r} must be a whole number of 0 or more.")


def scaling_text(
    before: str, after: str, policy: str, ranks: int, factor: float, warmup_steps: int
) -> str:
    """The log line, "lr 0.1 -> 0.4 (linear, 4 ranks), warm-up over 500 steps"."""
    text = f"lr {before} -> {after} ({policy}, {count_noun(ranks, 'rank')})"
    return f"{text}, warm-up over {warmup_steps} steps" if warmup_steps and factor != 1 else text
