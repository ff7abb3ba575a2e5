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
from hvdtools.bench.predict.alpha_beta import AlphaBeta
from hvdtools.bench.predict.holdout import HoldOut, allreduces_per_step_of, hold_out
from hvdtools.bench.predict.inputs import Inputs, inputs_of
from hvdtools.bench.predict.model import StepModel, StepParts, fit_model
from hvdtools.bench.predict.network import Network
from hvdtools.bench.predict.notes import notes_of
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError

_REPLICATES = 400


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
        ranks_per_node: Assumed for all sizes.
        cost_in_node, cost_between_nodes: Of an all-reduce; None where not needed.
        overlap: The share of the backward pass that hides communication, 0 to 1.
        overlap_is_lower_bound: True if everything was hidden that can be, or there was too
            little communication to tell.
        sizes: As asked for.
        hold_outs: The error of the model on measured numbers of ranks that were held out.
        not_held_out: Why not all could be held out; None if all were.
        notes: What is assumed, a sentence each.
    """

    workload: Workload
    engine: str
    network: Network | None
    ranks_per_node: int
    cost_in_node: AlphaBeta | None
    cost_between_nodes: AlphaBeta | None
    overlap: float
    overlap_is_lower_bound: bool
    sizes: tuple[SizePrediction, ...]
    hold_outs: tuple[HoldOut, ...]
    not_held_out: str | None
    notes: tuple[str, ...]


def predict_engine(
    run: RunSummary,
    workload: Workload,
    engine: str,
    ranks: Sequence[int],
    network: Network | None = None,
    ranks_per_node: int | None = None,
    allreduces_per_step: int | None = None,
) -> EnginePrediction:
    """Predict `engine` (a name in the suite) at `workload` on each of `ranks`.

    Args:
        run: With trainings of this workload and all-reduces.
        ranks_per_node: By default those of the fullest measured node.
        allreduces_per_step: For an engine that does not record them.

    Raises:
        HvdtoolsError: Something needed was not measured; the message says what to run.
    """
    inputs = inputs_of(run, workload, engine, _REPLICATES)
    per_step = allreduces_per_step_of(inputs, engine, allreduces_per_step)
    per_node = inputs.ranks_per_node if ranks_per_node is None else ranks_per_node
    sizes, left_out = _sizes(ranks, per_node, inputs)
    model = fit_model(inputs, 0, network, per_node, per_step)
    replicates = _replicates(inputs, network, per_node, per_step)
    hold_outs, not_held_out = hold_out(run, workload, engine, allreduces_per_step)
    bench_engine = FAMILIES[workload.family].engines[engine]
    return EnginePrediction(
        workload=workload,
        engine=inputs.engine,
        network=network,
        ranks_per_node=per_node,
        cost_in_node=model.in_node,
        cost_between_nodes=model.between_nodes,
        overlap=model.overlap.share,
        overlap_is_lower_bound=model.overlap.is_lower_bound,
        sizes=tuple(_size_prediction(model, replicates, size) for size in sizes),
        hold_outs=hold_outs,
        not_held_out=not_held_out,
        notes=(*left_out, *notes_of(model, network, sizes, bench_engine)),
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
