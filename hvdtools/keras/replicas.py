"""The variables of a model that must be equal on every rank, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.optimizer import averaging_of, innermost
from hvdtools.tensorflow import variables
from hvdtools.tensorflow.collectives import average
from hvdtools.tensorflow.session import require_started


def assert_in_sync(model: Any, *, local: Sequence[Any] = ()) -> None:
    """Compare a model's weights and its optimizers' state over ranks bit by bit.

    Call it on every rank. It leaves out what differs by design: the running statistics
    of batch-norm layers that are not synchronized, and gradients that an optimizer
    accumulates.

    Args:
        model: Compiled and built.
        local: More layers with non-trainable weights that differ by design.

    Raises:
        HvdtoolsError: They differ (raised on every rank, naming rank and variable), or
            the model has not been trained yet.
    """
    require_started("assert_in_sync()")
    if not all(optimizer is not None and optimizer.built for optimizer in optimizers_of(model)):
        raise HvdtoolsError(
            "assert_in_sync() got a model that is not compiled and built: call it after fit()."
        )
    variables.assert_in_sync(replicated_variables(model, local))


def optimizers_of(model: Any) -> list[Any]:
    """The optimizers that a compiled model trains with.

    A model with custom `train_step` and `compile()` may hold several (a GAN), as
    attributes or in lists and dicts. The RMSprop that Keras' `compile()` creates if none
    is given is left out until it takes a step.
    """
    held = [optimizer for value in vars(model).values() for optimizer in _optimizers_in(value)]
    others = list({id(o): o for o in held if o is not model.optimizer}.values())
    if others and _is_unused_default(model.optimizer):
        return others
    return [model.optimizer, *others]


def _optimizers_in(value: Any) -> list[Any]:
    """The optimizers in an attribute."""
    if isinstance(value, dict):
        value = list(value.values())
    items = value if isinstance(value, list | tuple) else [value]
    return [item for item in items if isinstance(item, keras.optimizers.Optimizer)]


def _is_unused_default(optimizer: Any) -> bool:
    if optimizer is None:
        return True
    unused = not optimizer.built or int(optimizer.iterations) == 0
    is_default = type(optimizer) is keras.optimizers.RMSprop
    return is_default and unused and averaging_of(optimizer) is None


def replicated_variables(model: Any, local: Sequence[Any] = ()) -> list[Any]:
    """The weights of a built model and the state of its optimizers.

    Without the running statistics that batch-norm layers take from their rank's batches,
    and without accumulated gradients.

    Args:
        local: More layers with non-trainable weights that differ between ranks by design.
    """
    layers = model._flatten_layers()
    differing = {id(v) for layer in layers for v in _local_statistics(layer)}
    differing |= {id(v) for layer in local for v in layer.non_trainable_variables}
    weights = [weight for weight in model.weights if id(weight) not in differing]
    return [*weights, *(v for optimizer in optimizers_of(model) for v in _state_of(optimizer))]


def _local_statistics(layer: Any) -> list[Any]:
    """The statistics that a layer takes from its rank's batches; a frozen layer has none."""
    normalizes = isinstance(layer, keras.layers.BatchNormalization)
    if normalizes and layer.trainable and not layer.synchronized:
        return list(layer.non_trainable_variables)
    return []


def _state_of(optimizer: Any) -> list[Any]:
    accumulated = {id(variable) for variable in _accumulated_gradients(optimizer)}
    return [variable for variable in optimizer.variables if id(variable) not in accumulated]


def _accumulated_gradients(optimizer: Any) -> list[Any]:
    inner = innermost(optimizer)
    accumulates = inner.built and inner.gradient_accumulation_steps
    return [v for v in inner._accumulated_gradients if v is not None] if accumulates else []


def average_accumulated_gradients(model: Any) -> None:
    """Replace every rank's accumulated gradients by their mean. A collective of all ranks.

    The step that follows stays the same, and what rank 0 saves in the middle of an
    accumulation is valid for all ranks.
    """
    optimizers = [optimizer for optimizer in optimizers_of(model) if optimizer]
    accumulated = [v for optimizer in optimizers for v in _accumulated_gradients(optimizer)]
    if not accumulated:
        return
    means = average({str(index): variable.numpy() for index, variable in enumerate(accumulated)})
    for index, variable in enumerate(accumulated):
        variable.assign(tf.cast(means[str(index)], variable.dtype))
