"""Predicts one engine from measured compute, the cost of an all-reduce, and the seen overlap."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.bootstrap import Floats, estimate_from_replicates, generator
from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.summary import RunSummary
from hvdtools.bench.analysis.workloads import Size, Workload
from hvdtools.bench.predict.holdout import HoldOut, allreduces_per_step_of, hold_out
from hvdtools.bench.predict.inputs import Inputs, inputs_of
from hvdtools.bench.predict.model import StepModel, StepParts, fit_model
from hvdtools.bench.predict.network import Network
from hvdtools.bench.predict.notes import notes_of
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError

_REPLICATES = 400


@dataclass(frozen=True)
class PredictionRequest:
    """The options of `hvdtools bench predict`.

    Attributes:
        ranks: Numbers of ranks to predict.
        network: As the user gave it; None: as measured.
        ranks_per_node: None: as measured.
        engine, model: Which; None for all.
        allreduces_per_step: For engines that do not record them; None: as they do.
    """

    ranks: tuple[int, ...]
    network: Network | None = None
    ranks_per_node: int | None = None
    engine: str | None = None
    model: str | None = None
    allreduces_per_step: int | None = None


@dataclass(frozen=True)
class SizePrediction:
    """One number of ranks. `efficiency` is over `ranks` times the measured rate of one rank."""

    ranks: int
    nodes: int
    batch_per_rank: float
    step_s: Estimate
    samples_per_s: Estimate
    efficiency: Estimate
    parts: StepParts


@dataclass(frozen=True)
class EnginePrediction:
    """The predictions of one engine at one workload, and what they are based on.

    Attributes:
        workload, engine: What is predicted; the engine as it ran.
        network: As the user gave it; None: as measured.
        model: Fitted to the measured values: the costs of an all-reduce, and the overlap.
        ranks_per_node: Assumed for all sizes.
        sizes: As requested.
        hold_outs: The error of the model on measured numbers of ranks that were held out.
        not_held_out: Why not all could be held out; None if all were.
        notes: What is assumed, a sentence each.
    """

    workload: Workload
    engine: str
    network: Network | None
    model: StepModel
    ranks_per_node: int
    sizes: tuple[SizePrediction, ...]
    hold_outs: tuple[HoldOut, ...]
    not_held_out: str | None
    notes: tuple[str, ...]


def predict_engine(
    run: RunSummary, workload: Workload, engine: str, request: PredictionRequest
) -> EnginePrediction:
    """Predict `engine` (a name in the suite) at `workload`; those in the request are ignored.

    Args:
        run: With trainings of this workload and all-reduces.

    Raises:
        HvdtoolsError: Something needed was not measured; the message says what to run.
    """
    inputs = inputs_of(run, workload, engine, _REPLICATES)
    per_step = allreduces_per_step_of(inputs, engine, request.allreduces_per_step)
    per_node = request.ranks_per_node
    per_node = inputs.ranks_per_node if per_node is None else per_node
    sizes, left_out = _sizes(request.ranks, per_node, inputs)
    model = fit_model(inputs, 0, request.network, per_node, per_step)
    replicates = _replicates(inputs, request.network, per_node, per_step)
    hold_outs, not_held_out = hold_out(run, workload, engine, request.allreduces_per_step)
    notes = notes_of(model, request.network, sizes, FAMILIES[workload.family].engines[engine])
    return EnginePrediction(
        workload=workload,
        engine=inputs.engine,
        network=request.network,
        model=model,
        ranks_per_node=per_node,
        sizes=tuple(_size_prediction(model, replicates, size) for size in sizes),
        hold_outs=hold_outs,
        not_held_out=not_held_out,
        notes=(*left_out, *notes),
    )


def _sizes(
    ranks: Sequence[int], ranks_per_node: int, inputs: Inputs
) -> tuple[list[Size], list[str]]:
    """The sizes on the fewest nodes, and a note on each number of ranks that is left out.

    Raises:
        HvdtoolsError: A number is less than 1, or all exceed the samples of a step.
    """
    for name, counts in (("--ranks", ranks), ("--ranks-per-node", (ranks_per_node,))):
        if min(counts, default=1) < 1:
            raise HvdtoolsError(f"{name} must be 1 or more (got {min(counts)}).")
    batch = inputs.batches[1, 1]
    too_many = [count for count in ranks if inputs.scaling == "strong" and count > batch]
    kept = [count for count in ranks if count not in too_many]
    notes = [
        f"{count} ranks cannot share the {batch} samples of a step in strong scaling: "
        f"predict at most {batch}."
        for count in too_many
    ]
    if notes and not kept:
        raise HvdtoolsError(notes[0])
    return [(count, -(-count // ranks_per_node)) for count in kept], notes


def _replicates(
    inputs: Inputs, network: Network | None, ranks_per_node: int, allreduces_per_step: int
) -> list[StepModel]:
    """The model fitted to each replicate of the inputs; none where something has no interval."""
    if not inputs.has_intervals:
        return []
    random = generator()
    return [
        _with_possible_overlap(
            fit_model(inputs, replicate, network, ranks_per_node, allreduces_per_step), random
        )
        for replicate in range(1, _REPLICATES + 1)
    ]


def _with_possible_overlap(model: StepModel, random: np.random.Generator) -> StepModel:
    """Where the overlap is only a lower bound, any share above it."""
    if not model.overlap.is_lower_bound:
        return model
    share = float(random.uniform(model.overlap.share, 1))
    return dataclasses.replace(model, overlap=dataclasses.replace(model.overlap, share=share))


def _size_prediction(
    model: StepModel, replicates: Sequence[StepModel], size: Size
) -> SizePrediction:
    inputs, parts = model.inputs, model.step(size)
    weak = inputs.scaling == "weak"
    batch = inputs.batches[1, 1] if weak else inputs.batches[1, 1] / size[0]
    step_s: Floats = np.array([each.step(size).step_s for each in replicates])
    # Strong scaling shares one step among the ranks, weak scaling does one step on each.
    ideal_s = inputs.one_rank_step_s / (1 if weak else size[0])
    samples = batch * size[0]
    return SizePrediction(
        ranks=size[0],
        nodes=size[1],
        batch_per_rank=batch,
        step_s=estimate_from_replicates(parts.step_s, step_s),
        samples_per_s=estimate_from_replicates(samples / parts.step_s, samples / step_s),
        efficiency=estimate_from_replicates(
            float(ideal_s[0]) / parts.step_s, ideal_s[1 : 1 + len(replicates)] / step_s
        ),
        parts=parts,
    )
