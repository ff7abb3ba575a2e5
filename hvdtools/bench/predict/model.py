"""The model of a training step on any number of ranks. METHOD.md has its formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.workloads import Size
from hvdtools.bench.predict.alpha_beta import AlphaBeta, fit
from hvdtools.bench.predict.inputs import Inputs
from hvdtools.bench.predict.network import Network
from hvdtools.core.errors import HvdtoolsError

# Exposed communication beyond the last message of less than this share of a step is noise:
# everything was hidden that can be.
_ALL_HIDDEN = 0.01
# An engine may hide all communication that is shorter than this share of the backward pass; what is
# exposed then is as likely another cost.
_TOO_SHORT = 0.5


@dataclass(frozen=True)
class StepParts:
    """Seconds of a predicted step.

    Attributes:
        compute_s: Without communication.
        communication_s: All of the step's all-reduces.
        hidden_s: How much of it overlaps with the backward pass.
        exposed_s: The rest of it, at least the last message.
        overhead_s: What else the engine adds to a step, see `Overlap`.
    """

    compute_s: float
    communication_s: float
    hidden_s: float
    exposed_s: float
    overhead_s: float

    @property
    def step_s(self) -> float:
        """The whole step."""
        return self.compute_s + self.exposed_s + self.overhead_s


@dataclass(frozen=True)
class Overlap:
    """How much communication an engine hides in the measured steps, and what else it costs.

    Attributes:
        share: Of the backward pass that hides communication, 0 to 1.
        is_lower_bound: Whether it may be more: everything was hidden that can be, or there
            was too little communication to tell.
        overhead_s: What the engine adds to a step besides communication: on one rank (its
            hooks and copies), and what its all-reduces do not explain on more.
        unexplained_s: The largest of the latter on any number of ranks.
    """

    share: float
    is_lower_bound: bool
    overhead_s: float
    unexplained_s: float


@dataclass(frozen=True)
class StepModel:
    """The model, fitted to one replicate of the inputs.

    Attributes:
        inputs, replicate: What it is fitted to.
        in_node, between_nodes: Cost of an all-reduce; None where it is not known.
        allreduces_per_step: All-reduces in a step.
        overlap: As seen in the measured steps.
    """

    inputs: Inputs
    replicate: int
    in_node: AlphaBeta | None
    between_nodes: AlphaBeta | None
    allreduces_per_step: int
    overlap: Overlap

    def step(self, size: Size) -> StepParts:
        """The step on a number of ranks and nodes.

        Raises:
            HvdtoolsError: The cost of an all-reduce is not known there.
        """
        if size[0] == 1:
            one_rank_s = float(self.inputs.one_rank_step_s[self.replicate])
            return StepParts(one_rank_s, 0.0, 0.0, 0.0, 0.0)
        cost = self.in_node if size[1] == 1 else self.between_nodes
        if cost is None:
            raise _unknown_cost(size)
        compute = compute_s(self.inputs, self.replicate, size)
        last_s, all_s = _communication_s(self.inputs, cost, size, self.allreduces_per_step)
        can_hide_s = self.overlap.share * self.inputs.backward_share * compute
        exposed_s = max(last_s, all_s - can_hide_s)
        return StepParts(compute, all_s, all_s - exposed_s, exposed_s, self.overlap.overhead_s)


def fit_model(
    inputs: Inputs,
    replicate: int,
    network: Network | None,
    ranks_per_node: int,
    allreduces_per_step: int,
) -> StepModel:
    """Fit the model to one replicate of the inputs; 0 is the measured values.

    Raises:
        HvdtoolsError: No all-reduce was measured where the engine trained.
    """
    in_node, between = (
        fit(timed) if (timed := inputs.timed_allreduces(replicate, in_node=where)) else None
        for where in (True, False)
    )
    overlap = _overlap(inputs, replicate, in_node, between, allreduces_per_step)
    if network is not None:
        between = _over_network(network, in_node, between, ranks_per_node)
    return StepModel(inputs, replicate, in_node, between, allreduces_per_step, overlap)


def _over_network(
    network: Network, in_node: AlphaBeta | None, between: AlphaBeta | None, ranks_per_node: int
) -> AlphaBeta | None:
    """The cost over the user's network: its latency and bandwidth, and the measured constant.

    A ring over nodes uses each node's link once in each direction and is as fast as its
    slowest hop, which may also be one within a node.
    """
    measured = between or in_node
    if measured is None:
        return None
    bytes_per_s = network.bytes_per_s
    if in_node is not None and ranks_per_node > 1:
        bytes_per_s = min(bytes_per_s, in_node.bytes_per_s)
    alpha_s = measured.alpha_s if network.latency_s is None else network.latency_s
    return AlphaBeta(measured.constant_s, alpha_s, bytes_per_s, None)


def compute_s(inputs: Inputs, replicate: int, size: Size) -> float:
    """Seconds of a step without communication on any size, from the measured sizes.

    Weak scaling: as measured with the same ranks per node, which share its memory and clocks;
    linear between measured numbers. Strong scaling: as measured with the same batch a rank,
    linear between measured batches; below the smallest, along the line through the smallest
    two, whose value at no samples is the fixed cost. One batch alone can only be proportional.
    """
    measured = {each: float(seconds[replicate]) for each, seconds in inputs.compute_s.items()}
    if inputs.scaling == "weak":
        # Where one node and several are equally full, the fewest ranks count: they come last.
        by_fullness = {_fullness(each): measured[each] for each in sorted(measured, reverse=True)}
        return _interpolate(sorted(by_fullness.items()), _fullness(size))
    by_batch = {inputs.batches[each]: measured[each] for each in sorted(measured)}
    points = sorted(by_batch.items())
    batch = inputs.batches[1, 1] / size[0]
    smallest, at_smallest_s = points[0]
    if batch >= smallest:
        return _interpolate(points, batch)
    slope = at_smallest_s / smallest
    if len(points) > 1:
        rise = (points[1][1] - at_smallest_s) / (points[1][0] - smallest)
        slope = min(max(rise, 0.0), slope)
    return at_smallest_s - slope * (smallest - batch)


def _fullness(size: Size) -> int:
    """Ranks on the fullest node."""
    return math.ceil(size[0] / size[1])


def _interpolate(points: Sequence[tuple[int, float]], x: float) -> float:
    """Linear between the neighbors of x (rising in `points`); beyond an end its value."""
    return float(np.interp(x, [each[0] for each in points], [each[1] for each in points]))


def _communication_s(
    inputs: Inputs, cost: AlphaBeta, size: Size, allreduces_per_step: int
) -> tuple[float, float]:
    """Seconds of a step's last all-reduce, and of all of them."""
    last_s = cost.seconds(size[0], inputs.gradient_bytes / allreduces_per_step)
    return last_s, cost.step_seconds(size[0], inputs.gradient_bytes, allreduces_per_step)


def _overlap(
    inputs: Inputs,
    replicate: int,
    in_node: AlphaBeta | None,
    between: AlphaBeta | None,
    allreduces_per_step: int,
) -> Overlap:
    """The share that was hidden: the median over the sizes that hide less than they could.

    Without such sizes it is the largest that was seen, a lower bound; without a training on
    more than one rank it is 0.

    Raises:
        HvdtoolsError: No all-reduce was measured where the engine trained.
    """
    alone_s = float(inputs.one_rank_step_s[replicate]) - compute_s(inputs, replicate, (1, 1))
    engine_s = max(alone_s, 0.0)
    if not inputs.distributed_sizes:
        return Overlap(0.0, allreduces_per_step > 1, engine_s, 0.0)
    exact: list[float] = []
    lower_bounds: list[float] = []
    unexplained_s: list[float] = []
    for size in inputs.distributed_sizes:
        cost = in_node if size[1] == 1 else between
        if cost is None:
            continue
        ideal_s, added_s = _added_s(inputs, replicate, size)
        last_s, all_s = _communication_s(inputs, cost, size, allreduces_per_step)
        backward_s = inputs.backward_share * ideal_s
        hidden_s = all_s - (added_s - engine_s)
        share = min(max(hidden_s / backward_s, 0.0), 1.0)
        all_hidden = all_s - last_s - hidden_s <= _ALL_HIDDEN * ideal_s
        too_short = all_s - last_s < _TOO_SHORT * backward_s
        can_be_more = allreduces_per_step > 1 and share < 1 and (all_hidden or too_short)
        (lower_bounds if can_be_more else exact).append(share)
        unexplained_s.append(max(-hidden_s, 0.0))
    if not exact and not lower_bounds:
        raise _unknown_cost(inputs.distributed_sizes[0])
    return Overlap(
        share=float(np.median(exact)) if exact else max(lower_bounds),
        is_lower_bound=not exact,
        overhead_s=engine_s + float(np.median(unexplained_s)),
        unexplained_s=max(unexplained_s),
    )


def _added_s(inputs: Inputs, replicate: int, size: Size) -> tuple[float, float]:
    """Seconds of a measured step without communication, and what the engine adds to it."""
    if size in inputs.step_over_compute:
        ideal_s = float(inputs.compute_s[size][replicate])
        return ideal_s, ideal_s * (float(inputs.step_over_compute[size][replicate]) - 1)
    ideal_s = compute_s(inputs, replicate, size)
    return ideal_s, float(inputs.step_s[size][replicate]) - ideal_s


def _unknown_cost(size: Size) -> HvdtoolsError:
    if size[1] == 1:
        return HvdtoolsError(
            "All-reduces were measured between nodes only, so their cost within a node is not "
            "known: run allreduce.py on one node as well."
        )
    return HvdtoolsError(
        f"{size[0]} ranks are on {size[1]} nodes, and all-reduces were measured within one node "
        "only: describe the network between nodes, as in --network 100Gbit,5us, or run "
        "allreduce.py on several nodes."
    )
