"""How a training would scale: measured compute, measured or given all-reduce, the overlap seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.bootstrap import Floats, generator, span_of_values
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.analysis.operations import Size
from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.predict.alpha_beta import AlphaBeta
from hvdtools.bench.predict.held_out import HeldOut, allreduces_per_step_of, hold_out
from hvdtools.bench.predict.network import Network
from hvdtools.bench.predict.scaling_inputs import Inputs, inputs_of
from hvdtools.bench.predict.scaling_model import Model, Parts, model_of
from hvdtools.bench.predict.scaling_notes import notes_of
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError

_DRAWS = 400


@dataclass(frozen=True)
class Prediction:
    """One number of ranks. `efficiency` is over `ranks` times the measured one-rank rate."""

    ranks: int
    nodes: int
    batch_per_rank: float
    step_s: Span
    samples_per_s: Span
    efficiency: Span
    parts: Parts


@dataclass(frozen=True)
class Forecast:
    """Predictions for one work under one engine, with all that they rest on.

    Attributes:
        workload, engine: What is predicted; the engine as it ran.
        network: What the user gave; None: as measured.
        ranks_per_node: Taken for all predictions.
        cost_in_node, cost_between_nodes: Of an all-reduce; None where not needed.
        overlap: The share of the backward pass that hides communication, 0 to 1.
        overlap_is_least: True if all communication was hidden that can be, or was too
            short to tell, so that `overlap` may be what was seen of a larger share.
        predictions: As asked for.
        held_out: The model's error on measured rank counts that it was not shown.
        not_held_out: Why none, or not all, could be held out; None if all were.
        notes: What was assumed, a sentence each.
    """

    workload: Workload
    engine: str
    network: Network | None
    ranks_per_node: int
    cost_in_node: AlphaBeta | None
    cost_between_nodes: AlphaBeta | None
    overlap: float
    overlap_is_least: bool
    predictions: tuple[Prediction, ...]
    held_out: tuple[HeldOut, ...]
    not_held_out: str | None
    notes: tuple[str, ...]


def predict(
    results: Sequence[Result],
    workload: Workload,
    engine: str,
    ranks: Sequence[int],
    network: Network | None = None,
    ranks_per_node: int | None = None,
    allreduces_per_step: int | None = None,
) -> Forecast:
    """Predict `engine` (a name in the suite) at `work` on each of `ranks`.

    Args:
        results: All results of a run: trainings of this work and all-reduces.
        ranks_per_node: By default those of the fullest node measured.
        allreduces_per_step: All-reduces in a step, for an engine that does not say.

    Raises:
        HvdtoolsError: Something that it rests on was not measured; the message says what to run.
    """
    inputs = inputs_of(results, workload, engine, _DRAWS)
    sent = allreduces_per_step_of(inputs, engine, allreduces_per_step)
    fullest = inputs.ranks_per_node if ranks_per_node is None else ranks_per_node
    sizes, left_out = _sizes(ranks, fullest, inputs)
    model = model_of(inputs, 0, network, fullest, sent)
    draws = _draws(inputs, network, fullest, sent)
    held_out, not_held_out = hold_out(results, workload, engine, allreduces_per_step)
    return Forecast(
        workload=workload,
        engine=inputs.engine,
        network=network,
        ranks_per_node=fullest,
        cost_in_node=model.in_node,
        cost_between_nodes=model.between_nodes,
        overlap=model.overlap.share,
        overlap_is_least=model.overlap.is_least,
        predictions=tuple(_prediction(model, draws, size) for size in sizes),
        held_out=held_out,
        not_held_out=not_held_out,
        notes=(
            *left_out,
            *notes_of(model, network, sizes, FAMILIES[workload.family].engines[engine]),
        ),
    )


def _sizes(
    ranks: Sequence[int], ranks_per_node: int, inputs: Inputs
) -> tuple[list[Size], list[str]]:
    """The fewest nodes that hold so many ranks, and a sentence on those that are left out.

    Raises:
        HvdtoolsError: That is no number of ranks, or all are more than there are samples.
    """
    for count in (*ranks, ranks_per_node):
        if count < 1:
            raise HvdtoolsError(f"{count} ranks cannot be predicted: give 1 or more.")
    batch = inputs.batches[1, 1]
    too_many = [count for count in ranks if inputs.scaling == "strong" and count > batch]
    kept = [count for count in ranks if count not in too_many]
    why = [
        f"{count} ranks cannot share the {batch} samples of a step in strong scaling: "
        f"predict at most {batch}."
        for count in too_many
    ]
    if why and not kept:
        raise HvdtoolsError(why[0])
    return [(count, -(-count // ranks_per_node)) for count in kept], why


def _draws(
    inputs: Inputs, network: Network | None, ranks_per_node: int, allreduces_per_step: int
) -> list[Model]:
    """The model fitted anew to each draw of the inputs; none where a single block is all."""
    if not inputs.has_spread:
        return []
    random = generator()
    return [
        _any_overlap(model_of(inputs, place, network, ranks_per_node, allreduces_per_step), random)
        for place in range(1, _DRAWS + 1)
    ]


def _any_overlap(model: Model, random: np.random.Generator) -> Model:
    """Where only the least overlap is known, any above it."""
    if not model.overlap.is_least:
        return model
    share = float(random.uniform(model.overlap.share, 1))
    return dataclasses.replace(model, overlap=dataclasses.replace(model.overlap, share=share))


def _prediction(model: Model, draws: Sequence[Model], size: Size) -> Prediction:
    inputs, parts = model.inputs, model.parts(size)
    weak = inputs.scaling == "weak"
    batch = inputs.batches[1, 1] if weak else inputs.batches[1, 1] / size[0]
    step_s: Floats = np.array([each.parts(size).step_s for each in draws])
    # Strong scaling shares one step among the ranks, weak scaling does as many steps at once.
    ideal_s = inputs.step_alone_s / (1 if weak else size[0])
    samples = batch * size[0]
    return Prediction(
        ranks=size[0],
        nodes=size[1],
        batch_per_rank=batch,
        step_s=span_of_values(parts.step_s, step_s),
        samples_per_s=span_of_values(samples / parts.step_s, samples / step_s),
        efficiency=span_of_values(
            float(ideal_s[0]) / parts.step_s, ideal_s[1 : 1 + len(draws)] / step_s
        ),
        parts=parts,
    )
