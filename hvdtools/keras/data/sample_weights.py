"""Sample weights with which Keras' means over the ranks' batches add up to the global mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from hvdtools.core.errors import HvdtoolsError


def sample_weight(size: int, rows: int, total: int) -> float:
    """The weight of each real sample in a rank's batch.

    Keras' loss is ``sum(weight * loss) / rows`` on each rank (reduction
    "sum_over_batch_size"), and its gradients are averaged over ranks. With
    ``size * rows / total`` the average is ``sum(loss) / total``.

    Args:
        size: Number of ranks.
        rows: Samples in this rank's batch, fillers included.
        total: Real samples in the batches of all ranks.
    """
    return size * rows / total


def require_weightable(element: Any) -> None:
    """Raise unless `element` (a batch, or the spec of one) can have sample weights."""
    if not isinstance(element, tuple | list) or len(element) not in (2, 3):
        name = type(element).__name__
        kind = f"{name} of {len(element)}" if isinstance(element, tuple | list) else name
        raise HvdtoolsError(
            'uneven="weighted" weights targets, so each batch must be (x, y) or (x, y, '
            f'sample_weight); it is a {kind}: use "drop", "pad" or "ragged".'
        )
    if len(element) == 2 or element[2] is None:
        weight_rank(element[1])


def weight_rank(targets: Any) -> int:
    """The number of axes of weights that Keras applies correctly to the losses of `targets`.

    Losses have the targets' shape or lack its last axis. Keras removes a last axis of
    length 1 from weights that have one axis more (`squeeze_or_expand_to_same_rank` in its
    loss.py), so the targets' own rank fits both. Weights with fewer axes would be
    broadcast over the wrong ones.

    Raises:
        HvdtoolsError: The targets' ranks need different weights.
    """
    ranks = {_rank(target) for target in keras.tree.flatten(targets)}
    if None in ranks or len(ranks - {1}) > 1 or (1 in ranks and max(ranks, default=1) > 2):
        raise HvdtoolsError(
            'uneven="weighted" cannot find one shape of weights for targets of '
            f"{sorted(map(str, ranks))} axes: give (x, y, sample_weight) with a weight for each."
        )
    return int(max(ranks, default=1))


def add_weights(
    batch: Sequence[Any], weights: Any, cast_like: Callable[[Any, Any], Any]
) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of a batch.

    Args:
        batch: (x, y), or (x, y, sample_weight), which is then multiplied.
        weights: One for each sample, shape [rows].
        cast_like: Casts its first argument to the dtype of its second.
    """
    inputs, targets, *given = batch
    if not given or given[0] is None:
        return inputs, targets, _with_axes(weights, weight_rank(targets))

    def multiply(own: Any) -> Any:
        return cast_like(own, weights) * _with_axes(weights, _rank(own))

    return inputs, targets, keras.tree.map_structure(multiply, given[0])


def _rank(array: Any) -> Any:
    """Its number of axes; None if unknown."""
    shape = array.shape
    return shape.rank if hasattr(shape, "rank") else len(shape)


def _with_axes(weights: Any, rank: int) -> Any:
    """Shape [rows, 1, ...] with `rank` axes."""
    return weights[(slice(None), *[None] * (rank - 1))]
