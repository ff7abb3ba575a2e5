"""Sample weights that make Keras' mean over a rank's batch part of the mean over all ranks'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from hvdtools.core.errors import HvdtoolsError


def sample_weight(size: int, rows: int, together: int) -> float:
    """What each real sample of a rank's batch weighs.

    Keras' loss is ``sum(weight * loss) / rows`` on each rank (reduction
    "sum_over_batch_size"), and its gradients are averaged over ranks. With
    ``size * rows / together`` that makes ``sum(loss) / together``.

    Args:
        size: Number of ranks.
        rows: Samples in this rank's batch, stand-ins counted.
        together: Real samples in the batches of all ranks.
    """
    return size * rows / together


def require_weighable(element: Any) -> None:
    """Raise unless `element` (a batch, or the spec of one) can carry weights."""
    if not isinstance(element, tuple | list) or len(element) not in (2, 3):
        raise HvdtoolsError(
            'uneven="weighted" weighs targets, so each batch must be (x, y) or (x, y, '
            f'sample_weight); it is a {_in_words(element)}: use "drop", "pad" or "ragged".'
        )
    if len(element) == 2 or element[2] is None:
        weight_rank(element[1])


def _in_words(element: Any) -> str:
    name = type(element).__name__
    return f"{name} of {len(element)}" if isinstance(element, tuple | list) else name


def weight_rank(targets: Any) -> int:
    """The rank of weights that Keras spreads rightly over the losses of `targets`.

    Losses have the targets' shape or lack its last axis. Keras takes a last
    axis of 1 off weights that have one axis more (`squeeze_or_expand_to_same_rank`
    in its loss.py), so the targets' own rank fits both. Fewer axes would be
    spread over the wrong ones.

    Raises:
        HvdtoolsError: Targets of one model whose ranks ask for different weights.
    """
    ranks = {_rank(target) for target in keras.tree.flatten(targets)}
    if None in ranks or len(ranks - {1}) > 1 or (1 in ranks and max(ranks, default=1) > 2):
        raise HvdtoolsError(
            'uneven="weighted" cannot find one shape of weights that fits targets of '
            f"{sorted(map(str, ranks))} axes: give (x, y, sample_weight) with a weight for each."
        )
    return int(max(ranks, default=1))


def weighted(
    batch: Sequence[Any], weights: Any, to_dtype: Callable[[Any, Any], Any]
) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of a batch.

    Args:
        batch: (x, y), or (x, y, sample_weight): then the weights are multiplied.
        weights: Of each sample, shape [rows].
        to_dtype: Makes sample weights of the user's ones of the other's dtype.
    """
    inputs, targets, *given = batch
    if not given or given[0] is None:
        return inputs, targets, _with_axes(weights, weight_rank(targets))

    def multiplied(own: Any) -> Any:
        return to_dtype(own, weights) * _with_axes(weights, _rank(own))

    return inputs, targets, keras.tree.map_structure(multiplied, given[0])


def _rank(array: Any) -> Any:
    """Its number of axes; None where that is not known."""
    shape = array.shape
    return shape.rank if hasattr(shape, "rank") else len(shape)


def _with_axes(weights: Any, rank: int) -> Any:
    """Shape [rows, 1, ...] with `rank` axes."""
    return weights[(slice(None), *[None] * (rank - 1))]
