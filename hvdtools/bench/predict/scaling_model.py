"""The model of a training step on any number of ranks. METHOD.md has its formulas."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.bench.analysis.operations import Size
from hvdtools.bench.predict.alpha_beta import AlphaBeta, fit
from hvdtools.bench.predict.network import Network
from hvdtools.bench.predict.scaling_compute import compute_s
from hvdtools.bench.predict.scaling_inputs import Inputs
from hvdtools.bench.predict.scaling_overlap import Overlap, overlap_of, unknown_cost


@dataclass(frozen=True)
class Parts:
    """Seconds of a predicted step, middle values.

    Attributes:
        compute_s: Without any communication.
        communication_s: All of the step's all-reduces.
        hidden_s: What of it runs beside the backward pass.
        exposed_s: What is left of it, at least the last message.
        beside_s: What else the engine adds to a step, see `scaling_overlap.Overlap`.
    """

    compute_s: float
    communication_s: float
    hidden_s: float
    exposed_s: float
    beside_s: float

    @property
    def step_s(self) -> float:
        """The whole step."""
        return self.compute_s + self.exposed_s + self.beside_s


@dataclass(frozen=True)
class Model:
    """All that a step is predicted from, in one draw of the inputs.

    Attributes:
        inputs, place: Which draw.
        in_node, between_nodes: AlphaBeta of an all-reduce; None where it is not known.
        allreduces_per_step: All-reduces in a step.
        overlap: What the measured steps say beside that.
    """

    inputs: Inputs
    place: int
    in_node: AlphaBeta | None
    between_nodes: AlphaBeta | None
    allreduces_per_step: int
    overlap: Overlap

    def parts(self, size: Size) -> Parts:
        """The step on so many ranks and nodes.

        Raises:
            HvdtoolsError: Nothing says what an all-reduce costs there.
        """
        computing_s = compute_s(self.inputs, self.place, size)
        cost = self.in_node if size[1] == 1 else self.between_nodes
        if size[0] == 1:
            return Parts(float(self.inputs.step_alone_s[self.place]), 0.0, 0.0, 0.0, 0.0)
        if cost is None:
            raise unknown_cost(size)
        last_s = cost.seconds(size[0], self.inputs.gradient_bytes / self.allreduces_per_step)
        all_s = cost.step_seconds(size[0], self.inputs.gradient_bytes, self.allreduces_per_step)
        could_hide_s = self.overlap.share * self.inputs.backward_share * computing_s
        exposed_s = max(last_s, all_s - could_hide_s)
        beside_s = self.overlap.beside_s
        return Parts(computing_s, all_s, all_s - exposed_s, exposed_s, beside_s)


def model_of(
    inputs: Inputs,
    place: int,
    network: Network | None,
    ranks_per_node: int,
    allreduces_per_step: int,
) -> Model:
    """Fit all of it to one draw of the inputs.

    Raises:
        HvdtoolsError: The training and the all-reduces ran in different places.
    """
    in_node, between = (_fit(inputs, place, in_node=where) for where in (True, False))
    overlap = overlap_of(inputs, place, in_node, between, allreduces_per_step)
    if network is not None:
        between = _replaced(network, in_node, between, ranks_per_node)
    return Model(inputs, place, in_node, between, allreduces_per_step, overlap)


def _fit(inputs: Inputs, place: int, *, in_node: bool) -> AlphaBeta | None:
    timed = inputs.timed(place, in_node=in_node)
    return fit(timed) if timed else None


def _replaced(
    network: Network, in_node: AlphaBeta | None, between: AlphaBeta | None, ranks_per_node: int
) -> AlphaBeta | None:
    """The cost over the user's network: its two numbers, and the constant as measured.

    A ring over nodes passes each node's link once in each direction and is as fast
    as its slowest hop, which may also be one within a node.
    """
    measured = between or in_node
    if measured is None:
        return None
    bytes_per_s = network.bytes_per_s
    if in_node is not None and ranks_per_node > 1:
        bytes_per_s = min(bytes_per_s, in_node.bytes_per_s)
    alpha_s = measured.alpha_s if network.latency_s is None else network.latency_s
    return AlphaBeta(measured.constant_s, alpha_s, bytes_per_s, None)
