"""What a prediction is computed from, taken out of a run: trainings and all-reduces."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.allreduce import measured_points
from hvdtools.bench.analysis.bootstrap import (
    Floats,
    LogBlocks,
    calibrated_replicates,
    generator,
    resample,
)
from hvdtools.bench.analysis.rates import paired_log_rates
from hvdtools.bench.analysis.step_time import step_time
from hvdtools.bench.analysis.summary import RunSummary
from hvdtools.bench.analysis.workloads import Case, CaseKey, Repeats, Size, Workload
from hvdtools.bench.predict.alpha_beta import TimedAllreduce
from hvdtools.bench.results.measured import Training
from hvdtools.bench.suite.engines import FAMILIES, as_it_ran
from hvdtools.core.errors import HvdtoolsError, unknown_name


@dataclass(frozen=True)
class Inputs:
    """Everything measured that a prediction of one engine depends on.

    Element 0 of every array is the measured value, the others are its bootstrap replicates.

    Attributes:
        scaling: "weak" or "strong".
        engine: As it ran.
        allreduce_s: (ranks, nodes) -> message bytes -> seconds of an all-reduce.
        compute_s: Size -> seconds of a step without communication; under the engine itself
            on one rank where nothing was measured without.
        compute_is_own: Whether the latter is the case.
        batches: Size -> samples a rank and step.
        step_s: Size -> seconds of a step under the engine.
        step_over_compute: Size -> `step_s` over `compute_s`, paired by repeat.
        backward_share: Of a step without communication; 1 where phases were not measured.
        has_phases: Whether they were.
        gradient_bytes: A rank and step.
        allreduces_per_step: None where the engine does not record it.
        repeats: In how many the engine trained.
    """

    scaling: str
    engine: str
    allreduce_s: dict[Size, dict[int, Floats]]
    compute_s: dict[Size, Floats]
    compute_is_own: bool
    batches: dict[Size, int]
    step_s: dict[Size, Floats]
    step_over_compute: dict[Size, Floats]
    backward_share: float
    has_phases: bool
    gradient_bytes: int
    allreduces_per_step: int | None
    repeats: int

    @property
    def distributed_sizes(self) -> list[Size]:
        """The sizes of more than one rank on which the engine trained."""
        return sorted(size for size in self.step_s if size[0] > 1)

    @property
    def ranks_per_node(self) -> int:
        """Of the fullest node."""
        return max(math.ceil(ranks / nodes) for ranks, nodes in self.step_s)

    @property
    def one_rank_step_s(self) -> Floats:
        """Under the engine on one rank."""
        return self.step_s[1, 1]

    @property
    def has_intervals(self) -> bool:
        """Whether every value has replicates: none comes from a single block."""
        arrays = [
            *self.compute_s.values(),
            *self.step_s.values(),
            *self.step_over_compute.values(),
            *(op_s for by_bytes in self.allreduce_s.values() for op_s in by_bytes.values()),
        ]
        return all(bool(np.isfinite(array).all()) for array in arrays)

    def without_distributed_training(self) -> Inputs:
        """The same without what the engine took on more than one rank."""
        return dataclasses.replace(
            self, step_s={(1, 1): self.one_rank_step_s}, step_over_compute={}
        )

    def timed_allreduces(self, replicate: int, *, in_node: bool) -> list[TimedAllreduce]:
        """The all-reduces within one node, or those between nodes."""
        return [
            TimedAllreduce(ranks, message_bytes, float(op_s[replicate]))
            for (ranks, nodes), by_bytes in self.allreduce_s.items()
            if (nodes == 1) == in_node
            for message_bytes, op_s in by_bytes.items()
        ]


def inputs_of(
    run: RunSummary,
    workload: Workload,
    engine: str,
    replicates: int,
    *,
    held_out_ranks: int | None = None,
) -> Inputs:
    """What a prediction of `engine` (a name in the suite) at `workload` depends on.

    Args:
        replicates: How many bootstrap replicates of every value.
        held_out_ranks: Ignore everything measured on that number of ranks.

    Raises:
        HvdtoolsError: Something was not measured; the message says what to run.
    """
    cases = _cases(run, held_out_ranks)
    mine = _by_size(cases.get(workload, {}), engine)
    ideal_name = FAMILIES[workload.family].ideal
    _check_engine(engine, ideal_name, cases.get(workload, {}))
    _check_sizes(mine, engine)
    ideal = _by_size(cases[workload], ideal_name)
    largest = _training(mine[max(mine)])
    if largest.gradient_bytes is None:
        raise HvdtoolsError(
            f"The results of {engine} do not record how many bytes of gradients a step sends: "
            "measure again with this version of hvdtools."
        )
    shares = [share for each in ideal.values() if (share := _backward_share(each)) is not None]
    return Inputs(
        scaling=workload.scaling or "weak",
        engine=as_it_ran(workload.family, engine, largest.transport),
        allreduce_s=_allreduce_s(cases, workload.family, engine, largest, replicates),
        compute_s={
            size: _with_replicates(_log_step_s(each), replicates)
            for size, each in (ideal or {(1, 1): mine[1, 1]}).items()
        },
        compute_is_own=not ideal,
        batches={size: _training(each).batch_per_rank for size, each in {**ideal, **mine}.items()},
        step_s={
            size: _with_replicates(_log_step_s(each), replicates) for size, each in mine.items()
        },
        step_over_compute={
            # Samples/s without communication over those of the engine.
            size: _with_replicates(pairs, replicates)
            for size, each in mine.items()
            if size in ideal and (pairs := paired_log_rates(ideal[size], each))
        },
        backward_share=float(np.median(shares)) if shares else 1.0,
        has_phases=bool(shares),
        gradient_bytes=largest.gradient_bytes,
        allreduces_per_step=largest.allreduces_per_step or None,
        repeats=len({key for each in mine.values() for key in each}),
    )


def _cases(run: RunSummary, held_out_ranks: int | None) -> dict[Workload, dict[CaseKey, Case]]:
    return {
        each.workload: {
            key: case for key, case in each.cases.items() if case.ranks != held_out_ranks
        }
        for each in run.workloads
    }


def _by_size(cases: Mapping[CaseKey, Case], engine: str | None) -> dict[Size, Repeats]:
    """What worked under an engine."""
    return {
        (case.ranks, case.nodes): case.repeats
        for case in cases.values()
        if case.engine == engine and case.repeats
    }


def _check_engine(engine: str, ideal: str | None, cases: Mapping[CaseKey, Case]) -> None:
    measured = sorted({case.engine for case in cases.values()})
    if engine not in measured:
        raise unknown_name("engine of this workload", engine, measured)
    if engine == ideal:
        raise HvdtoolsError(
            f"Engine {engine!r} does not communicate, so it scales perfectly by definition: "
            "predict another engine."
        )


def _check_sizes(mine: Mapping[Size, Repeats], engine: str) -> None:
    if (1, 1) not in mine:
        raise HvdtoolsError(
            f"{engine} did not train on one rank, the base of every efficiency: add 1 to the "
            "suite's ranks."
        )
    if not any(ranks > 1 for ranks, _ in mine):
        raise HvdtoolsError(
            f"{engine} trained on one rank only, so the share of communication that it hides is "
            "not known: run the suite on 2 or more ranks as well."
        )


def _allreduce_s(
    cases: Mapping[Workload, Mapping[CaseKey, Case]],
    family: str,
    engine: str,
    training: Training,
    replicates: int,
) -> dict[Size, dict[int, Floats]]:
    """The all-reduces that send as this engine does, float32 in one tensor.

    Raises:
        HvdtoolsError: None were measured, or no program measures them.
    """
    name = _allreduce_engine(family, engine)
    path = (training.transport, training.device)
    found: dict[Size, dict[int, Floats]] = {}
    for workload, of_workload in cases.items():
        if workload.family != "allreduce":
            continue
        for size, repeats in _by_size(of_workload, name).items():
            measured = [each.allreduce for each in repeats.values() if each.allreduce is not None]
            if size[0] > 1 and {(each.transport, each.device) for each in measured} == {path}:
                found.setdefault(size, {}).update(
                    {
                        message_bytes: _with_replicates(
                            [(np.log(point.op_s),) for point in points], replicates
                        )
                        for message_bytes, points in measured_points(repeats, "float32", 1).items()
                    }
                )
    if not any(found.values()):
        raise HvdtoolsError(
            f"No all-reduce of {name} was measured over {training.transport} on "
            f"{training.device}, so the cost of {engine}'s communication is not known: run "
            f'allreduce.py with engines = ["{name}"] and dtype = "float32" in the same suite.'
        )
    return found


def _allreduce_engine(family: str, engine: str) -> str:
    """The engine of allreduce.py that sends as a training's engine does.

    Raises:
        HvdtoolsError: There is none.
    """
    found = FAMILIES[family].engines[engine].allreduce
    if found is None:
        raise HvdtoolsError(
            f"allreduce.py cannot measure the all-reduces of {engine}: predict an engine of "
            "hvdtools or Horovod, or ddp."
        )
    return found


def _with_replicates(repeats: list[LogBlocks], count: int) -> Floats:
    """From logarithms: the measured value, then `count` replicates of it.

    The random numbers are the same for every value, so a repeat that is resampled for one is
    resampled for all values with the same number of repeats: repeats vary together.
    """
    result = resample(repeats, generator(), max(count, 1))
    return np.concatenate([[math.exp(result.value)], calibrated_replicates(result)[:count]])


def _training(repeats: Repeats) -> Training:
    training = next(iter(repeats.values())).training
    assert training is not None  # a workload of the training kind has trainings only
    return training


def _log_step_s(repeats: Repeats) -> list[LogBlocks]:
    """Logarithms of the seconds of a step, by repeat and block."""
    trainings = [each.training for each in repeats.values() if each.training is not None]
    return [(np.log(np.array(each.block_s) / each.steps_per_block),) for each in trainings]


def _backward_share(repeats: Repeats) -> float | None:
    """Of a step, on its slowest rank."""
    found = step_time(repeats, repeats)
    return None if found is None else found.backward_s / found.step_s
