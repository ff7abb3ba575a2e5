"""How long a step computes on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hvdtools.bench.analysis.operations import Size
from hvdtools.bench.predict.scaling_inputs import Inputs


def compute_s(inputs: Inputs, place: int, size: Size) -> float:
    """Seconds of a step without communication, from those measured.

    Weak scaling: of as many ranks on a node, since they share its memory and clocks;
    between measured numbers along a line. Strong scaling: of the batch that a rank
    has, along a line as well, and below the smallest batch along the line through the
    smallest two, whose end at no samples is the fixed cost that they show. From a
    single batch it can only be proportional.
    """
    known = {each: float(seconds[place]) for each, seconds in sorted(inputs.ideal_s.items())}
    if inputs.scaling == "weak":
        # Fewest ranks last, so that one node counts where one and several are equally full.
        by_fullness = {_fullness(each): known[each] for each in sorted(known, reverse=True)}
        points = sorted(by_fullness.items())
        return _on_line(points, _fullness(size))
    points = sorted({inputs.batches[each]: known[each] for each in known}.items())
    batch = inputs.batches[1, 1] / size[0]
    smallest, at_smallest_s = points[0]
    if batch >= smallest:
        return _on_line(points, batch)
    slope = at_smallest_s / smallest
    if len(points) > 1:
        rise = (points[1][1] - at_smallest_s) / (points[1][0] - smallest)
        slope = min(max(rise, 0.0), slope)
    return at_smallest_s - slope * (smallest - batch)


def _fullness(size: Size) -> int:
    """Ranks on the fullest node."""
    return math.ceil(size[0] / size[1])


def _on_line(points: Sequence[tuple[int, float]], x: float) -> float:
    """Between the neighbours of x, whose values rise; at an end its value."""
    return float(np.interp(x, [each[0] for each in points], [each[1] for each in points]))
