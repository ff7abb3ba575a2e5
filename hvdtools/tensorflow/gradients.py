"""Gradients averaged over ranks in few all-reduces, eagerly or within a tf.function."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import horovod.tensorflow as hvd
import tensorflow as tf

from hvdtools.tensorflow import named

BUCKET_MIB = 25


@dataclass(frozen=True)
class _Place:
    """A dense gradient's place in the list, its shape, and the dtype it has and travels in."""

    number: int
    shape: tuple[int, ...]
    dtype: Any
    sent_as: Any

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def average_gradients(
    gradients: Sequence[Any],
    variables: Sequence[Any],
    label: str,
    *,
    bucket_mib: float = BUCKET_MIB,
    sparse_as_dense: bool = False,
) -> list[Any]:
    """The mean of each gradient over ranks. Every rank calls it, for the same variables.

    Dense gradients are laid one behind the other into buckets, the last layers'
    first, and each bucket is one all-reduce that starts when its gradients are
    there. Sparse ones (`tf.IndexedSlices`) stay sparse: the ranks' rows are laid
    one behind the other, as those of one process on the joined batch would be.

    Args:
        gradients: One for each variable: a tensor, `tf.IndexedSlices`, or None
            for a variable that the loss did not touch. Each of the same kind on
            every rank: a sparse one that another rank lacks is waited for.
        variables: What the gradients are of: with a shape, a dtype and a name.
        label: Names the all-reduces; the same on every rank, another for
            another optimizer.
        bucket_mib: The size from which on a bucket is full.
        sparse_as_dense: Make sparse gradients dense first.

    Raises:
        HvdtoolsError: Within a function that XLA compiles, which has no
            Horovod operations.
        tf.errors.InvalidArgumentError: When it runs: some ranks have a dense
            gradient for a variable, and others None.
    """
    given = [_dense_if(gradient, sparse_as_dense) for gradient in gradients]
    if hvd.size() == 1:
        return given
    averaged: list[Any] = list(given)
    places = [
        _place(number, gradient, variable)
        for number, (gradient, variable) in enumerate(zip(given, variables, strict=True))
        if not isinstance(gradient, tf.IndexedSlices)
    ]
    buckets = _buckets(list(reversed(places)), bucket_mib * 2**20)
    for number, bucket in enumerate(buckets):
        for place, mean in _mean_of_bucket(given, bucket, variables, f"{label}_{number}"):
            averaged[place.number] = mean
    for number, gradient in enumerate(given):
        if isinstance(gradient, tf.IndexedSlices):
            averaged[number] = _mean_of_rows(gradient, f"{label}_rows_{number}")
    return averaged


def _dense_if(gradient: Any, wanted: bool) -> Any:
    if wanted and isinstance(gradient, tf.IndexedSlices):
        return tf.convert_to_tensor(gradient)
    return gradient


def _place(number: int, gradient: Any, variable: Any) -> _Place:
    dtype = tf.as_dtype(variable.dtype if gradient is None else gradient.dtype)
    # Horovod's TensorFlow operations have no bfloat16.
    sent_as = tf.float32 if dtype == tf.bfloat16 else dtype
    return _Place(number, tuple(variable.shape), dtype, sent_as)


def _buckets(places: Sequence[_Place], full_bytes: float) -> list[list[_Place]]:
    """The places in their order, one dtype to a bucket."""
    buckets: list[list[_Place]] = []
    open_of: dict[Any, tuple[list[_Place], int]] = {}
    for place in places:
        bucket, size_bytes = open_of.get(place.sent_as, ([], 0))
        if not bucket:
            buckets.append(bucket)
        bucket.append(place)
        size_bytes += place.elements * place.sent_as.size
        open_of[place.sent_as] = ([], 0) if size_bytes >= full_bytes else (bucket, size_bytes)
    return buckets


def _mean_of_bucket(
    gradients: Sequence[Any], bucket: Sequence[_Place], variables: Sequence[Any], name: str
) -> list[tuple[_Place, Any]]:
    held = [gradients[place.number] for place in bucket]
    rows = [
        tf.zeros([place.elements], place.sent_as)
        if gradient is None
        else tf.reshape(tf.cast(gradient, place.sent_as), [place.elements])
        for place, gradient in zip(bucket, held, strict=True)
    ]
    # Behind the gradients, one number each: is there one? Its mean is 0 or 1, or ranks differ.
    present = tf.constant([float(g is not None) for g in held], bucket[0].sent_as)
    kept = tf.cast(_never_constant().read_value()[None], present.dtype)
    mean = named.allreduce(tf.concat([*rows, present, kept], 0), hvd.Average, name)
    *parts, everywhere, _ = tf.split(mean, [*(p.elements for p in bucket), len(bucket), 1])
    names = [_name(variables[place.number], place.number) for place in bucket]
    with tf.control_dependencies([_agreed(everywhere, present, names)]):
        return [
            (place, None if gradient is None else _restored(part, place))
            for place, part, gradient in zip(bucket, parts, held, strict=True)
        ]


@functools.cache
def _never_constant() -> Any:
    """A variable that rides along: TensorFlow runs an operation on constants (the gradients of
    a linear loss) once, when it traces, and ranks that trace at other times would wait."""
    with tf.init_scope():
        return tf.Variable(0.0, trainable=False, name="hvdtools_never_constant")


def _restored(part: Any, place: _Place) -> Any:
    return tf.cast(tf.reshape(part, place.shape), place.dtype)


def _name(variable: Any, number: int) -> str:
    for attribute in ("path", "name"):  # a Keras variable's, a tf.Variable's
        name = getattr(variable, attribute, None)
        if isinstance(name, str):
            return name
    return f"number {number}"


def _agreed(everywhere: Any, present: Any, names: Sequence[str]) -> Any:
    """Fails where a rank has a gradient that another lacks."""
    apart = tf.abs(everywhere - present) > 0.5 / hvd.size()  # a mean of ones may be 1 - 1e-7
    return tf.debugging.Assert(
        tf.logical_not(tf.reduce_any(apart)),
        [
            "Some ranks have a gradient for these variables and others have none; let the loss "
            "touch them on every rank, if only times 0:",
            tf.boolean_mask(tf.constant(list(names)), apart),
        ],
        summarize=8,
    )


def _mean_of_rows(gradient: Any, name: str) -> Any:
    values, dtype = gradient.values, gradient.values.dtype
    sent = tf.cast(values, tf.float32) if dtype == tf.bfloat16 else values
    rows = named.allgather(sent / hvd.size(), f"{name}_values")
    indices = named.allgather(gradient.indices, f"{name}_indices")
    return tf.IndexedSlices(tf.cast(rows, dtype), indices, gradient.dense_shape)
