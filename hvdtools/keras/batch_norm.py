"""Batch statistics over the batches of all ranks, for layers with `synchronized=True`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import horovod.tensorflow as hvd
import keras
import tensorflow as tf
from keras.src.backend.tensorflow import nn

from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow import named_collectives

_NAME = "hvdtools_batch_norm"
_local_moments = nn._compute_moments_sync


@functools.cache
def patch_batch_norm() -> None:
    """Let Keras' synchronized moments cover all ranks.

    Keras synchronizes only over a `tf.distribute` strategy, and without one silently
    uses the local batch's statistics. This replaces the function that computes the
    moments of layers with `synchronized=True`. With a mask Keras would still use local
    statistics, which raises here.
    """
    nn._compute_moments_sync = _global_moments
    original = keras.layers.BatchNormalization._moments

    @functools.wraps(original)
    def refuse_mask(self: Any, inputs: Any, mask: Any) -> Any:
        if self.synchronized and mask is not None and hvd.size() > 1:
            raise HvdtoolsError(
                f"The layer {self.name} is synchronized and gets a mask, with which Keras uses "
                "the local batch's statistics: remove the mask, or synchronized=True."
            )
        return original(self, inputs, mask)

    keras.layers.BatchNormalization._moments = refuse_mask


def _global_moments(x: Any, axes: Any, keepdims: bool) -> tuple[Any, Any]:
    """Mean and variance over `axes` and all ranks, by Keras' own formula E(x^2) - E(x)^2."""
    if hvd.size() == 1:
        return _local_moments(x, axes, keepdims)
    total = tf.reduce_sum(x, axes, keepdims=True)
    squares = tf.reduce_sum(tf.square(x), axes, keepdims=True)
    count = tf.cast(tf.size(x) / tf.size(total), x.dtype)
    flat = [tf.reshape(total, [-1]), tf.reshape(squares, [-1]), count[None]]
    elements = tf.size(total)
    sums = _sum_over_ranks(tf.concat(flat, 0))
    mean = tf.reshape(sums[:elements] / sums[-1], tf.shape(total))
    mean_of_squares = tf.reshape(sums[elements:-1] / sums[-1], tf.shape(total))
    variance = tf.maximum(mean_of_squares - tf.square(mean), 0)
    mean.set_shape(total.shape)
    variance.set_shape(total.shape)
    if keepdims:
        return mean, variance
    return tf.squeeze(mean, axes), tf.squeeze(variance, axes)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _sum_over_ranks(value: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The sum over ranks. Every rank's loss depends on it, so its gradient is a sum as well."""

    def gradient(upstream: Any) -> Any:
        return named_collectives.allreduce(upstream, hvd.Sum, f"{_NAME}_gradient")

    return named_collectives.allreduce(value, hvd.Sum, _NAME), gradient
