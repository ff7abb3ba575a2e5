"""What makes a Keras optimizer average its gradients: three methods of one instance.

The optimizer's class stays what it is, so that it compiles, saves, loads and is
subclassed as before, and nothing of hvdtools ends up in a saved model.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import keras
import tensorflow as tf

from hvdtools.tensorflow.gradients import average_gradients

_ATTRIBUTE = "_hvdtools_averaging"
_numbers = itertools.count()


class Averaging:
    """How the gradients of one optimizer are averaged, and how its learning rate is scaled.

    Args:
        bucket_mib, sparse_as_dense: As `average_gradients` has them.
    """

    def __init__(self, bucket_mib: float, sparse_as_dense: bool) -> None:
        self._options: dict[str, Any] = {
            "bucket_mib": bucket_mib,
            "sparse_as_dense": sparse_as_dense,
        }
        # Optimizers are prepared in the same order on every rank.
        self._label = f"hvdtools_optimizer_{next(_numbers)}"
        self.factor = 1.0
        self.warmup_steps = 0
        self.in_step = False
        self.averaged_before = False

    def mean(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """The gradients averaged over ranks."""
        return average_gradients(gradients, variables, self._label, **self._options)

    def scaled(self, rate: Any, iterations: Any) -> Any:
        """The learning rate to step with, after so many optimizer steps.

        After k of W steps of the warm-up the factor is ``1 + (factor - 1) * k / W``
        (Goyal et al. 2017, arXiv 1706.02677, section 2.2).
        """
        rate = tf.convert_to_tensor(rate)
        if not self.warmup_steps:
            return rate * tf.cast(self.factor, rate.dtype)
        part = tf.minimum(tf.cast(iterations, rate.dtype) / self.warmup_steps, 1)
        return rate * (1 + (self.factor - 1) * part)

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """While a step runs, or is traced."""
        self.in_step = True
        try:
            yield
        finally:
            self.in_step = False

    @contextmanager
    def by_the_wrapper(self) -> Iterator[None]:
        """While the optimizer gets gradients that its wrapper has averaged."""
        self.averaged_before = True
        try:
            yield
        finally:
            self.averaged_before = False


def innermost(optimizer: Any) -> Any:
    """The optimizer within loss-scaling ones."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def averaging_of(optimizer: Any) -> Averaging | None:
    """How a prepared optimizer averages; None for one that is not prepared."""
    return getattr(innermost(optimizer), _ATTRIBUTE, None)


def attach(optimizer: Any, averaging: Averaging) -> None:
    """Let the optimizer average from now on; steps that are traced already do not."""
    inner = innermost(optimizer)
    setattr(inner, _ATTRIBUTE, averaging)
    for method in (apply, _clip_gradients, _get_current_learning_rate):
        setattr(inner, method.__name__, MethodType(method, inner))
    _teach_loss_scaling()


def apply(self: Any, grads: Sequence[Any], trainable_variables: Any = None) -> None:
    """`Optimizer.apply`, with the gradients averaged before all that it does to them."""
    averaging: Averaging = getattr(self, _ATTRIBUTE)
    variables = _variables(self, trainable_variables)
    fit_together = grads and len(grads) == len(variables)  # otherwise Keras says so
    # An optimizer that accumulates sends what it has summed up, in `_clip_gradients`.
    later = averaging.averaged_before or self.gradient_accumulation_steps
    if fit_together and not later:
        grads = averaging.mean(list(grads), variables)
    with averaging.stepping():
        type(self).apply(self, grads, trainable_variables)


def _clip_gradients(self: Any, grads: Sequence[Any]) -> Any:
    """`Optimizer._clip_gradients`, which Keras calls with the accumulated gradients."""
    averaging: Averaging = getattr(self, _ATTRIBUTE)
    if self.gradient_accumulation_steps and not averaging.averaged_before:
        grads = averaging.mean(list(grads), grads)
    return type(self)._clip_gradients(self, grads)


def _get_current_learning_rate(self: Any) -> Any:
    """The scaled rate within a step; without it at all other times, so that callbacks and
    saved models see and set the rate of one rank."""
    rate = type(self)._get_current_learning_rate(self)
    averaging: Averaging = getattr(self, _ATTRIBUTE)
    if not averaging.in_step or averaging.factor == 1:
        return rate
    return averaging.scaled(rate, self.iterations)


def _variables(optimizer: Any, given: Any) -> list[Any]:
    return list(optimizer._trainable_variables if given is None else given)


@functools.cache
def _teach_loss_scaling() -> None:
    """Let `LossScaleOptimizer` average before it looks for inf and NaN.

    Keras wraps the optimizer by itself, in `compile()` of a mixed_float16 model,
    and where its own gradients are not finite a wrapper never calls the optimizer
    inside: the other ranks would wait for it. This changes a class of Keras, for
    wrappers of prepared optimizers alone.
    """
    plain = keras.optimizers.LossScaleOptimizer.apply

    @functools.wraps(plain)
    def averaging_first(self: Any, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        averaging = averaging_of(self)
        if averaging is None or not grads:
            plain(self, grads, trainable_variables)
            return
        grads = averaging.mean(list(grads), _variables(self, trainable_variables))
        with averaging.by_the_wrapper():
            plain(self, grads, trainable_variables)

    keras.optimizers.LossScaleOptimizer.apply = averaging_first
