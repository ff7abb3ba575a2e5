"""How the learning rate grows with the number of ranks, and how it warms up. Numbers alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from hvdtools.core.errors import HvdtoolsError, unknown_name

_POLICIES: dict[str, Callable[[int], float]] = {
    "linear": float,
    "sqrt": math.sqrt,
    "none": lambda ranks: 1.0,
}


def factor_of(policy: str, ranks: int) -> float:
    """What the learning rate of one rank is multiplied by.

    "linear": the number of ranks (Goyal et al. 2017, arXiv 1706.02677); "sqrt":
    its square root (Krizhevsky 2014, arXiv 1404.5997; for Adam: Malladi et al.
    2022, arXiv 2205.10287); "none": 1.

    Raises:
        HvdtoolsError: Unknown policy.
    """
    if policy not in _POLICIES:
        raise unknown_name("policy", policy, list(_POLICIES))
    return _POLICIES[policy](ranks)


def require_steps(warmup_steps: object) -> None:
    """Raise if a warm-up of so many steps cannot be."""
    if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int) or warmup_steps < 0:
        raise HvdtoolsError(f"warmup_steps={warmup_steps!r} must be a whole number of 0 or more.")


def line(before: str, after: str, policy: str, ranks: int, factor: float, warmup_steps: int) -> str:
    """What the log says: "lr 0.1 -> 0.4 (linear, 4 ranks), warm-up over 500 steps"."""
    said = f"lr {before} -> {after} ({policy}, {ranks} rank{'s' if ranks > 1 else ''})"
    if warmup_steps and factor != 1:
        said += f", warm-up over {warmup_steps} steps"
    return said
