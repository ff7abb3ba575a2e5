"""Predicts every engine and workload of a run, and says why others cannot be predicted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hvdtools.bench.analysis.summary import RunSummary, WorkloadSummary
from hvdtools.bench.predict.engine_prediction import (
    EnginePrediction,
    PredictionRequest,
    predict_engine,
)
from hvdtools.bench.predict.network import Network
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError, unknown_name

LARGE_RANKS = (8, 64, 512)


@dataclass(frozen=True)
class RunPrediction:
    """The predictions of a run.

    Attributes:
        engines: A prediction for each workload and engine, in the order of their first run.
        missing: A line for each that cannot be predicted, with the reason.
    """

    engines: tuple[EnginePrediction, ...] = ()
    missing: tuple[str, ...] = ()


def request_for_report(run: RunSummary) -> PredictionRequest:
    """What a report predicts: the measured numbers of ranks, and larger ones of a cluster.

    On a single node the network to another one is not known.
    """
    trained = [result for result in run.results if result.training is not None]
    measured = {result.ranks for result in trained}
    most = max(measured, default=1)
    if all(result.nodes == 1 for result in trained):
        return PredictionRequest(tuple(sorted(measured)), ranks_per_node=most)
    return PredictionRequest(tuple(sorted(measured | {2 * most, 4 * most, 8 * most})))


def default_ranks(
    run: RunSummary, network: Network | None, ranks_per_node: int | None
) -> tuple[int, ...]:
    """Large numbers of ranks; the measured ones where the network between nodes is not known."""
    one_node = all(result.nodes == 1 for result in run.results)
    if one_node and network is None and ranks_per_node is None:
        return request_for_report(run).ranks
    return LARGE_RANKS


def predict_run(run: RunSummary, request: PredictionRequest) -> RunPrediction:
    """Predict each workload and engine that communicates, as far as the request wants it.

    Raises:
        HvdtoolsError: The engine or the model was not measured.
    """
    trained = [each for each in run.of_kind("training") if _engines(each)]
    _check_known("engine", request.engine, (name for each in trained for name in _engines(each)))
    _check_known("model", request.model, (each.workload.model for each in trained))
    engines, missing = [], []
    for summary in trained:
        workload = summary.workload
        if request.model not in (None, workload.model):
            continue
        for engine in _engines(summary):
            is_ideal = engine == FAMILIES[workload.family].ideal
            if is_ideal or request.engine not in (None, engine):
                continue
            try:
                engines.append(predict_engine(run, workload, engine, request))
            except HvdtoolsError as error:
                missing.append(f"{_model_name(summary, trained)}, {engine}: {error}")
    return RunPrediction(tuple(engines), tuple(missing))


def _engines(summary: WorkloadSummary) -> list[str]:
    """The engines with a job that worked, in the order of their first run."""
    return list(dict.fromkeys(each.engine for each in summary.results if each.measured is not None))


def _model_name(summary: WorkloadSummary, trained: list[WorkloadSummary]) -> str:
    """The model, with the framework where another one has a model of that name."""
    model, family = summary.workload.model, summary.workload.family
    families = {each.workload.family for each in trained if each.workload.model == model}
    return model if len(families) == 1 else f"{model} ({FAMILIES[family].name})"


def _check_known(kind: str, name: str | None, known: Iterable[str]) -> None:
    known_names = sorted(set(known))
    if name is not None and name not in known_names:
        raise unknown_name(kind, name, known_names)
