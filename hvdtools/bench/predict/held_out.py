"""How wrong the model is on numbers of ranks that it was not shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.predict.scaling_inputs import Inputs, inputs_of
from hvdtools.bench.predict.scaling_model import model_of
from hvdtools.bench.results.result_file import Result
from hvdtools.core.errors import HvdtoolsError


@dataclass(frozen=True)
class HeldOut:
    """What was measured on `ranks`, and what is predicted of it without having seen it.

    `error` is predicted over measured step time less 1.
    """

    ranks: int
    nodes: int
    predicted_s: float
    measured_s: float
    error: float


def hold_out(
    results: Sequence[Result], workload: Workload, engine: str, allreduces_per_step: int | None
) -> tuple[tuple[HeldOut, ...], str | None]:
    """Predict each measured number of ranks from the results on all others.

    Nothing measured on as many ranks is shown to the model: no training, none without
    communication, no all-reduce. Where there is only one such number, no more than the
    training can be held out, and that only if all of a step's gradients are one message:
    of several the model has to be shown how much is hidden.

    Returns:
        What came out, and why not all could be held out; None if all were.
    """
    measured = inputs_of(results, workload, engine, 0)
    lone = len({ranks for ranks, _ in measured.trained_together}) < 2
    if lone and allreduces_per_step_of(measured, engine, allreduces_per_step) > 1:
        return (), (
            "Nothing could be held out, so the error of these predictions is not known: measure "
            "two numbers of ranks above 1 or more."
        )
    found, reasons = [], [_only_training(measured)] if lone else []
    for size in measured.trained_together:
        others = [result for result in results if result.ranks != size[0]]
        try:
            inputs = measured.trained_alone() if lone else inputs_of(others, workload, engine, 0)
            model = model_of(
                inputs, 0, None, 1, allreduces_per_step_of(inputs, engine, allreduces_per_step)
            )
            predicted_s = model.parts(size).step_s
        except HvdtoolsError as problem:
            reasons.append(f"{size[0]} ranks on {size[1]} nodes could not be held out: {problem}")
            continue
        measured_s = float(measured.engine_s[size][0])
        found.append(HeldOut(*size, predicted_s, measured_s, predicted_s / measured_s - 1))
    return tuple(found), " ".join(reasons) or None


def _only_training(measured: Inputs) -> str:
    ranks = measured.trained_together[0][0]
    return (
        f"Of {ranks} ranks only the training was held out, and the model was shown the all-reduces "
        "there. Its error on other numbers of ranks is not known: measure two numbers of ranks "
        "above 1 or more."
    )


def allreduces_per_step_of(inputs: Inputs, engine: str, given: int | None) -> int:
    """All-reduces in a step.

    Raises:
        HvdtoolsError: Neither the engine nor the user says, or the user's is no number of them.
    """
    if given is not None and given < 1:
        raise HvdtoolsError(f"A step of {given} all-reduces sends nothing: give 1 or more.")
    allreduces_per_step = given or inputs.allreduces_per_step
    if allreduces_per_step is None or allreduces_per_step < 1:
        raise HvdtoolsError(
            f"{engine} does not say in how many all-reduces it sends its gradients, so their "
            "latency and the last one's time are not known: predict another engine, or say how "
            "many with --allreduces-per-step."
        )
    return allreduces_per_step
