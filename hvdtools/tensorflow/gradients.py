"""Gradients averaged over ranks in few all-reduces, eagerly or in a `tf.function`."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import horovod.tensorflow as hvd
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow import named_collectives
from hvdtools.tensorflow.session import require_started

BUCKET_MIB = 25
# Shared by all tapes: their all-reduces are numbered within a traced function.
_TAPE_LABEL = "hvdtools_tape"


class GradientTape(tf.GradientTape):
    """`tf.GradientTape` with a `gradient()` that returns the averages over all ranks.

    For a custom loop, eagerly or in a `tf.function`, with an optimizer that is not
    prepared. Every rank must take the gradients of the same variables equally often.
    For gradients of gradients use the plain tape inside.

    Args:
        persistent, watch_accessed_variables: As in `tf.GradientTape`.
        bucket_mib: Gradients are sent in buckets of about this size.
        sparse_as_dense: Convert sparse gradients (of embeddings) to dense ones first;
            otherwise they stay sparse, with the rows of all ranks.

    Raises:
        HvdtoolsError: `init()` was not called. From `gradient()`: a source is not a
            variable, or XLA compiles the step.
    """

    def __init__(
        self,
        persistent: bool = False,
        watch_accessed_variables: bool = True,
        *,
        bucket_mib: float = BUCKET_MIB,
        sparse_as_dense: bool = False,
    ) -> None:
        require_started("GradientTape()")
        super().__init__(persistent, watch_accessed_variables)
        self._bucket_mib, self._sparse_as_dense = bucket_mib, sparse_as_dense

    def gradient(self, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
        """As `tf.GradientTape.gradient`, averaged over ranks.

        Args:
            sources: A variable, or any structure of variables.

        Returns:
            The same structure: a tensor, `tf.IndexedSlices` or None for each variable.
        """
        flat = tf.nest.flatten(sources)
        if not all(_is_variable(source) for source in flat):
            raise HvdtoolsError(
                "hvt.GradientTape averages the gradients of variables, and a source is not a "
                "variable: take gradients by inputs from tf.GradientTape."
            )
        own = super().gradient(target, sources, *args, **kwargs)
        means = self._average_in_order(tf.nest.flatten(own), flat)
        return tf.nest.pack_sequence_as(sources, means)

    def _average_in_order(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """The averages, computed after those that the script requested before.

        Two functions called by a third may run in parallel, and their tapes'
        all-reduces may have the same name.
        """
        options: dict[str, Any] = {
            "bucket_mib": self._bucket_mib,
            "sparse_as_dense": self._sparse_as_dense,
        }
        if tf.executing_eagerly() or hvd.size() == 1:
            return average_gradients(gradients, variables, _TAPE_LABEL, **options)
        with tf.control_dependencies([_order().read_value()]):
            ordered = [None if g is None else _identity(g) for g in gradients]
        means = average_gradients(ordered, variables, _TAPE_LABEL, **options)
        flat = tf.nest.flatten(means, expand_composites=True)
        with tf.control_dependencies([tensor for tensor in flat if tensor is not None]):
            _order().assign_add(1, read_value=False)
        return means


def _identity(gradient: Any) -> Any:
    return tf.nest.map_structure(tf.identity, gradient, expand_composites=True)


@functools.cache
def _order() -> Any:
    """TensorFlow keeps the order of reads and writes of a variable, across functions too."""
    with tf.init_scope():
        return tf.Variable(0, trainable=False, dtype=tf.int64, name="hvdtools_tape_order")


def _is_variable(source: Any) -> bool:
    """True for a tf.Variable and for a Keras variable, which holds one."""
    return isinstance(source, tf.Variable) or isinstance(
        getattr(source, "value", None), tf.Variable
    )


@dataclass(frozen=True)
class _DenseGradient:
    """A dense gradient's index in the list, its shape, its dtype and the dtype it is sent in."""

    index: int
    shape: tuple[int, ...]
    dtype: Any
    sent_dtype: Any

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

    Dense gradients are concatenated into buckets, those of the last layers first. Each
    bucket is one all-reduce, which starts when its gradients are ready. Sparse ones
    (`tf.IndexedSlices`) stay sparse: the ranks' rows are concatenated, as in one process
    with the combined batch.

    Args:
        gradients: One for each variable: a tensor, `tf.IndexedSlices`, or None
            for a variable that the loss does not use. Each of the same kind on every
            rank: the job hangs if some ranks have a sparse one and others do not.
        variables: The variables of the gradients, each with shape, dtype and name.
        label: Names the all-reduces; the same on every rank, different for each
            optimizer.
        bucket_mib: A bucket is full from this size on.
        sparse_as_dense: Convert sparse gradients to dense ones first.

    Raises:
        HvdtoolsError: In a function that XLA compiles, which has no Horovod operations.
        tf.errors.InvalidArgumentError: When it runs: some ranks have a dense
            gradient for a variable, and others None.
    """
    given = [
        tf.convert_to_tensor(gradient)
        if sparse_as_dense and isinstance(gradient, tf.IndexedSlices)
        else gradient
        for gradient in gradients
    ]
    if hvd.size() == 1:
        return given
    averaged: list[Any] = list(given)
    dense = [
        _describe(index, gradient, variable)
        for index, (gradient, variable) in enumerate(zip(given, variables, strict=True))
        if not isinstance(gradient, tf.IndexedSlices)
    ]
    buckets = _make_buckets(list(reversed(dense)), bucket_mib * 2**20)
    for number, bucket in enumerate(buckets):
        for each, mean in _average_bucket(given, bucket, variables, f"{label}_{number}"):
            averaged[each.index] = mean
    for index, gradient in enumerate(given):
        if isinstance(gradient, tf.IndexedSlices):
            averaged[index] = _average_rows(gradient, f"{label}_rows_{index}")
    return averaged


def _describe(index: int, gradient: Any, variable: Any) -> _DenseGradient:
    dtype = tf.as_dtype(variable.dtype if gradient is None else gradient.dtype)
    # Horovod's TensorFlow operations do not support bfloat16.
    sent_dtype = tf.float32 if dtype == tf.bfloat16 else dtype
    return _DenseGradient(index, tuple(variable.shape), dtype, sent_dtype)


def _make_buckets(
    gradients: Sequence[_DenseGradient], full_bytes: float
) -> list[list[_DenseGradient]]:
    """The gradients in their order, each bucket of one dtype."""
    buckets: list[list[_DenseGradient]] = []
    unfilled: dict[Any, tuple[list[_DenseGradient], int]] = {}  # one for each dtype
    for gradient in gradients:
        bucket, size_bytes = unfilled.get(gradient.sent_dtype, ([], 0))
        if not bucket:
            buckets.append(bucket)
        bucket.append(gradient)
        size_bytes += gradient.elements * gradient.sent_dtype.size
        is_full = size_bytes >= full_bytes
        unfilled[gradient.sent_dtype] = ([], 0) if is_full else (bucket, size_bytes)
    return buckets


def _average_bucket(
    gradients: Sequence[Any], bucket: Sequence[_DenseGradient], variables: Sequence[Any], name: str
) -> list[tuple[_DenseGradient, Any]]:
    held = [gradients[each.index] for each in bucket]
    flat = [
        tf.zeros([each.elements], each.sent_dtype)
        if gradient is None
        else tf.reshape(tf.cast(gradient, each.sent_dtype), [each.elements])
        for each, gradient in zip(bucket, held, strict=True)
    ]
    # After the gradients, 1 or 0 for each: is it there? Its mean is 0 or 1, or ranks differ.
    present = tf.constant([float(g is not None) for g in held], bucket[0].sent_dtype)
    variable = tf.cast(_not_constant().read_value()[None], present.dtype)
    sent = tf.concat([*flat, present, variable], 0)
    mean = named_collectives.allreduce(sent, hvd.Average, name)
    sizes = [each.elements for each in bucket]
    *parts, mean_present, _ = tf.split(mean, [*sizes, len(bucket), 1])
    names = [_variable_name(variables[each.index], each.index) for each in bucket]
    with tf.control_dependencies([_assert_agreement(mean_present, present, names)]):
        return [
            (each, None if g is None else tf.cast(tf.reshape(part, each.shape), each.dtype))
            for each, part, g in zip(bucket, parts, held, strict=True)
        ]


@functools.cache
def _not_constant() -> Any:
    """A variable that is sent along with each bucket.

    TensorFlow runs an operation on constants (such as the gradients of a linear loss) only
    once, when it traces; ranks that trace at other times would then wait forever.
    """
    with tf.init_scope():
        return tf.Variable(0.0, trainable=False, name="hvdtools_not_constant")


def _variable_name(variable: Any, index: int) -> str:
    for attribute in ("path", "name"):  # of a Keras variable, of a tf.Variable
        name = getattr(variable, attribute, None)
        if isinstance(name, str):
            return name
    return f"number {index}"


def _assert_agreement(mean_present: Any, present: Any, names: Sequence[str]) -> Any:
    """Fails if a rank has a gradient that another does not have."""
    differs = tf.abs(mean_present - present) > 0.5 / hvd.size()  # a mean of ones may be 1 - 1e-7
    return tf.debugging.Assert(
        tf.logical_not(tf.reduce_any(differs)),
        [
            "Some ranks have a gradient for these variables and others have none; let the loss "
            "use them on every rank, if only times 0:",
            tf.boolean_mask(tf.constant(list(names)), differs),
        ],
        summarize=8,
    )


def _average_rows(gradient: Any, name: str) -> Any:
    values, dtype = gradient.values, gradient.values.dtype
    sent = tf.cast(values, tf.float32) if dtype == tf.bfloat16 else values
    rows = named_collectives.allgather(sent / hvd.size(), f"{name}_values")
    indices = named_collectives.allgather(gradient.indices, f"{name}_indices")
    return tf.IndexedSlices(tf.cast(rows, dtype), indices, gradient.dense_shape)
