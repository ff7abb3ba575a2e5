"""Run in every rank: the logs of model.fit and evaluate() cover all ranks' samples."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from checking_base import refused, run_checks
from keras_fitting import (
    BATCH,
    LAST,
    OWN_SHARD,
    RANK,
    SIZE,
    X,
    Y,
    assert_close,
    assert_same_history,
    assert_same_weights,
    compiled,
    fit,
    fit_reference,
    metrics,
    network,
    prepared,
)

import hvdtools.keras as hvt


def shard_of(sizes: list[int]) -> Any:
    """This rank's contiguous samples in batches, `sizes[rank]` of them."""
    ends = np.cumsum([0, *sizes])
    rows = slice(ends[RANK], ends[RANK + 1])
    return tf.data.Dataset.from_tensor_slices((X[rows], Y[rows])).batch(BATCH)


def check_training_and_its_logs_equal_one_process() -> None:
    model = prepared(keras.optimizers.Adam(0.05), metrics=metrics())
    reference = network(keras.optimizers.Adam(0.05), metrics=metrics())
    ours = fit(model, validation_data=OWN_SHARD)
    theirs = fit_reference(reference, validation_data=(X, Y))
    assert_same_weights(model, reference)
    assert_same_history(ours, theirs)
    assert len(theirs) == 8  # four numbers, of training and of validation


def check_logs_of_unevenly_spread_samples() -> None:
    """Constant weights; the last rank has no validation data; not every epoch validates."""
    model = prepared(keras.optimizers.SGD(0.0), metrics=metrics())
    reference = network(keras.optimizers.SGD(0.0), metrics=metrics())
    sizes = [2 * BATCH - rank for rank in range(SIZE)]
    val_sizes = [7, *([4] * (SIZE - 2)), *([0] * (SIZE > 1))]
    ours = fit(
        model,
        data=(shard_of(sizes),),
        batch_size=None,
        epochs=3,
        validation_data=shard_of(val_sizes),
        validation_freq=2,
    )
    total, val_total = sum(sizes), sum(val_sizes)
    expected = reference.evaluate(X[:total], Y[:total], verbose=0, return_dict=True)
    validated = reference.evaluate(X[:val_total], Y[:val_total], verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], [value] * 3, rtol=1e-9)
    for name, value in validated.items():
        np.testing.assert_allclose(ours[f"val_{name}"], [value], rtol=1e-9)


def check_evaluate_gives_all_samples_results() -> None:
    model = prepared(metrics=metrics())
    sizes = [0, *(5 + rank for rank in range(LAST))] if SIZE > 1 else [5]
    expected = model.evaluate(X[: sum(sizes)], Y[: sum(sizes)], verbose=0, return_dict=True)
    console = io.StringIO()
    with contextlib.redirect_stdout(console):
        fresh = prepared(metrics=metrics())  # its metrics are not built
        for _ in range(2):
            found = hvt.evaluate(fresh, shard_of(sizes))
            assert_close([found[name] for name in expected], expected.values())
    assert ("loss" in console.getvalue()) == (RANK == 0)
    refused("return_dict", lambda: hvt.evaluate(fresh, shard_of(sizes), return_dict=True))


class CustomStep(keras.Model):
    """Its step returns one metric's result, and two values of this batch."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1, "sigmoid")
        self.error = keras.metrics.MeanAbsoluteError(name="error")

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            guess = self(x)
            loss = tf.reduce_mean(tf.square(guess - y))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self.error.update_state(y, guess)
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(x)[0])
        first = tf.reduce_sum(x[0])
        return {"error": self.error.result(), "rank": first, "pair": tf.stack([first, 1.0])}


def check_logs_of_a_custom_train_step() -> None:
    model = compiled(CustomStep(), hvt.prepare(keras.optimizers.SGD(0.0)))
    sizes = [BATCH + 1 + rank for rank in range(SIZE)]
    ours = fit(model, data=(shard_of(sizes),), batch_size=None, epochs=1)
    everything = sum(sizes)
    error = np.abs(model.predict(X[:everything], verbose=0) - Y[:everything]).mean()
    assert_close(ours["error"], [error])
    firsts = X[np.cumsum([0, *sizes[:-1]]) + BATCH].sum(1)  # of the last batch
    expected = np.average(firsts, weights=sizes)
    assert_close(ours["rank"], [expected])
    assert_close(ours["pair"], [[expected, 1.0]])


def check_logs_of_a_model_without_metrics() -> None:
    class Untracked(CustomStep):
        @property
        def metrics(self) -> list[Any]:
            return []

    model = compiled(Untracked(), hvt.prepare(keras.optimizers.SGD(0.0)))
    ours = fit(model, epochs=1)
    firsts = hvt.gather(OWN_SHARD[0][-BATCH].sum())  # of the last batch
    assert_close(ours["rank"], [np.mean(firsts)])


def check_validation_on_one_rank_is_refused() -> None:
    model = prepared()
    validation = OWN_SHARD if RANK == 0 else None
    message = "Rank 0 is at the validation of epoch 1 and rank 1 at the end of epoch 1"
    refused(message, lambda: fit(model, validation_data=validation))


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1:])
