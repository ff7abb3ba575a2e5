"""Which variables are equal on every rank of a job that is all right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hvdtools.keras.averaging import averaging_of, innermost
from hvdtools.tensorflow.collect import average


def optimizers_of(model: Any) -> list[Any]:
    """The optimizers that a compiled model trains with.

    A model with a `train_step` and `compile()` of its own may hold several (a GAN),
    as attributes or in lists and dicts of them. The RMSprop that Keras' `compile()`
    then makes where none is named is left out until it takes a step.
    """
    held = [part for value in vars(model).values() for part in _parts(value)]
    others = list({id(o): o for o in held if o is not model.optimizer}.values())
    if others and _is_left_over(model.optimizer):
        return others
    return [model.optimizer, *others]


def _parts(value: Any) -> list[Any]:
    """The optimizers in an attribute."""
    if isinstance(value, dict):
        value = list(value.values())
    listed = value if isinstance(value, list | tuple) else [value]
    return [part for part in listed if isinstance(part, keras.optimizers.Optimizer)]


def _is_left_over(optimizer: Any) -> bool:
    if optimizer is None:
        return True
    unused = not optimizer.built or int(optimizer.iterations) == 0
    by_default = type(optimizer) is keras.optimizers.RMSprop
    return by_default and unused and averaging_of(optimizer) is None


def replicated(model: Any, local: Sequence[Any] = ()) -> list[Any]:
    """Of a built model that trains: its weights and its optimizers' state.

    Without the running statistics of batch normalization that each rank takes
    from its own batches, and without the gradients that a rank adds up by itself.

    Args:
        local: Further layers whose non-trainable weights are each rank's own.
    """
    layers = model._flatten_layers()
    own = {id(v) for layer in layers for v in _statistics(layer)}
    own |= {id(v) for layer in local for v in layer.non_trainable_variables}
    weights = [weight for weight in model.weights if id(weight) not in own]
    return [*weights, *(v for optimizer in optimizers_of(model) for v in _state(optimizer))]


def _state(optimizer: Any) -> list[Any]:
    sums = {id(variable) for variable in _sums(optimizer)}
    return [variable for variable in optimizer.variables if id(variable) not in sums]


def _sums(optimizer: Any) -> list[Any]:
    """The gradients that an optimizer accumulates."""
    inner = innermost(optimizer)
    accumulates = inner.built and inner.gradient_accumulation_steps
    return [v for v in inner._accumulated_gradients if v is not None] if accumulates else []


def even_out(model: Any) -> None:
    """Let every rank's accumulated gradients be their mean. A collective of all ranks.

    The step that they lead to stays the same, and what rank 0 saves in the middle
    of an accumulation goes for all ranks.
    """
    sums = [v for optimizer in optimizers_of(model) if optimizer for v in _sums(optimizer)]
    if not sums:
        return
    means = average({f"{number}": variable.numpy() for number, variable in enumerate(sums)})
    for number, variable in enumerate(sums):
        variable.assign(tf.cast(means[f"{number}"], variable.dtype))


def _statistics(layer: Any) -> list[Any]:
    """What a layer takes from this rank's own batches; a frozen one takes nothing."""
    normalizes = isinstance(layer, keras.layers.BatchNormalization)
    if normalizes and layer.trainable and not layer.synchronized:
        return list(layer.non_trainable_variables)
    return []
