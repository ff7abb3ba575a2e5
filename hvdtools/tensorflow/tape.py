"""A gradient tape whose gradients are averages over ranks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from hvdtools.tensorflow.gradients import BUCKET_MIB, average_gradients
from hvdtools.tensorflow.session import require_started

# Of every tape: graphs tell two of them apart, and a retraced function must keep its names.
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
        own = super().gradient(target, sources, *args, **kwargs)
        flat = tf.nest.flatten(sources)
        means = average_gradients(
            tf.nest.flatten(own),
            flat,
            _LABEL,
            bucket_mib=self._bucket_mib,
            sparse_as_dense=self._sparse_as_dense,
        )
        return tf.nest.pack_sequence_as(sources, means)
