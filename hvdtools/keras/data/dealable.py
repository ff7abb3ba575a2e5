"""Can a tf.data.Dataset be dealt out?"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.data.chain import INFINITE, UNKNOWN, Chain, is_batched_within
from hvdtools.keras.data.weights import require_weighable


def require_dealable(dataset: Any, chain: Chain, uneven: str) -> None:
    """Raise if no part of it can be made.

    Raises:
        HvdtoolsError: Says why, and what to do.
    """
    if chain.samples == UNKNOWN:
        raise HvdtoolsError(
            "shard() must know the number of samples, and this dataset does not (a generator, a "
            "reader of files or a filter makes it): put "
            ".apply(tf.data.experimental.assert_cardinality(n)) before its batch()."
        )
    if chain.samples == 0:
        raise HvdtoolsError("shard() got an empty dataset.")
    specs = tf.nest.flatten(dataset.element_spec)
    repeats = uneven in ("pad", "weighted") and chain.samples != INFINITE
    if chain.batches is None:
        _require_no_hidden_batches(dataset, specs)
        _require_elements(specs, uneven, repeats=repeats)
        return
    if uneven == "weighted":
        require_weighable(dataset.element_spec)
    _require_rows(specs, padded=chain.batches.padded, mapped=chain.batches.mapped)
    if repeats and not all(isinstance(spec, tf.TensorSpec) for spec in specs):
        raise HvdtoolsError(
            f"uneven={uneven!r} repeats rows of dense tensors only, and some are ragged: use "
            '"drop" or "ragged".'
        )


def _require_no_hidden_batches(dataset: Any, specs: list[Any]) -> None:
    """Batches behind a zip() or a concatenate() would be dealt as if they were samples."""
    shapes = [getattr(spec, "shape", tf.TensorShape(None)) for spec in specs]
    lengths_differ = all(shape.rank and shape[0] is None for shape in shapes)
    if lengths_differ and is_batched_within(dataset):
        raise HvdtoolsError(
            "shard() cannot see through what follows batch() here (a zip, a concatenate, an "
            "enumerate ...): call batch() after it, or shard() before it."
        )


def _require_elements(specs: list[Any], uneven: str, *, repeats: bool) -> None:
    if uneven == "weighted":
        raise HvdtoolsError(
            'uneven="weighted" weighs batches, and the elements of this dataset are samples (or '
            "what follows its batch() hides that): call shard() right after batch()."
        )
    if repeats and not all(_is_fixed(spec, 0) for spec in specs):
        raise HvdtoolsError(
            'uneven="pad" repeats elements of one shape, known in advance: put a map() with '
            'tf.ensure_shape() before shard(), or use "drop" or "ragged".'
        )


def _require_rows(specs: list[Any], *, padded: bool, mapped: bool) -> None:
    for spec in specs:
        if not isinstance(spec, tf.TensorSpec | tf.RaggedTensorSpec):
            raise HvdtoolsError(
                f"shard() cannot cut batches of {spec.value_type.__name__}s: call shard() before "
                "batch()."
            )
    if any(spec.shape.rank == 0 for spec in specs):
        raise HvdtoolsError(
            "shard() deals out the rows of batches, and a part of these batches has none (it is "
            "a single value): add that part after shard()."
        )
    if padded and not all(_is_fixed(spec, 1) for spec in specs):
        raise HvdtoolsError(
            "shard() would have to join rows that padded_batch() filled to different lengths: "
            "call shard() before padded_batch(), or give that its padded_shapes."
        )
    if mapped and any(_varies(spec) for spec in specs):
        raise HvdtoolsError(
            "shard() would have to join rows that a map() after batch() may make of different "
            "lengths: call shard() before batch(), or give the rows one length."
        )


def _varies(spec: Any) -> bool:
    """True for dense batches whose rows have an axis of unknown length."""
    return (
        isinstance(spec, tf.TensorSpec) and spec.shape.rank is not None and None in spec.shape[1:]
    )


def _is_fixed(spec: Any, first_axis: int) -> bool:
    """True for dense tensors whose shape is known from `first_axis` on."""
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None:
        return False
    return bool(spec.shape[first_axis:].is_fully_defined())
