"""Callbacks that make state equal on all ranks: at the start, and before rank 0 saves."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hvdtools.keras.replicas import average_accumulated_gradients, optimizers_of
from hvdtools.tensorflow.collectives import broadcast
from hvdtools.tensorflow.variables import broadcast_variables

# Knuth's multiplier (2**32 / golden ratio) spreads consecutive ranks over the seeds.
_SEED_STRIDE = 2654435761
_SEEDS = 2**31


class BroadcastInitialState(keras.callbacks.Callback):
    """Gives every rank rank 0's state when training begins.

    It runs after the callbacks that load a state on rank 0. A model that has no
    variables yet (a `Sequential` without an `Input`) gets them with its first batch,
    and rank 0's values before it trains on that batch.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        if hvd.size() == 1:
            return
        model = self.model
        model._initial_epoch = broadcast(model._initial_epoch)
        if model.built or _sublayers_are_built(model):
            _broadcast_state(model)
        else:
            _broadcast_when_built(model)


def _sublayers_are_built(model: Any) -> bool:
    """True for a model that only holds others, and trains them in its `train_step`."""
    layers = list(model._flatten_layers(include_self=False))
    return bool(layers) and all(layer.built for layer in layers)


def _broadcast_state(model: Any) -> None:
    optimizers = optimizers_of(model)
    if len(optimizers) == 1 and not optimizers[0].built:
        optimizers[0].build(model.trainable_variables)
    weights = {id(weight) for weight in model.weights}
    # A model's variables are its weights and the states of its random generators.
    seeds = [variable for variable in model.variables if id(variable) not in weights]
    # Of several optimizers, those not built yet have the same initial state on all ranks.
    states = [v for optimizer in optimizers if optimizer.built for v in optimizer.variables]
    broadcast_variables([*model.weights, *states, *seeds])
    for seed in seeds:
        seed.assign(_seed_of_rank(np.asarray(seed), hvd.rank()))


def _seed_of_rank(state: Any, rank: int) -> Any:
    """This rank's state (seed, count) of a random generator, computed from rank 0's."""
    if rank == 0:
        return state
    seed, count = (int(number) for number in state)
    return np.array([(seed + rank * _SEED_STRIDE) % _SEEDS, count], state.dtype)


def _broadcast_when_built(model: Any) -> None:
    """Build the model from the first batch's shapes, just before it trains on that batch."""
    original = model.train_function

    def first_step(iterator: Any) -> Any:
        model.train_function = original
        model._symbolic_build(data_batch=tf.nest.map_structure(_symbolic, iterator.element_spec))
        _broadcast_state(model)
        return original(iterator)

    model.train_function = first_step


def _symbolic(spec: Any) -> Any:
    """What Keras builds from; None for absent data (a missing sample weight)."""
    if not hasattr(spec, "shape"):
        return None
    return keras.KerasTensor(tuple(spec.shape), spec.dtype.name)


class AverageAccumulatedGradients(keras.callbacks.Callback):
    """Averages accumulated gradients at the end of an epoch, before rank 0 saves them."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if hvd.size() > 1:
            average_accumulated_gradients(self.model)
