"""Where a step's time goes, and which rank is slow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.bootstrap import Floats
from hvdtools.bench.analysis.repeats import Key, Repeats, median_over
from hvdtools.bench.results.measured import PHASES, Training


@dataclass(frozen=True)
class Split:
    """Seconds of a step on its slowest rank; medians over repeats.

    Attributes:
        input_s, forward_s, backward_s, optimizer_s: Of the engine that communicates
            nothing, on as many ranks; the engine's own where that was not run.
        communication_s: What the engine's step takes more than that, so what
            communication costs that is not hidden; may be negative within the noise.
            None where nothing was run without communication: `backward_s` then holds it.
    """

    input_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    communication_s: float | None

    @property
    def backward_holds_communication(self) -> bool:
        """Whether the backward pass could not be told from waiting for the others."""
        return self.communication_s is None

    @property
    def step_s(self) -> float:
        """The whole step."""
        parts = self.input_s + self.forward_s + self.backward_s + self.optimizer_s
        return parts + (self.communication_s or 0.0)


@dataclass(frozen=True)
class Skew:
    """The slowest rank, and by what share of the ranks' median time it is slower (0.1: 10 %)."""

    rank: int
    over_median: float


def split(repeats: Repeats, ideal: Repeats) -> Split | None:
    """Of one case; `ideal` is the engine that communicates nothing, on as many ranks.

    The difference is taken within each repeat, between the slowest rank under the
    engine and the slowest under `ideal`: what the others wait for a slow rank is no
    communication, `skew` shows it.

    Returns:
        None where the program does not tell phases apart.
    """
    told = _slowest(repeats)
    without = _slowest(ideal)
    both = [key for key in told if key in without]
    shown = [without[key] for key in both] if both else list(told.values())
    if not shown:
        return None
    extra = [sum(told[key].values()) - sum(without[key].values()) for key in both]
    phase_s = {name: median_over([each[name] for each in shown]) for name in PHASES}
    return Split(
        input_s=phase_s["input"],
        forward_s=phase_s["forward"],
        backward_s=phase_s["backward"],
        optimizer_s=phase_s["optimizer"],
        communication_s=median_over(extra) if extra else None,
    )


def input_share(repeats: Repeats) -> float | None:
    """Waiting for input over the whole step on the rank where it is worst; median over repeats."""
    shares = [
        max(wait / step for wait, step in zip(each.phase_s["input"], each.rank_step_s, strict=True))
        for each in _trainings(repeats).values()
        if "input" in each.phase_s
    ]
    return median_over(shares) if shares else None


def skew(repeats: Repeats, *, is_ideal: bool) -> Skew | None:
    """The slowest rank.

    Ranks that communicate wait for each other in the backward pass, so that their
    steps are equally long: there input and forward pass tell who is slow. Without
    communication the whole step does.

    Returns:
        None on one rank, or where the program does not tell phases apart.
    """
    own_s = [
        np.array(each.rank_step_s if is_ideal else _until_backward_s(each))
        for each in _trainings(repeats).values()
        if is_ideal or {"input", "forward"} <= each.phase_s.keys()
    ]
    if not own_s or own_s[0].size < 2:
        return None
    rank_s: Floats = np.median(own_s, axis=0)
    slowest = int(np.argmax(rank_s))
    return Skew(slowest, float(rank_s[slowest] / np.median(rank_s)) - 1)


def _until_backward_s(training: Training) -> list[float]:
    phases = training.phase_s
    return [sum(pair) for pair in zip(phases["input"], phases["forward"], strict=True)]


def _trainings(repeats: Repeats) -> dict[Key, Training]:
    return {key: each.training for key, each in repeats.items() if each.training is not None}


def _slowest(repeats: Repeats) -> dict[Key, dict[str, float]]:
    """The phases of the rank whose phases take longest in all, in each repeat that has them."""
    slowest = {}
    for key, each in _trainings(repeats).items():
        if each.phase_s.keys() == set(PHASES):
            rank = int(np.argmax(np.sum([each.phase_s[name] for name in PHASES], axis=0)))
            slowest[key] = {name: each.phase_s[name][rank] for name in PHASES}
    return slowest
