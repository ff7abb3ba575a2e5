"""Make a Keras optimizer average its gradients over ranks."""

from __future__ import annotations

from typing import Any, TypeVar

import keras
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.averaging import Averaging, attach, averaging_of, innermost
from hvdtools.keras.batch_norm import teach_batch_norm
from hvdtools.keras.xla import turn_off_xla
from hvdtools.tensorflow.gradients import BUCKET_MIB
from hvdtools.tensorflow.session import require_started

PreparedT = TypeVar("PreparedT")


def prepare(
    target: PreparedT, *, bucket_mib: float = BUCKET_MIB, sparse_as_dense: bool = False
) -> PreparedT:
    """Let an optimizer average its gradients over ranks, in place. Call it on every rank.

    The same object comes back, of the same class: it compiles, saves, loads and
    is subclassed as before, and a saved model knows nothing of hvdtools.
    Gradients are averaged before anything is done to them, so `clipnorm`,
    `global_clipnorm` and `clipvalue` clip the average. A `LossScaleOptimizer`
    around it, Keras' own under mixed_float16 too, sees the average when it
    looks for inf and NaN: all ranks skip a step or none. With
    `gradient_accumulation_steps` gradients travel in every last of those steps
    (with loss scaling in each). Start weights are made equal by `callbacks()`.

    From then on `BatchNormalization(synchronized=True)` takes its statistics over
    the batches of all ranks, in every call with `training=True` and without a
    mask: all ranks must make it. Other batch-norm layers use and keep their
    rank's own statistics, which is faster and trains another model.

    Args:
        target: A Keras optimizer that has not been used; or a compiled model,
            one that was loaded from a file for instance, whose optimizer is
            prepared and whose next step is traced anew.
        bucket_mib: Dense gradients travel in buckets of about this size.
        sparse_as_dense: Make sparse gradients (of embeddings) dense first;
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
            "itself: use the one or the other."
        )
    if not bucket_mib > 0:
        raise HvdtoolsError(f"prepare(bucket_mib={bucket_mib!r}) must be more than 0.")
    attach(optimizer, Averaging(bucket_mib, sparse_as_dense))
    teach_batch_norm()
    if isinstance(target, keras.Model):
        turn_off_xla(target)
        target.train_function = None  # one that was traced before would not average
    return target


def _optimizer_of(target: Any) -> Any:
    if isinstance(target, keras.Model):
        if not target.compiled or target.optimizer is None:
            raise HvdtoolsError(
                "prepare() got a model that is not compiled: give it the optimizer, and compile "
                "with that."
            )
        return target.optimizer
    if not isinstance(target, keras.optimizers.Optimizer):
        raise HvdtoolsError(
            f"prepare() got {target!r}: give it a Keras optimizer such as "
            "keras.optimizers.Adam(1e-3), or a compiled model."
        )
    if target.built or innermost(target).built:
        raise HvdtoolsError(
            "prepare() got an optimizer that is built already, and a step that is traced with it "
            "would not average: prepare it before its first use, or give prepare() the compiled "
            "model."
        )
    return target
