"""Where the time of a step goes, and which rank is slow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.bootstrap import Floats
from hvdtools.bench.analysis.workloads import RepeatKey, Repeats
from hvdtools.bench.results.measured import PHASES, Training


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step on its slowest rank; medians over repeats.

    Attributes:
        input_s, forward_s, backward_s, optimizer_s: Under the engine without communication,
            on the same ranks; under the engine itself where that was not run.
        communication_s: How much longer the step takes under the engine: the exposed
            communication. May be negative within the noise. None where nothing was run
            without communication: `backward_s` then includes it.
    """

    input_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    communication_s: float | None

    @property
    def step_s(self) -> float:
        """The whole step."""
        phases_s = self.input_s + self.forward_s + self.backward_s + self.optimizer_s
        return phases_s + (self.communication_s or 0.0)

    @property
    def communication_share(self) -> float | None:
        """Exposed communication over the whole step; None where it is not known."""
        return None if self.communication_s is None else self.communication_s / self.step_s

    @property
    def by_phase(self) -> dict[str, float]:
        """Seconds of each phase in the order of a step; they add up to `step_s`, none is negative.

        Where a step takes less than without communication, its other phases are scaled down.
        """
        communication_s = self.communication_s or 0.0
        compute_s = self.step_s - communication_s
        scale = min(self.step_s / compute_s, 1.0) if compute_s > 0 else 1.0
        return {
            "input": scale * self.input_s,
            "forward": scale * self.forward_s,
            "backward": scale * self.backward_s,
            "communication": max(communication_s, 0.0),
            "optimizer": scale * self.optimizer_s,
        }


@dataclass(frozen=True)
class Skew:
    """The slowest rank; `over_median` is 0.1 if it is 10 % slower than the ranks' median."""

    rank: int
    over_median: float


def step_time(repeats: Repeats, without_communication: Repeats) -> StepTime | None:
    """The phases of a step; the second argument is the engine without communication.

    Exposed communication is a difference within each repeat, between the slowest rank under
    the engine and the slowest without communication: waiting for a slow rank is not
    communication, `skew` shows it.

    Returns:
        None where the program does not measure phases.
    """
    phases, ideal = _slowest_rank_phases(repeats), _slowest_rank_phases(without_communication)
    paired = [key for key in phases if key in ideal]
    compute = [ideal[key] for key in paired] if paired else list(phases.values())
    if not compute:
        return None
    exposed_s = [sum(phases[key].values()) - sum(ideal[key].values()) for key in paired]
    phase_s = {name: float(np.median([each[name] for each in compute])) for name in PHASES}
    return StepTime(
        input_s=phase_s["input"],
        forward_s=phase_s["forward"],
        backward_s=phase_s["backward"],
        optimizer_s=phase_s["optimizer"],
        communication_s=float(np.median(exposed_s)) if exposed_s else None,
    )


def input_share(repeats: Repeats) -> float | None:
    """The wait for input over the step, on the rank where it is largest; median over repeats."""
    shares = [
        max(wait / step for wait, step in zip(each.phase_s["input"], each.rank_step_s, strict=True))
        for each in _trainings(repeats).values()
        if "input" in each.phase_s
    ]
    return float(np.median(shares)) if shares else None


def skew(repeats: Repeats, *, communicates: bool) -> Skew | None:
    """The slowest rank.

    Ranks that communicate wait for each other in the backward pass, so their steps are
    equally long, and only input and forward pass show who is slow. Without communication
    the whole step does.

    Returns:
        None on one rank, or where the program does not measure phases.
    """
    rank_s = [
        np.array(_until_backward_s(each) if communicates else each.rank_step_s)
        for each in _trainings(repeats).values()
        if not communicates or {"input", "forward"} <= each.phase_s.keys()
    ]
    if not rank_s or rank_s[0].size < 2:
        return None
    median_s: Floats = np.median(rank_s, axis=0)
    slowest = int(np.argmax(median_s))
    return Skew(slowest, float(median_s[slowest] / np.median(median_s)) - 1)


def _until_backward_s(training: Training) -> list[float]:
    phases = training.phase_s
    return [sum(pair) for pair in zip(phases["input"], phases["forward"], strict=True)]


def _trainings(repeats: Repeats) -> dict[RepeatKey, Training]:
    return {key: each.training for key, each in repeats.items() if each.training is not None}


def _slowest_rank_phases(repeats: Repeats) -> dict[RepeatKey, dict[str, float]]:
    """In each repeat with phases, those of the rank on which they take longest in all."""
    slowest = {}
    for key, each in _trainings(repeats).items():
        if each.phase_s.keys() == set(PHASES):
            rank = int(np.argmax(np.sum([each.phase_s[name] for name in PHASES], axis=0)))
            slowest[key] = {name: each.phase_s[name][rank] for name in PHASES}
    return slowest
