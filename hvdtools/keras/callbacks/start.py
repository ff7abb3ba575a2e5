"""All ranks begin as rank 0."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hvdtools.keras.replicated import optimizers_of
from hvdtools.tensorflow.collect import broadcast
from hvdtools.tensorflow.variables import broadcast_variables

# Knuth's multiplier (2**32 / golden ratio) spreads neighbouring ranks over the seeds.
_SEED_STRIDE = 2654435761
_SEEDS = 2**31


class Start(keras.callbacks.Callback):
    """Gives every rank rank 0's state when training begins.

    It comes after the callbacks that load one on rank 0. A model that has no
    variables yet (a `Sequential` without an `Input`) gets them with its first
    batch, and rank 0's before it is trained on that.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        if hvd.size() == 1:
            return
        model = self.model
        model._initial_epoch = broadcast(model._initial_epoch)
        if model.built or _parts_are_built(model):
            _give_rank_0s_state(model)
        else:
            _when_built(model)


def _parts_are_built(model: Any) -> bool:
    """True for a model that only holds others, and trains them by a `train_step` of its own."""
    parts = list(model._flatten_layers(include_self=False))
    return bool(parts) and all(part.built for part in parts)


def _give_rank_0s_state(model: Any) -> None:
    optimizers = optimizers_of(model)
    if len(optimizers) == 1 and not optimizers[0].built:
        optimizers[0].build(model.trainable_variables)
    weights = {id(weight) for weight in model.weights}
    # A model's variables are its weights and the states of its random generators.
    seeds = [variable for variable in model.variables if id(variable) not in weights]
    # Where there are several that nobody has built, they begin alike.
    states = [v for optimizer in optimizers if optimizer.built for v in optimizer.variables]
    broadcast_variables([*model.weights, *states, *seeds])
    for seed in seeds:
        seed.assign(_own_seed(np.asarray(seed), hvd.rank()))


def _own_seed(state: Any, rank: int) -> Any:
    """This rank's state (seed, count) for rank 0's; the same whenever it is asked for."""
    if rank == 0:
        return state
    seed, count = (int(number) for number in state)
    return np.array([(seed + rank * _SEED_STRIDE) % _SEEDS, count], state.dtype)


def _when_built(model: Any) -> None:
    """Build the model from the first batch's shapes, just before it is trained on that."""
    plain = model.train_function

    def first(iterator: Any) -> Any:
        model.train_function = plain
        model._symbolic_build(data_batch=tf.nest.map_structure(_symbol, iterator.element_spec))
        _give_rank_0s_state(model)
        return plain(iterator)

    model.train_function = first


def _symbol(spec: Any) -> Any:
    """What Keras builds from; None for data that is not there (a missing sample weight)."""
    if not hasattr(spec, "shape"):
        return None
    return keras.KerasTensor(tuple(spec.shape), spec.dtype.name)
