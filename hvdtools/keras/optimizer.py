"""`prepare()`: makes a Keras optimizer average its gradients over ranks.

Three methods of the optimizer instance are replaced. Its class does not change, so it
compiles, saves, loads and is subclassed as before, and a saved model contains nothing of
hvdtools.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeVar

import keras
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.keras.batch_norm import patch_batch_norm
from hvdtools.tensorflow.gradients import BUCKET_MIB, average_gradients
from hvdtools.tensorflow.session import require_started

PreparedT = TypeVar("PreparedT")
_ATTRIBUTE = "_hvdtools_averaging"
_numbers = itertools.count()


def prepare(
    target: PreparedT, *, bucket_mib: float = BUCKET_MIB, sparse_as_dense: bool = False
) -> PreparedT:
    """Let an optimizer average its gradients over ranks, in place. Call it on every rank.

    It returns the same object, of the same class: it compiles, saves, loads and is
    subclassed as before, and a saved model contains nothing of hvdtools. Gradients are
    averaged before anything else is done with them, so `clipnorm`, `global_clipnorm` and
    `clipvalue` clip the average. A `LossScaleOptimizer` around it, also Keras' own under
    mixed_float16, checks the average for inf and NaN: all ranks skip a step or none does.
    With `gradient_accumulation_steps` gradients are sent in the last of those steps (with
    loss scaling in each). `callbacks()` makes the initial weights equal.

    Afterwards `BatchNormalization(synchronized=True)` takes its statistics over the
    batches of all ranks, in every call with `training=True` and without a mask: all ranks
    must make that call. Other batch-norm layers use and keep the statistics of their
    rank's batches, which is faster and trains a different model.

    Args:
        target: A Keras optimizer that has not been used; or a compiled model, such as
            one loaded from a file: its optimizer is prepared, and its next step is
            traced again.
        bucket_mib: Dense gradients are sent in buckets of about this size.
        sparse_as_dense: Convert sparse gradients (of embeddings) to dense ones first;
            otherwise they stay sparse, with the rows of all ranks.

    Raises:
        HvdtoolsError: `target` is neither, is prepared already, is an optimizer
            that is built already, or is used under a `tf.distribute` strategy.
    """
    require_started("prepare()")
    optimizer = _optimizer_of(target)
    if averaging_of(optimizer) is not None:
        raise HvdtoolsError("This optimizer is prepared already: call prepare() once for it.")
    if tf.distribute.has_strategy():
        raise HvdtoolsError(
            "prepare() was called under a tf.distribute strategy, which averages gradients "
            "itself: use only one of the two."
        )
    if not bucket_mib > 0:
        raise HvdtoolsError(f"prepare(bucket_mib={bucket_mib!r}) must be more than 0.")
    _attach(optimizer, Averaging(bucket_mib, sparse_as_dense))
    patch_batch_norm()
    if isinstance(target, keras.Model):
        disable_xla(target)
        target.train_function = None  # a step traced before would not average
    return target


def _optimizer_of(target: Any) -> Any:
    if isinstance(target, keras.Model):
        if not target.compiled or target.optimizer is None:
            raise HvdtoolsError(
                "prepare() got a model that is not compiled: prepare the optimizer, and compile "
                "the model with it."
            )
        return target.optimizer
    if not isinstance(target, keras.optimizers.Optimizer):
        raise HvdtoolsError(
            f"prepare() got {target!r}: give it a Keras optimizer such as "
            "keras.optimizers.Adam(1e-3), or a compiled model."
        )
    if target.built or innermost(target).built:
        raise HvdtoolsError(
            "prepare() got an optimizer that is built already, and a step traced with it would "
            "not average: prepare it before its first use, or give prepare() the compiled model."
        )
    return target


class Averaging:
    """How one optimizer averages its gradients and scales its learning rate.

    Args:
        bucket_mib, sparse_as_dense: As in `average_gradients`.
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
        self.done_by_wrapper = False

    def mean(self, gradients: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
        """The gradients averaged over ranks."""
        return average_gradients(gradients, variables, self._label, **self._options)

    def scale(self, rate: Any, iterations: Any) -> Any:
        """The learning rate for the next step, after `iterations` optimizer steps.

        After k of W warm-up steps the factor is ``1 + (factor - 1) * k / W``
        (Goyal et al. 2017, arXiv 1706.02677, section 2.2).
        """
        rate = tf.convert_to_tensor(rate)
        if not self.warmup_steps:
            return rate * tf.cast(self.factor, rate.dtype)
        progress = tf.minimum(tf.cast(iterations, rate.dtype) / self.warmup_steps, 1)
        return rate * (1 + (self.factor - 1) * progress)

    @contextmanager
    def step(self) -> Iterator[None]:
        """While a step runs or is traced."""
        self.in_step = True
        try:
            yield
        finally:
            self.in_step = False

    @contextmanager
    def averaged_by_wrapper(self) -> Iterator[None]:
        """While the optimizer gets gradients that a `LossScaleOptimizer` has averaged."""
        self.done_by_wrapper = True
        try:
            yield
        finally:
            self.done_by_wrapper = False


def innermost(optimizer: Any) -> Any:
    """The optimizer inside loss-scaling ones."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def averaging_of(optimizer: Any) -> Averaging | None:
    """The `Averaging` of a prepared optimizer; None if it is not prepared."""
    return getattr(innermost(optimizer), _ATTRIBUTE, None)


def _attach(optimizer: Any, averaging: Averaging) -> None:
    """Let the optimizer average from now on; steps traced before do not."""
    inner = innermost(optimizer)
    setattr(inner, _ATTRIBUTE, averaging)
    for method in (apply, _clip_gradients, _get_current_learning_rate):
        setattr(inner, method.__name__, MethodType(method, inner))
    _patch_loss_scaling()


def apply(self: Any, grads: Sequence[Any], trainable_variables: Any = None) -> None:
    """`Optimizer.apply`, with the gradients averaged first."""
    averaging: Averaging = getattr(self, _ATTRIBUTE)
    variables = _variables(self, trainable_variables)
    lengths_match = grads and len(grads) == len(variables)  # otherwise Keras raises
    # An optimizer that accumulates averages the accumulated sum, in `_clip_gradients`.
    later = averaging.done_by_wrapper or self.gradient_accumulation_steps
    if lengths_match and not later:
        grads = averaging.mean(list(grads), variables)
    with averaging.step():
        type(self).apply(self, grads, trainable_variables)


def _clip_gradients(self: Any, grads: Sequence[Any]) -> Any:
    """`Optimizer._clip_gradients`, which Keras calls with the accumulated gradients."""
    averaging: Averaging = getattr(self, _ATTRIBUTE)
    if self.gradient_accumulation_steps and not averaging.done_by_wrapper:
        grads = averaging.mean(list(grads), grads)
    return type(self)._clip_gradients(self, grads)


def _get_current_learning_rate(self: Any) -> Any:
    """The scaled rate during a step; otherwise the unscaled one, so that callbacks and saved
    models see and set the rate of a single rank."""
    rate = type(self)._get_current_learning_rate(self)
    averaging: Averaging = getattr(self, _ATTRIBUTE)
    if not averaging.in_step or averaging.factor == 1:
        return rate
    return averaging.scale(rate, self.iterations)


def _variables(optimizer: Any, given: Any) -> list[Any]:
    return list(optimizer._trainable_variables if given is None else given)


@functools.cache
def _patch_loss_scaling() -> None:
    """Let `LossScaleOptimizer` average before it checks for inf and NaN.

    Keras wraps the optimizer itself, in `compile()` of a mixed_float16 model. If a
    wrapper's own gradients are not finite, it does not call the optimizer inside: the
    other ranks would wait for it. This patches a class of Keras, and has an effect only
    on wrappers of prepared optimizers.
    """
    original = keras.optimizers.LossScaleOptimizer.apply

    @functools.wraps(original)
    def average_first(self: Any, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        averaging = averaging_of(self)
        if averaging is None or not grads:
            original(self, grads, trainable_variables)
            return
        grads = averaging.mean(list(grads), _variables(self, trainable_variables))
        with averaging.averaged_by_wrapper():
            original(self, grads, trainable_variables)

    keras.optimizers.LossScaleOptimizer.apply = average_first


_xla_logged: list[bool] = []


def disable_xla(model: Any) -> None:
    """Turn off `jit_compile`, since XLA has no Horovod operations; logged once."""
    if not model.jit_compile:
        return
    model.jit_compile = False
    if not _xla_logged:
        _xla_logged.append(True)
        logger.info("XLA is off (jit_compile=False): it has no Horovod operations")
