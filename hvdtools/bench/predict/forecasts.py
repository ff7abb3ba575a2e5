"""Forecasts of all that a run measured, and why there are none of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.workloads import Workload, by_workload
from hvdtools.bench.predict.forecast import Forecast, predict
from hvdtools.bench.predict.network import Network
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError, unknown_name

LARGE = (8, 64, 512)  # numbers of ranks


@dataclass(frozen=True)
class Question:
    """What `hvdtools bench predict` is asked.

    Attributes:
        ranks: Numbers of ranks to predict.
        network: What the user says of it; None: as measured.
        ranks_per_node: None: as measured.
        engine, model: Which; None for all.
        allreduces_per_step: All-reduces in a step, for engines that do not say; None: as they say.
    """

    ranks: tuple[int, ...]
    network: Network | None = None
    ranks_per_node: int | None = None
    engine: str | None = None
    model: str | None = None
    allreduces_per_step: int | None = None


@dataclass(frozen=True)
class Forecasts:
    """Of all works and engines that were asked for.

    Attributes:
        found: In the order in which they were first run.
        missing: Whose there is none of, and why: a line each.
    """

    found: tuple[Forecast, ...] = ()
    missing: tuple[str, ...] = ()


def question_of(results: Sequence[Result]) -> Question:
    """What a report asks by itself: the measured numbers of ranks, and larger ones of a cluster.

    On a single node nothing was measured of what would connect it to another.
    """
    trained = [result for result in results if result.training is not None]
    measured = {result.ranks for result in trained}
    most = max(measured, default=1)
    if all(result.nodes == 1 for result in trained):
        return Question(tuple(sorted(measured)), ranks_per_node=most)
    return Question(tuple(sorted(measured | {2 * most, 4 * most, 8 * most})))


def ranks_by_default(
    results: Sequence[Result], network: Network | None, ranks_per_node: int | None
) -> tuple[int, ...]:
    """Large numbers of ranks; those measured where nothing says what connects a second node."""
    one_node = all(result.nodes == 1 for result in results)
    if one_node and network is None and ranks_per_node is None:
        return question_of(results).ranks
    return LARGE


def forecasts(results: Sequence[Result], question: Question) -> Forecasts:
    """A forecast for each work and engine that communicates, and why others have none.

    Raises:
        HvdtoolsError: The engine or the model was not measured.
    """
    trained = [result for result in results if result.training is not None]
    _check_known("engine", question.engine, {result.engine for result in trained})
    _check_known("model", question.model, {workload.model for workload in by_workload(trained)})
    found, missing, workloads = [], [], by_workload(trained)
    for workload, of_one in workloads.items():
        if question.model not in (None, workload.model):
            continue
        for engine in dict.fromkeys(result.engine for result in of_one):
            is_ideal = engine == FAMILIES[workload.family].ideal
            if is_ideal or question.engine not in (None, engine):
                continue
            try:
                found.append(
                    predict(
                        results, workload, engine, question.ranks, question.network,
                        question.ranks_per_node, question.allreduces_per_step,
                    )
                )  # fmt: skip
            except HvdtoolsError as problem:
                missing.append(f"{_model_of(workload, list(workloads))}, {engine}: {problem}")
    return Forecasts(tuple(found), tuple(missing))


def _model_of(workload: Workload, workloads: Sequence[Workload]) -> str:
    """The model, with the framework where another one has a model of that name."""
    families = {each.family for each in workloads if each.model == workload.model}
    return (
        workload.model
        if len(families) == 1
        else f"{workload.model} ({FAMILIES[workload.family].name})"
    )


def _check_known(kind: str, name: str | None, known: set[str]) -> None:
    if name is not None and name not in known:
        raise unknown_name(kind, name, sorted(known))
