"""Hold-out validation: the error of the model on numbers of ranks that it was not fitted to."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.bench.analysis.summary import RunSummary
from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.formatting import format_size
from hvdtools.bench.predict.inputs import Inputs, inputs_of
from hvdtools.bench.predict.model import fit_model
from hvdtools.core.errors import HvdtoolsError


@dataclass(frozen=True)
class HoldOut:
    """A measured step, and its prediction from the other numbers of ranks.

    `error` is predicted over measured step time less 1.
    """

    ranks: int
    nodes: int
    predicted_s: float
    measured_s: float
    error: float


def hold_out(
    run: RunSummary, workload: Workload, engine: str, allreduces_per_step: int | None
) -> tuple[tuple[HoldOut, ...], str | None]:
    """Predict each measured number of ranks from the results on all others.

    All results on that number of ranks are held out: trainings with and without communication
    and all-reduces. If there is only one such number, only the training can be held out, and
    that only if a step has a single all-reduce: the overlap of several has to be fitted.

    Returns:
        The predictions, and why not all could be made; None if all were.
    """
    measured = inputs_of(run, workload, engine, 0)
    single = len({ranks for ranks, _ in measured.distributed_sizes}) < 2
    if single and allreduces_per_step_of(measured, engine, allreduces_per_step) > 1:
        return (), (
            "Nothing could be held out, so the error of these predictions is not known: measure "
            "at least two numbers of ranks above 1."
        )
    found, reasons = [], [_only_training_note(measured)] if single else []
    for size in measured.distributed_sizes:
        try:
            inputs = (
                measured.without_distributed_training()
                if single
                else inputs_of(run, workload, engine, 0, held_out_ranks=size[0])
            )
            count = allreduces_per_step_of(inputs, engine, allreduces_per_step)
            predicted_s = fit_model(inputs, 0, None, 1, count).step(size).step_s
        except HvdtoolsError as error:
            reasons.append(f"{format_size(*size)} could not be held out: {error}")
            continue
        measured_s = float(measured.step_s[size][0])
        found.append(HoldOut(*size, predicted_s, measured_s, predicted_s / measured_s - 1))
    return tuple(found), " ".join(reasons) or None


def _only_training_note(measured: Inputs) -> str:
    ranks = measured.distributed_sizes[0][0]
    return (
        f"Of {ranks} ranks only the training was held out; the model was fitted to the "
        "all-reduces there. Its error on other numbers of ranks is not known: measure at least "
        "two numbers of ranks above 1."
    )


def allreduces_per_step_of(inputs: Inputs, engine: str, given: int | None) -> int:
    """All-reduces in a step: as given by the user, or as recorded by the engine.

    Raises:
        HvdtoolsError: Neither is known, or the given number is less than 1.
    """
    if given is not None and given < 1:
        raise HvdtoolsError(f"--allreduces-per-step must be 1 or more (got {given}).")
    allreduces_per_step = given or inputs.allreduces_per_step
    if allreduces_per_step is None or allreduces_per_step < 1:
        raise HvdtoolsError(
            f"{engine} does not record how many all-reduces a step has, so their latency and the "
            "time of the last one are not known: predict another engine, or give the number with "
            "--allreduces-per-step."
        )
    return allreduces_per_step
