"""A gradient tape whose gradients are averages over ranks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import horovod.tensorflow as hvd
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow.gradients import BUCKET_MIB, average_gradients
from hvdtools.tensorflow.session import require_started

# Of every tape: they are counted within a traced function, which must keep its names.
_LABEL = "hvdtools_tape"


class GradientTape(tf.GradientTape):
    """`tf.GradientTape`, but `gradient()` returns the averages over all ranks.

    For a custom loop, eagerly or within a `tf.function`: the optimizer is then
    the plain one. Every rank must ask for the gradients of the same variables,
    as often as the others. Gradients of gradients are taken with the plain tape
    for the inner ones.

    Args:
        persistent, watch_accessed_variables: As `tf.GradientTape` has them.
        bucket_mib: Gradients travel in buckets of about this size.
        sparse_as_dense: Make sparse gradients (of embeddings) dense first;
            otherwise they stay sparse, with the rows of all ranks.

    Raises:
        HvdtoolsError: `init()` was not called. From `gradient()`: a source is no
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
            The same structure: a tensor, `tf.IndexedSlices` or None each.
        """
        flat = tf.nest.flatten(sources)
        if not all(_is_variable(source) for source in flat):
            raise HvdtoolsError(
                "hvt.GradientTape averages the gradients of variables, and a source is none: "
                "take gradients by inputs from tf.GradientTape."
            )
        own = super().gradient(target, sources, *args, **kwargs)
        means = self._means_in_turn(tf.nest.flatten(own), flat)
        return tf.nest.pack_sequence_as(sources, means)

    def _means_in_turn(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """The averages, after those that the script asked for before.

        Two functions called by a third run beside each other, and their tapes'
        all-reduces may have one name.
        """
        options: dict[str, Any] = {
            "bucket_mib": self._bucket_mib,
            "sparse_as_dense": self._sparse_as_dense,
        }
        if tf.executing_eagerly() or hvd.size() == 1:
            return average_gradients(gradients, variables, _LABEL, **options)
        with tf.control_dependencies([_turns().read_value()]):
            after = [None if g is None else _identity(g) for g in gradients]
        means = average_gradients(after, variables, _LABEL, **options)
        with tf.control_dependencies(_tensors(means)):
            _turns().assign_add(1, read_value=False)
        return means


def _tensors(gradients: Sequence[Any]) -> list[Any]:
    flat = tf.nest.flatten(gradients, expand_composites=True)
    return [tensor for tensor in flat if tensor is not None]


def _identity(gradient: Any) -> Any:
    return tf.nest.map_structure(tf.identity, gradient, expand_composites=True)


@functools.cache
def _turns() -> Any:
    """TensorFlow keeps the order of what reads and writes a variable, over functions too."""
    with tf.init_scope():
        return tf.Variable(0, trainable=False, dtype=tf.int64, name="hvdtools_turns")


def _is_variable(source: Any) -> bool:
    """A tf.Variable, or a Keras variable, which holds one."""
    return isinstance(source, tf.Variable) or isinstance(
        getattr(source, "value", None), tf.Variable
    )
