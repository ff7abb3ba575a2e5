"""Which results may be held against each other: those of the same work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvdtools.bench.results.result_file import Result

# How long to measure is no part of what is measured; which messages, each point says itself.
_MEASURING = {
    *("steps", "epochs", "warmup_epochs", "interval", "limit_s"),
    *("min_blocks", "max_blocks", "warmup_blocks"),
    *("sizes", "dtype", "tensors"),
}
_NAMED = ("model", "data", "precision")


@dataclass(frozen=True)
class Workload:
    """What was done; only numbers of the same work compare.

    Attributes:
        family, program, scaling: As in `Result`.
        model, data, precision: As in `Training`; "" where there is none, or where
            every job failed and the suite left it to the program.
        options: What else the suite told the program, sorted; how long to measure
            is left out.
    """

    family: str
    program: str
    model: str
    data: str
    precision: str
    scaling: str | None
    options: tuple[tuple[str, str], ...]


def by_workload(results: Sequence[Result]) -> dict[Workload, list[Result]]:
    """The training results of each work, as they were first run.

    A case that ran twice (it failed, and the run was resumed) counts once, as it ended last.
    """
    return workloads_of([result for result in results if result.kind == "training"])


def workloads_of(
    results: Sequence[Result], known: Sequence[Result] = ()
) -> dict[Workload, list[Result]]:
    """The same for results of every kind.

    A job that failed does not say its model where the suite left that to the program:
    another result with the same options does, of these or of `known`.
    """
    kept = latest(results)
    measured = [result for result in (*known, *kept) if result.measured is not None]
    told = {_told(result): _names(result) for result in measured}
    workloads: dict[Workload, list[Result]] = {}
    for result in kept:
        is_measured = result.measured is not None
        names = _names(result) if is_measured else told.get(_told(result), _names(result))
        workload = Workload(
            family=result.family,
            program=result.program,
            model=names[0],
            data=names[1],
            precision=names[2],
            scaling=result.scaling,
            options=_other_options(result),
        )
        workloads.setdefault(workload, []).append(result)
    return workloads


def latest(results: Sequence[Result]) -> list[Result]:
    """Of each case in each repeat the result that was written last, in the order of the first."""
    last: dict[tuple[object, ...], Result] = {}
    for result in results:
        case = (result.run_id, result.repeat, result.engine, result.ranks, result.nodes)
        last[(*case, _told(result))] = result
    return list(last.values())


def _told(result: Result) -> tuple[object, ...]:
    options = tuple(sorted((name, str(value)) for name, value in result.options.items()))
    return result.family, result.program, result.scaling, options


def _names(result: Result) -> tuple[str, ...]:
    """Model, data and precision as measured, or as the suite told them."""
    return tuple(
        str(getattr(result.measured, name, result.options.get(name, ""))) for name in _NAMED
    )


def _other_options(result: Result) -> tuple[tuple[str, str], ...]:
    said = without_measuring(result.options)
    return tuple(sorted(item for item in said.items() if item[0] not in _NAMED))


def without_measuring(options: Mapping[str, object]) -> dict[str, str]:
    """What a program is told, in words, but for how long to measure: equal for equal work."""
    said = {name.replace("-", "_"): str(value) for name, value in options.items()}
    return {name: value for name, value in said.items() if name not in _MEASURING}
