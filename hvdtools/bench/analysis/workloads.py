"""Results grouped by workload and by case: only numbers of the same workload compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvdtools.bench.results.measured import Allreduce, Training
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import as_it_ran

# Options for how long to measure, or for which messages (each point has its own).
_MEASUREMENT_OPTIONS = {
    *("steps", "epochs", "warmup_epochs", "interval", "limit_s"),
    *("min_blocks", "max_blocks", "warmup_blocks"),
    *("sizes", "dtype", "tensors"),
}
_NAMED = ("model", "data", "precision")

Size = tuple[int, int]  # ranks, nodes
RepeatKey = tuple[str, int]  # run id, repeat
Repeats = dict[RepeatKey, Result]  # the jobs of one case that worked
CaseKey = tuple[str, int, int]  # engine, ranks, nodes


@dataclass(frozen=True)
class Workload:
    """What was run.

    Attributes:
        family, program, scaling: As in `Result`.
        model, data, precision: As in `Training`; "" where there is none, or where every job
            failed and the suite left it to the program.
        options: Further options of the program, sorted, without those of the measurement.
    """

    family: str
    program: str
    model: str
    data: str
    precision: str
    scaling: str | None
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Case:
    """One engine on one number of ranks and nodes: its results over all repeats.

    Attributes:
        workload: What it ran.
        engine: Its name in the suite.
        ranks, nodes: The size of its jobs.
        repeats: What worked, by run and repeat. All-reduces that a suite splits over
            several programs are one result, with all their points.
        failures: Why each of the other jobs failed.
    """

    workload: Workload
    engine: str
    ranks: int
    nodes: int
    repeats: Repeats
    failures: tuple[str, ...]

    @property
    def engine_as_run(self) -> str:
        """The engine with the transport that carried its data, where the name leaves it open."""
        transports = [
            each.measured.transport
            for each in self.repeats.values()
            if isinstance(each.measured, Training | Allreduce)
        ]
        return as_it_ran(self.workload.family, self.engine, next(iter(transports), None))


def group_by_workload(
    results: Sequence[Result], names_from: Sequence[Result] = ()
) -> dict[Workload, list[Result]]:
    """The results of each workload, in the order of their first run.

    A case that ran twice (it failed, and the run was resumed) counts once, as it ended last.
    A failed job does not know its model where the suite left that to the program: it is
    named after another result with the same options, of these or of `names_from`.
    """
    kept = _latest(results)
    measured = [result for result in (*names_from, *kept) if result.measured is not None]
    names_by_options = {_program_and_options(result): _names(result) for result in measured}
    workloads: dict[Workload, list[Result]] = {}
    for result in kept:
        names = _names(result)
        if result.measured is None:
            names = names_by_options.get(_program_and_options(result), names)
        workload = Workload(
            family=result.family,
            program=result.program,
            model=names[0],
            data=names[1],
            precision=names[2],
            scaling=result.scaling,
            options=_further_options(result),
        )
        workloads.setdefault(workload, []).append(result)
    return workloads


def group_by_case(workload: Workload, results: Sequence[Result]) -> dict[CaseKey, Case]:
    """The cases of one workload: engines as first run, then nodes and ranks rising."""
    engines = list(dict.fromkeys(result.engine for result in results))
    by_key: dict[CaseKey, list[Result]] = {}
    for result in results:
        by_key.setdefault((result.engine, result.ranks, result.nodes), []).append(result)
    ordered = sorted(by_key, key=lambda key: (engines.index(key[0]), key[2], key[1]))
    return {key: _case(workload, key, by_key[key]) for key in ordered}


def repeats_of(cases: Mapping[CaseKey, Case], engine: str | None, size: Size) -> Repeats:
    """What worked under an engine on a size of job; empty without such a case."""
    case = cases.get((engine, *size)) if engine is not None else None
    return {} if case is None else case.repeats


def without_measurement_options(options: Mapping[str, object]) -> dict[str, str]:
    """The options as text, without those for how long to measure."""
    texts = {name.replace("-", "_"): str(value) for name, value in options.items()}
    return {name: text for name, text in texts.items() if name not in _MEASUREMENT_OPTIONS}


def _case(workload: Workload, key: CaseKey, results: Sequence[Result]) -> Case:
    repeats: Repeats = {}
    for result in results:
        if result.measured is not None:
            repeat = (result.run_id, result.repeat)
            repeats[repeat] = _with_points_of(repeats.get(repeat), result)
    failures = (
        result.error or "no reason was recorded" for result in results if result.measured is None
    )
    return Case(workload, *key, repeats, tuple(failures))


def _with_points_of(before: Result | None, result: Result) -> Result:
    if before is None or before.allreduce is None or result.allreduce is None:
        return result
    points = (*before.allreduce.points, *result.allreduce.points)
    measured = dataclasses.replace(result.allreduce, points=points)
    return dataclasses.replace(result, measured=measured)


def _latest(results: Sequence[Result]) -> list[Result]:
    """The last result of each case in each repeat, in the order of the first."""
    last: dict[tuple[object, ...], Result] = {}
    for result in results:
        case = (result.run_id, result.repeat, result.engine, result.ranks, result.nodes)
        last[(*case, _program_and_options(result))] = result
    return list(last.values())


def _program_and_options(result: Result) -> tuple[object, ...]:
    options = tuple(sorted((name, str(value)) for name, value in result.options.items()))
    return result.family, result.program, result.scaling, options


def _names(result: Result) -> tuple[str, ...]:
    """Model, data and precision as measured, or as in the suite."""
    return tuple(
        str(getattr(result.measured, name, result.options.get(name, ""))) for name in _NAMED
    )


def _further_options(result: Result) -> tuple[tuple[str, str], ...]:
    options = without_measurement_options(result.options)
    return tuple(sorted(item for item in options.items() if item[0] not in _NAMED))
