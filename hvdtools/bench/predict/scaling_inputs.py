"""What a prediction rests on, taken out of results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis import repeats as repeats_
from hvdtools.bench.analysis.bootstrap import Floats, Repeat
from hvdtools.bench.analysis.operations import Size, by_size, operations_of, seconds_of
from hvdtools.bench.analysis.repeats import Repeats
from hvdtools.bench.analysis.split import split
from hvdtools.bench.analysis.workloads import Workload, by_workload
from hvdtools.bench.predict.alpha_beta import Timed
from hvdtools.bench.results.measured import Training
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES, as_it_ran
from hvdtools.core.errors import HvdtoolsError, unknown_name


@dataclass(frozen=True)
class Inputs:
    """Everything measured that counts.

    Place 0 of every array is what was measured, the others what else it might have been.

    Attributes:
        scaling: "weak" or "strong".
        engine: As it ran.
        ops: (ranks, nodes) -> message bytes -> seconds of an all-reduce.
        ideal_s: Size -> seconds of a step without communication; of the engine itself on
            one rank where none was measured without.
        ideal_is_own: Whether the latter is so.
        batches: Size -> samples a rank and step.
        engine_s: Size -> seconds of a step under the engine.
        ratio: Size -> the same over `ideal_s`, paired by repeat.
        backward_share: Of a step without communication; 1 where phases are not told apart.
        has_phases: Whether they are.
        gradient_bytes: A rank and step.
        allreduces_per_step: All-reduces of a step; None where the engine does not say.
        repeats: In which the engine trained.
    """

    scaling: str
    engine: str
    ops: dict[Size, dict[int, Floats]]
    ideal_s: dict[Size, Floats]
    ideal_is_own: bool
    batches: dict[Size, int]
    engine_s: dict[Size, Floats]
    ratio: dict[Size, Floats]
    backward_share: float
    has_phases: bool
    gradient_bytes: int
    allreduces_per_step: int | None
    repeats: int

    @property
    def trained_together(self) -> list[Size]:
        """The sizes of more than one rank on which the engine trained."""
        return sorted(size for size in self.engine_s if size[0] > 1)

    @property
    def ranks_per_node(self) -> int:
        """Of the fullest node."""
        return max(math.ceil(ranks / nodes) for ranks, nodes in self.engine_s)

    @property
    def step_alone_s(self) -> Floats:
        """Under the engine on one rank."""
        return self.engine_s[1, 1]

    @property
    def has_spread(self) -> bool:
        """Whether something is known of what else every number might have been."""
        arrays = [*self.ideal_s.values(), *self.engine_s.values(), *self.ratio.values()]
        arrays += [op_s for sizes in self.ops.values() for op_s in sizes.values()]
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def trained_alone(self) -> Inputs:
        """The same without what the engine took on more than one rank."""
        return dataclasses.replace(self, engine_s={(1, 1): self.engine_s[1, 1]}, ratio={})

    def timed(self, place: int, *, in_node: bool) -> list[Timed]:
        """The all-reduces within one node, or those between nodes, in one draw."""
        return [
            Timed(ranks, message_bytes, float(op_s[place]))
            for (ranks, nodes), sizes in self.ops.items()
            if (nodes == 1) == in_node
            for message_bytes, op_s in sizes.items()
        ]


def inputs_of(results: Sequence[Result], workload: Workload, engine: str, draws: int) -> Inputs:
    """Take out what counts for one engine at one work, with so many draws of a bootstrap.

    Raises:
        HvdtoolsError: Something was not measured; the message says what to run.
    """
    of_work = by_workload(results).get(workload, [])
    ideal_name = FAMILIES[workload.family].ideal
    _check_engine(workload.family, engine, [result.engine for result in of_work])
    mine, ideal = by_size(of_work, engine), by_size(of_work, ideal_name or "")
    _check_sizes(mine, engine)
    largest = _training(mine[max(mine)])
    if largest.gradient_bytes is None:
        raise HvdtoolsError(
            f"The results of {engine} do not say how many bytes of gradients a step sends: measure "
            "again with this hvdtools."
        )
    shares = [share for each in ideal.values() if (share := _backward_share(each)) is not None]
    return Inputs(
        scaling=workload.scaling or "weak",
        engine=as_it_ran(workload.family, engine, largest.transport),
        ops=operations_of(results, workload.family, engine, largest, draws),
        ideal_s={
            size: seconds_of(_steps(each), draws)
            for size, each in (ideal or {(1, 1): mine[1, 1]}).items()
        },
        ideal_is_own=not ideal,
        batches={size: _training(each).batch_per_rank for size, each in {**ideal, **mine}.items()},
        engine_s={size: seconds_of(_steps(each), draws) for size, each in mine.items()},
        ratio={
            # Samples/s of the ideal over those of the engine are the engine's seconds over its.
            size: seconds_of(pairs, draws)
            for size, each in mine.items()
            if size in ideal and (pairs := repeats_.paired(ideal[size], each))
        },
        backward_share=float(np.median(shares)) if shares else 1.0,
        has_phases=bool(shares),
        gradient_bytes=largest.gradient_bytes,
        allreduces_per_step=largest.allreduces_per_step or None,
        repeats=len({key for each in mine.values() for key in each}),
    )


def _check_engine(family: str, engine: str, measured: Sequence[str]) -> None:
    if engine not in measured:
        raise unknown_name("engine of this work", engine, sorted(set(measured)))
    if engine == FAMILIES[family].ideal:
        raise HvdtoolsError(
            f"Engine {engine!r} communicates nothing, so its ranks scale perfectly by definition: "
            "predict another."
        )


def _check_sizes(mine: dict[Size, Repeats], engine: str) -> None:
    if (1, 1) not in mine:
        raise HvdtoolsError(
            f"{engine} did not train on one rank, the base of every efficiency: add 1 to the "
            "suite's ranks."
        )
    if not any(ranks > 1 for ranks, _ in mine):
        raise HvdtoolsError(
            f"{engine} trained on one rank only, so nothing says how much communication it hides: "
            "run the suite on 2 ranks or more as well."
        )


def _training(repeats: Repeats) -> Training:
    training = next(iter(repeats.values())).training
    assert training is not None  # it is of a training's work and worked
    return training


def _steps(repeats: Repeats) -> list[Repeat]:
    """Logarithms of seconds a step."""
    trainings = [each.training for each in repeats.values() if each.training is not None]
    return [(np.log(np.array(each.block_s) / each.steps_per_block),) for each in trainings]


def _backward_share(repeats: Repeats) -> float | None:
    """Of a step, on its slowest rank."""
    parts = split(repeats, repeats)
    return None if parts is None else parts.backward_s / parts.step_s
