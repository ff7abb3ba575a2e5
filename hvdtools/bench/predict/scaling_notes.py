"""What a prediction takes for granted, in sentences for those who read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hvdtools.bench.analysis.operations import Size
from hvdtools.bench.predict.network import Network
from hvdtools.bench.predict.scaling_inputs import Inputs
from hvdtools.bench.predict.scaling_model import Model
from hvdtools.bench.suite.engines import BenchEngine

# A step that is longer than model and noise explain.
_UNEXPLAINED = 0.05


def notes_of(
    model: Model, network: Network | None, sizes: Sequence[Size], engine: BenchEngine
) -> tuple[str, ...]:
    """A sentence for each assumption that these predictions rest on."""
    return (
        *_repeats(model.inputs),
        *_compute(model.inputs, sizes),
        *_network(model, network, sizes),
        *_steps(model, engine),
    )


def _repeats(inputs: Inputs) -> Iterator[str]:
    if inputs.repeats == 1:
        yield (
            "Measured in one repeat: the intervals cover how the blocks of a job differ, not how "
            "jobs do."
        )


def _compute(inputs: Inputs, sizes: Sequence[Size]) -> Iterator[str]:
    if inputs.ideal_is_own:
        yield (
            "Nothing was run without communication: a step of one rank stands for it, and what "
            "ranks on one node take from each other counts as communication."
        )
    if not inputs.has_phases:
        yield "The backward pass was not told apart: the overlap is a share of the whole step."
    if inputs.scaling == "strong":
        yield from _shrinking(inputs, sizes)


def _shrinking(inputs: Inputs, sizes: Sequence[Size]) -> Iterator[str]:
    batches = sorted({inputs.batches[size] for size in inputs.ideal_s})
    least = inputs.batches[1, 1] / max((size[0] for size in sizes), default=1)
    if len(batches) == 1:
        yield (
            f"Computing was measured with {batches[0]} samples a rank only and is taken to be "
            "proportional to them, which is the best that can happen."
        )
    elif least < batches[0]:
        yield (
            f"Computing with fewer than {batches[0]} samples a rank was not measured: it is on "
            f"the line through {batches[0]} and {batches[1]}."
        )


def _network(model: Model, network: Network | None, sizes: Sequence[Size]) -> Iterator[str]:
    if network is not None:
        yield (
            f"Between nodes every hop of the ring is taken to be as {network.said} says, or as "
            "slow as the measured ring within a node if that is slower; the constant of an "
            "operation stays as measured."
        )
    crosses = any(nodes > 1 for _, nodes in sizes)
    if network is not None and crosses and network.latency_s is not None:
        return
    between_counts = {ranks for (ranks, nodes) in model.inputs.ops if nodes > 1}
    in_node_counts = {ranks for (ranks, nodes) in model.inputs.ops if nodes == 1}
    if len((between_counts if crosses else ()) or in_node_counts or between_counts) == 1:
        yield (
            "All-reduces were measured on one number of ranks only, which cannot tell the latency "
            "of a hop from what every operation takes: hops are taken to have none, so many ranks "
            "look better than they are; give it, as in --network 100Gbit,5us, or measure more."
        )


def _steps(model: Model, engine: BenchEngine) -> Iterator[str]:
    if model.overlap.is_least:
        yield (
            "All communication was hidden that can be, or was too short to tell, so more might be "
            "on a slower network: the prediction takes what was seen, and its fast end takes all "
            "of the backward pass."
        )
    if model.overlap.unexplained_s > _UNEXPLAINED * float(model.inputs.step_alone_s[0]):
        yield (
            f"A measured step took {1e3 * model.overlap.unexplained_s:.2f} ms more than all its "
            "messages one after another explain: they are slower beside training than by "
            "themselves, or the engine costs something else. The model adds the median of that to "
            "every step."
        )
    if engine.program_engine == "horovod":
        yield (
            "Plain Horovod sends gradients together that are ready together: counted one by one, "
            "as here, they pay a network's latency more often."
        )
