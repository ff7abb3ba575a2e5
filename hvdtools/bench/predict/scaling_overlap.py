"""What measured steps say of an engine: how much communication it hides, and what else it costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.operations import Size
from hvdtools.bench.predict.alpha_beta import AlphaBeta
from hvdtools.bench.predict.scaling_compute import compute_s
from hvdtools.bench.predict.scaling_inputs import Inputs
from hvdtools.core.errors import HvdtoolsError

# What is left of communication beyond the last message, as a share of a step, that cannot be told
# from noise: then all was hidden that can be.
_ALL_HIDDEN = 0.01
# Communication shorter than this share of the backward pass would all be hidden by an engine that
# hides that much; what is exposed then is as likely something else that takes time.
_TOO_SHORT = 0.5


@dataclass(frozen=True)
class Overlap:
    """What was seen under an engine.

    Attributes:
        share: Of the backward pass that hides communication, 0 to 1.
        is_least: Whether it may be more: all was hidden that can be, or there was too
            little communication to tell.
        beside_s: What the engine adds to a step that is no communication: on one rank
            already (its hooks and copies), and what its all-reduces do not explain on more.
        unexplained_s: The most of the latter on any number of ranks.
    """

    share: float
    is_least: bool
    beside_s: float
    unexplained_s: float


def overlap_of(
    inputs: Inputs,
    place: int,
    in_node: AlphaBeta | None,
    between: AlphaBeta | None,
    allreduces_per_step: int,
) -> Overlap:
    """From each number of ranks the share that was hidden.

    Where some hid less than they could, the median of those; else the most that was seen.
    Without a training on more than one rank, none.

    Raises:
        HvdtoolsError: The training and the all-reduces ran in different places.
    """
    alone_s = float(inputs.step_alone_s[place]) - compute_s(inputs, place, (1, 1))
    own_s = max(alone_s, 0.0)
    if not inputs.trained_together:
        return Overlap(
            share=0.0, is_least=allreduces_per_step > 1, beside_s=own_s, unexplained_s=0.0
        )
    told: list[float] = []
    least: list[float] = []
    unexplained_s: list[float] = []
    for size in inputs.trained_together:
        cost = in_node if size[1] == 1 else between
        if cost is None:
            continue
        ideal_s, added_s = _added(inputs, place, size)
        last_s = cost.seconds(size[0], inputs.gradient_bytes / allreduces_per_step)
        all_s = cost.step_seconds(size[0], inputs.gradient_bytes, allreduces_per_step)
        backward_s = inputs.backward_share * ideal_s
        hidden_s = all_s - (added_s - own_s)
        share = min(max(hidden_s / backward_s, 0.0), 1.0)
        all_hidden = all_s - last_s - hidden_s <= _ALL_HIDDEN * ideal_s
        too_short = all_s - last_s < _TOO_SHORT * backward_s
        can_be_more = allreduces_per_step > 1 and share < 1 and (all_hidden or too_short)
        (least if can_be_more else told).append(share)
        unexplained_s.append(max(-hidden_s, 0.0))
    if not told and not least:
        raise unknown_cost(inputs.trained_together[0])
    return Overlap(
        share=float(np.median(told)) if told else max(least),
        is_least=not told,
        beside_s=own_s + float(np.median(unexplained_s)),
        unexplained_s=max(unexplained_s),
    )


def _added(inputs: Inputs, place: int, size: Size) -> tuple[float, float]:
    """Seconds of a measured step without communication, and what the engine adds to it."""
    if size in inputs.ratio:
        ideal_s = float(inputs.ideal_s[size][place])
        return ideal_s, ideal_s * (float(inputs.ratio[size][place]) - 1)
    ideal_s = compute_s(inputs, place, size)
    return ideal_s, float(inputs.engine_s[size][place]) - ideal_s


def unknown_cost(size: Size) -> HvdtoolsError:
    if size[1] == 1:
        return HvdtoolsError(
            "All-reduces were measured between nodes only, so nothing says what they cost within "
            "one: run allreduce.py on one node as well."
        )
    return HvdtoolsError(
        f"{size[0]} ranks are on {size[1]} nodes, and all-reduces were measured within one node "
        "only: say what connects the nodes, as in --network 100Gbit,5us, or run allreduce.py on "
        "several."
    )
