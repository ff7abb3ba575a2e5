"""The assumptions of a prediction, as sentences for its reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hvdtools.bench.analysis.workloads import Size
from hvdtools.bench.predict.inputs import Inputs
from hvdtools.bench.predict.model import StepModel
from hvdtools.bench.predict.network import Network
from hvdtools.bench.suite.engines import BenchEngine

# Of a step: the model does not explain more than this and noise.
_UNEXPLAINED_SHARE = 0.05


def notes_of(
    model: StepModel, network: Network | None, sizes: Sequence[Size], engine: BenchEngine
) -> tuple[str, ...]:
    """A note for each assumption that the predictions of these sizes depend on."""
    return (
        *_compute_notes(model.inputs, sizes),
        *_network_notes(model, network, sizes),
        *_overlap_notes(model, engine),
    )


def _compute_notes(inputs: Inputs, sizes: Sequence[Size]) -> Iterator[str]:
    if inputs.repeats == 1:
        yield (
            "Measured in one repeat: the intervals cover how the blocks of a job differ, not how "
            "jobs differ."
        )
    if inputs.compute_is_own:
        yield (
            "Nothing was run without communication: the step of one rank stands in for it, and "
            "what ranks on one node take from each other counts as communication."
        )
    if not inputs.has_phases:
        yield "The backward pass was not timed: the overlap is a share of the whole step."
    if inputs.scaling == "strong":
        yield from _strong_scaling_notes(inputs, sizes)


def _strong_scaling_notes(inputs: Inputs, sizes: Sequence[Size]) -> Iterator[str]:
    batches = sorted({inputs.batches[size] for size in inputs.compute_s})
    smallest = inputs.batches[1, 1] / max((size[0] for size in sizes), default=1)
    if len(batches) == 1:
        yield (
            f"Compute was measured with {batches[0]} samples a rank only and is taken as "
            "proportional to them, which is the best case."
        )
    elif smallest < batches[0]:
        yield (
            f"Compute with fewer than {batches[0]} samples a rank was not measured: it is "
            f"extrapolated along the line through {batches[0]} and {batches[1]}."
        )


def _network_notes(
    model: StepModel, network: Network | None, sizes: Sequence[Size]
) -> Iterator[str]:
    if network is not None:
        yield (
            f"Between nodes every hop of the ring is taken to be as {network.text} says, or as "
            "slow as the measured ring within a node if that is slower; the constant of an "
            "all-reduce stays as measured."
        )
    crosses = any(nodes > 1 for _, nodes in sizes)
    if network is not None and crosses and network.latency_s is not None:
        return
    between_nodes = {ranks for ranks, nodes in model.inputs.allreduce_s if nodes > 1}
    in_node = {ranks for ranks, nodes in model.inputs.allreduce_s if nodes == 1}
    if len((between_nodes if crosses else ()) or in_node or between_nodes) == 1:
        yield (
            "All-reduces were measured on one number of ranks only, which cannot tell the latency "
            "of a hop from the constant: hops are taken to have no latency, so large numbers of "
            "ranks look better than they are. Give the latency, as in --network 100Gbit,5us, or "
            "measure more numbers of ranks."
        )


def _overlap_notes(model: StepModel, engine: BenchEngine) -> Iterator[str]:
    overlap = model.overlap
    if overlap.is_lower_bound:
        yield (
            "All communication was hidden that can be, or was too short to tell, so a slower "
            "network might hide more: the prediction uses the overlap that was seen, and its fast "
            "end uses the whole backward pass."
        )
    if overlap.unexplained_s > _UNEXPLAINED_SHARE * float(model.inputs.one_rank_step_s[0]):
        yield (
            f"A measured step took {1e3 * overlap.unexplained_s:.2f} ms more than all its "
            "all-reduces one after another explain: they are slower during training than alone, "
            "or the engine has another cost. The model adds the median of that to every step."
        )
    if engine.fuses:
        yield (
            "Plain Horovod fuses gradients that are ready together: counted one by one, as here, "
            "they pay the latency of the network more often."
        )
