"""Which variables are equal on every rank of a job that is all right."""

from __future__ import annotations

from typing import Any

import keras

from hvdtools.keras.averaging import innermost


def replicated(model: Any) -> list[Any]:
    """Of a built model that trains: its weights and its optimizer's state.

    Without the running statistics of batch normalization that each rank takes
    from its own batches.
    """
    local = {id(variable) for layer in model._flatten_layers() for variable in _local(layer)}
    weights = [weight for weight in model.weights if id(weight) not in local]
    return [*weights, *state_of(model.optimizer)]


def state_of(optimizer: Any) -> list[Any]:
    """A built optimizer's variables, without the gradients that a rank adds up by itself."""
    inner = innermost(optimizer)
    added_up = inner._accumulated_gradients if inner.gradient_accumulation_steps else []
    own = {id(variable) for variable in added_up}
    return [variable for variable in optimizer.variables if id(variable) not in own]


def _local(layer: Any) -> list[Any]:
    """What a layer takes from this rank's own batches; a frozen one takes nothing."""
    normalizes = isinstance(layer, keras.layers.BatchNormalization)
    if normalizes and layer.trainable and not layer.synchronized:
        return list(layer.non_trainable_variables)
    return []
