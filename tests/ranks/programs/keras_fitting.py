"""Shared by the checks of model.fit: data, networks, fits on all ranks and in one process.

Rank r has every size-th sample from the r-th on, so that the ranks' batches of one step
are the combined batch of the one process in that step.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import hvdtools.keras as hvt

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
LAST = SIZE - 1
BATCH, STEPS = 4, 5
keras.config.set_floatx("float64")
RNG = np.random.default_rng(7)
X = RNG.normal(size=(BATCH * SIZE * STEPS, 6))
Y = (X @ RNG.normal(size=(6, 1)) + RNG.normal(size=(len(X), 1)) > 0.3).astype(float)
OWN_SHARD = X[RANK::SIZE], Y[RANK::SIZE]


def metrics() -> list[Any]:
    return ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.F1Score(threshold=0.5)]


def network(optimizer: Any, seed: int = 3, **compiling: Any) -> Any:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1, "sigmoid")]
    return compiled(keras.Sequential(layers), optimizer, **compiling)


def compiled(model: Any, optimizer: Any, **compiling: Any) -> Any:
    options = {"loss": "binary_crossentropy", "jit_compile": False, **compiling}
    model.compile(optimizer=optimizer, **options)
    return model


def prepared(optimizer: Any = None, **options: Any) -> Any:
    return network(hvt.prepare(optimizer or keras.optimizers.SGD(0.2)), **options)


def fit(model: Any, *own: Any, data: Any = OWN_SHARD, epochs: int = 2, **options: Any) -> Any:
    """Fit on this rank's shard; returns the history."""
    names = ("scale_lr", "warmup_steps", "warmup_epochs", "check_every", "stop_on_signal")
    given = {name: options.pop(name) for name in names if name in options}
    callbacks = hvt.callbacks(*own, **given)
    fitting = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **options}
    return model.fit(*data, epochs=epochs, callbacks=callbacks, **fitting).history


def fit_reference(model: Any, *own: Any, epochs: int = 2, **options: Any) -> Any:
    """Fit on the combined batches; returns the history."""
    fitting = {"batch_size": BATCH * SIZE, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, epochs=epochs, callbacks=list(own), **fitting).history


def assert_close(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def assert_same_weights(model: Any, reference: Any) -> None:
    assert_close(model.get_weights(), reference.get_weights())


def assert_same_history(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs), (ours, theirs)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, err_msg=name)
