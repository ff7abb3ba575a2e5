"""Run in every rank: model.fit with callbacks(), compared with one process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from checking_base import heard, refused, run_checks
from keras_fitting import (
    BATCH,
    LAST,
    OWN_SHARD,
    RANK,
    SIZE,
    STEPS,
    X,
    Y,
    assert_close,
    assert_same_history,
    assert_same_weights,
    compiled,
    fit,
    fit_reference,
    network,
    prepared,
)

import hvdtools.keras as hvt


class At(keras.callbacks.Callback):
    """Runs `action` on one rank, after a number of steps."""

    def __init__(self, rank: int, step: int, action: Callable[[Any], None]) -> None:
        super().__init__()
        self.rank, self.step, self.action = rank, step, action
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if (RANK, self.steps) == (self.rank, self.step):
            self.action(self.model)


def request_stop(model: Any) -> None:
    model.stop_training = True


# -- stopping --------------------------------------------------------------------


def check_early_stopping_stops_all_in_the_same_epoch() -> None:
    """With a loss that keeps falling on rank 0, and rises on the others."""
    model, reference = prepared(), network(keras.optimizers.SGD(0.2))
    labels = Y.copy()
    for rank in range(1, SIZE):
        labels[rank::SIZE] = 1 - labels[rank::SIZE]

    def stopping() -> Any:
        return keras.callbacks.EarlyStopping("val_loss", patience=1, start_from_epoch=3)

    ours = fit(model, stopping(), epochs=9, validation_data=(OWN_SHARD[0], labels[RANK::SIZE]))
    theirs = fit_reference(reference, stopping(), epochs=9, validation_data=(X, labels))
    assert_same_history(ours, theirs)
    assert 3 < len(ours["loss"]) < 9, ours
    assert_same_weights(model, reference)
    assert model.stop_training


def check_a_request_in_mid_epoch_stops_all() -> None:
    for request_step, steps, when in (
        (2, 2, "after step 2"),
        (6, 8, "after step 8"),
        (9, 10, "after epoch 2"),
    ):
        model = prepared()
        with heard() as lines:
            ours = fit(model, At(LAST, request_step, request_stop), epochs=3, check_every=4)
        assert int(model.optimizer.iterations) == steps, request_step
        assert len(ours["loss"]) == -(-steps // STEPS)
        assert RANK or f"training stops {when}: requested by rank {LAST}" in lines, lines
        fit(model, epochs=1)  # the request is cleared
        assert int(model.optimizer.iterations) == steps + STEPS


def check_a_signal_stops_all_if_enabled() -> None:
    model = prepared()
    signaled = At(LAST, 2, lambda _: os.kill(os.getpid(), signal.SIGUSR1))
    fit(model, signaled, epochs=3, check_every=1, stop_on_signal=True)
    assert int(model.optimizer.iterations) == 2
    assert hvt.stop_requested()
    fit(model, epochs=1)  # without the option the signal has no effect
    assert int(model.optimizer.iterations) == 2 + STEPS


def check_a_request_from_another_thread() -> None:
    """It comes while the step runs, between callbacks, as from a signal handler."""
    model = prepared()

    def batches() -> Any:
        for number in range(4 * STEPS):
            if (RANK, number) == (LAST, 3):
                model.stop_training = True
            yield X[:BATCH], Y[:BATCH]

    spec = (tf.TensorSpec((None, 6), tf.float64), tf.TensorSpec((None, 1), tf.float64))
    data = tf.data.Dataset.from_generator(batches, output_signature=spec)
    fit(model, data=(data,), batch_size=None, steps_per_epoch=4 * STEPS, epochs=1, check_every=5)
    steps = hvt.gather(np.asarray(model.optimizer.iterations))
    assert len(set(map(int, steps))) == 1, steps
    assert steps[0] < 4 * STEPS


def check_steps_per_execution() -> None:
    model = prepared(steps_per_execution=2)
    reference = network(keras.optimizers.SGD(0.2), steps_per_execution=2)
    assert_same_history(fit(model, check_every=2), fit_reference(reference))
    assert_same_weights(model, reference)
    fit(model, At(LAST, 1, request_stop), check_every=2)  # as soon as 2 steps are done
    assert int(model.optimizer.iterations) == 2 * STEPS + 2


# -- the initial state -------------------------------------------------------------------


def check_all_start_with_rank_0s_weights_and_state() -> None:
    model = prepared(keras.optimizers.Adam(0.1 + RANK), seed=RANK)
    reference = network(keras.optimizers.Adam(0.1), seed=0)
    for one, steps in ((model, 5 + RANK), (reference, 5)):
        one.optimizer.build(one.trainable_variables)
        one.optimizer.iterations.assign(steps)
    fit(model)
    fit_reference(reference)
    assert_same_weights(model, reference)


class Unbuilt(keras.Model):
    """Creates its layers' variables with the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = keras.layers.Dense(4, "tanh"), keras.layers.Dense(1, "sigmoid")

    def call(self, x: Any) -> Any:
        return self.second(self.first(x["x"]))


def check_models_that_are_built_by_their_first_batch() -> None:
    def sequential() -> Any:
        return keras.Sequential([keras.layers.Dense(4, "tanh"), keras.layers.Dense(1, "sigmoid")])

    weights = np.linspace(1, 2, len(X))
    for build, wrap in ((sequential, lambda x: x), (Unbuilt, lambda x: {"x": x})):
        keras.utils.set_random_seed(RANK)
        model = compiled(build(), hvt.prepare(keras.optimizers.Adam(0.1)), metrics=["accuracy"])
        keras.utils.set_random_seed(0)
        reference = compiled(build(), keras.optimizers.Adam(0.1), metrics=["accuracy"])
        data = wrap(OWN_SHARD[0]), OWN_SHARD[1]
        ours = fit(model, data=data, scale_lr="none", sample_weight=weights[RANK::SIZE])
        fitting = {"batch_size": BATCH * SIZE, "shuffle": False, "verbose": 0}
        history = reference.fit(wrap(X), Y, epochs=2, sample_weight=weights, **fitting).history
        assert_same_weights(model, reference)
        assert_same_history(ours, history)


def seeds_of(model: Any) -> Any:
    return np.stack([np.asarray(layer.seed_generator.state) for layer in model.layers[::2]])


def check_dropout_differs_between_ranks() -> None:
    keras.utils.set_random_seed(RANK)
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(1), keras.layers.Dropout(0.5)]
    model = compiled(
        keras.Sequential([keras.Input((6,)), *layers]), hvt.prepare(keras.optimizers.SGD())
    )
    before = hvt.broadcast(seeds_of(model))
    fit(model, epochs=1)
    first = hvt.gather(seeds_of(model))
    fit(model, epochs=1)
    second = hvt.gather(seeds_of(model))
    assert np.array_equal(first[0][:, 0], before[:, 0])
    assert len({int(seed) for state in first for seed in state[:, 0]}) == 2 * SIZE
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one[:, 0], two[:, 0])  # once, not twice
        assert (two[:, 1] > one[:, 1]).all()  # and no random number is repeated


def shared_folder() -> Path:
    return Path(hvt.broadcast(tempfile.mkdtemp() if RANK == 0 else None))


def check_a_backup_of_rank_0_is_resumed_by_all() -> None:
    folder = shared_folder()

    def backup() -> Any:
        # Other ranks' folders stay empty.
        return keras.callbacks.BackupAndRestore(folder / str(RANK), delete_checkpoint=False)

    fit(prepared(keras.optimizers.Adam(0.05)), backup(), epochs=2)
    resumed = prepared(keras.optimizers.Adam(0.05), seed=10 + RANK)
    ours = fit(resumed, backup(), epochs=4)
    reference = network(keras.optimizers.Adam(0.05))
    theirs = fit_reference(reference, epochs=4)
    assert_same_weights(resumed, reference)
    assert_close(ours["loss"], theirs["loss"][2:])


# -- only on rank 0 ----------------------------------------------------------------


class Count(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs += 1


def check_only_rank_0_writes() -> None:
    folder = shared_folder()
    model = prepared()
    everywhere, once = Count(), Count()
    once.rank_0_only = True
    ours = fit(
        model,
        everywhere,
        once,
        keras.callbacks.ModelCheckpoint(folder / f"{RANK}.keras"),
        keras.callbacks.CSVLogger(folder / f"{RANK}.csv"),
        keras.callbacks.TensorBoard(folder / f"board{RANK}"),
    )
    hvt.broadcast(None)  # rank 0 has written
    assert sorted(file.name for file in folder.iterdir()) == ["0.csv", "0.keras", "board0"]
    assert (everywhere.epochs, once.epochs) == (2, 2 if RANK == 0 else 0)
    written = [float(line.split(",")[1]) for line in (folder / "0.csv").read_text().split()[1:]]
    assert_close(written, ours["loss"])
    saved = keras.models.load_model(folder / "0.keras")
    assert_same_weights(saved, model)
    assert type(saved.optimizer) is keras.optimizers.SGD


def check_only_rank_0_prints() -> None:
    console = io.StringIO()
    with contextlib.redirect_stdout(console):
        stopping = keras.callbacks.EarlyStopping("loss", min_delta=9, verbose=1)
        ours = fit(prepared(), stopping, verbose=1, epochs=3, validation_data=OWN_SHARD)
    printed = console.getvalue()
    if RANK:
        assert printed == ""
        return
    assert "Epoch 2/3" in printed
    assert "early stopping" in printed
    assert f"loss: {ours['loss'][-1]:.4f}" in printed
    assert f"val_loss: {ours['val_loss'][-1]:.4f}" in printed


# -- the learning rate -----------------------------------------------------------


class Halved(keras.optimizers.schedules.LearningRateSchedule):
    """In float64, unlike Keras' own schedules."""

    def __call__(self, step: Any) -> Any:
        return 0.2 * tf.cast(0.5, tf.float64) ** (tf.cast(step, tf.float64) / STEPS)


class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """base(k) * (1 + (factor - 1) * min(k / steps, 1)), for one process."""

    def __init__(self, base: Callable[[Any], Any], factor: float, steps: int) -> None:
        self.base, self.factor, self.steps = base, factor, steps

    def __call__(self, step: Any) -> Any:
        rate = tf.convert_to_tensor(self.base(step), tf.float64)
        part = tf.minimum(tf.cast(step, rate.dtype) / self.steps, 1) if self.steps else 1
        return rate * (1 + (self.factor - 1) * part)


def check_scaled_rates_equal_one_process_schedule() -> None:
    decay = Halved()
    for rate, base, options, factor, steps, line in (
        (0.2, lambda k: 0.2, {"scale_lr": "linear"}, SIZE, 0, f"lr 0.2 -> {0.2 * SIZE:g} (linear"),
        (0.2, lambda k: 0.2, {"scale_lr": "sqrt", "warmup_steps": 4}, SIZE**0.5, 4, "over 4 steps"),
        (decay, decay, {"scale_lr": "linear", "warmup_epochs": 1.4}, SIZE, 7, "lr schedule -> sch"),
    ):
        model = prepared(keras.optimizers.SGD(rate, momentum=0.9))
        reference = network(keras.optimizers.SGD(Scaled(base, factor, steps), momentum=0.9))
        with heard() as lines:
            fit(model, **options)
            fit(model, epochs=1, **options)  # continues where the first ended
        fit_reference(reference, epochs=3)
        assert_same_weights(model, reference)
        logged = [each for each in lines if each.startswith("lr ")]
        assert len(logged) == (2 if RANK == 0 else 0), lines
        assert SIZE == 1 or all(line in each for each in logged), logged
        assert rate is decay or float(model.optimizer.learning_rate) == rate


def check_scaling_only_in_the_second_fit() -> None:
    """A step that was traced with another factor is traced again."""
    model, reference = prepared(keras.optimizers.SGD(0.1)), network(keras.optimizers.SGD(0.1))
    for policy, factor in (("none", 1), ("linear", SIZE), ("none", 1)):
        fit(model, epochs=1, scale_lr=policy)
        reference.optimizer.learning_rate = 0.1 * factor
        fit_reference(reference, epochs=1)
    assert_same_weights(model, reference)


def check_a_rate_that_a_callback_lowers() -> None:
    def plateau() -> Any:
        return keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=9)

    model = prepared(keras.optimizers.SGD(0.1))
    reference = network(keras.optimizers.SGD(0.1 * SIZE))
    ours = fit(model, plateau(), epochs=4, scale_lr="linear")
    theirs = fit_reference(reference, plateau(), epochs=4)
    assert_same_weights(model, reference)
    assert_close(np.array(ours["learning_rate"]) * SIZE, theirs["learning_rate"])
    assert ours["learning_rate"][-1] < 0.1


def check_warm_up_counts_optimizer_steps() -> None:
    """With accumulation over two batches a step."""
    options = {"gradient_accumulation_steps": 2}
    model = prepared(keras.optimizers.SGD(0.2, **options))
    fit(model, epochs=1, scale_lr="linear", warmup_epochs=4)
    plain = network(keras.optimizers.SGD(0.2))
    weights = plain.trainable_variables
    for pair in range(STEPS // 2):
        rows = slice(pair * 2 * BATCH * SIZE, (pair + 1) * 2 * BATCH * SIZE)
        with tf.GradientTape() as tape:
            losses = keras.losses.binary_crossentropy(Y[rows], plain(X[rows], training=True))
            loss = tf.reduce_mean(losses)
        factor = 1 + (SIZE - 1) * pair / (4 * STEPS // 2)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(0.2 * factor * gradient)
    assert_same_weights(model, plain)


def check_warm_up_epochs_of_unknown_length_are_refused() -> None:
    data = tf.data.Dataset.from_generator(
        lambda: iter([(X[:BATCH], Y[:BATCH])]),
        output_signature=(tf.TensorSpec((None, 6)), tf.TensorSpec((None, 1))),
    )
    options = {"scale_lr": "linear", "warmup_epochs": 2, "batch_size": None}
    message = "warmup_epochs=2 needs the number of steps in an epoch"
    refused(message, lambda: fit(prepared(), data=(data,), **options))


# -- errors -------------------------------------------------------------


def check_the_error_names_diverged_weights() -> None:
    def diverge(model: Any) -> None:
        kernel = model.layers[1].kernel
        kernel.assign(kernel + np.eye(*kernel.shape) * 1e-15)

    message = f"at step 5: rank {LAST} differs from the others in the variable "
    own = At(LAST, 4, diverge)
    error = refused(message, lambda: fit(prepared(), own, check_every=5, epochs=9))
    assert "kernel" in error
    own = At(LAST, 10, diverge)
    message = f"at the end of training: rank {LAST} differs"
    refused(message, lambda: fit(prepared(), own, check_every=99))
    own = At(LAST, 2, lambda model: model.optimizer.learning_rate.assign(3))
    message = f"at step 2: rank {LAST} differs from the others in the variable"
    assert "learning_rate" in refused(message, lambda: fit(prepared(), own))


def check_local_statistics_may_differ() -> None:
    for synchronized in (False, True):
        normalize = keras.layers.BatchNormalization(synchronized=synchronized)
        layers = [keras.Input((6,)), normalize, keras.layers.Dense(1, "sigmoid")]
        model = compiled(keras.Sequential(layers), hvt.prepare(keras.optimizers.SGD(0.1)))
        fit(model)
        means = hvt.gather(np.asarray(normalize.moving_mean))
        assert np.array_equal(means[0], means[-1]) == synchronized


def check_different_arguments_are_refused() -> None:
    rows = len(OWN_SHARD[0]) - (BATCH if RANK == LAST else 0)
    data = OWN_SHARD[0][:rows], OWN_SHARD[1][:rows]
    message = f"steps is 5 on rank 0 and 4 on rank {LAST}; hvt.shard() gives"
    refused(message, lambda: fit(prepared(), data=data))
    model = prepared()
    message = f"epochs is 2 on rank 0 and 3 on rank {LAST}; give every rank the same epochs"
    refused(message, lambda: fit(model, epochs=2 + (RANK == LAST)))
    refused("check_every is ", lambda: fit(model, check_every=7 + RANK))
    fit(model)
    start = int(RANK == LAST)
    message = f"at the end of epoch 1 and rank {LAST} at the end of epoch 2"
    refused(message, lambda: fit(model, initial_epoch=start))


def check_different_models_are_refused() -> None:
    layers = [keras.Input((6,)), keras.layers.Dense(1 + (RANK == LAST)), keras.layers.Dense(1)]
    model = compiled(keras.Sequential(layers), hvt.prepare(keras.optimizers.SGD(0.1)))
    refused("The ranks built different models", lambda: fit(model))
    model = prepared(metrics=["accuracy"] if RANK == LAST else [])
    refused(f"Rank {LAST}'s metrics differ from rank 0's", lambda: fit(model))


def check_an_optimizer_that_is_not_prepared_is_refused() -> None:
    model = network(keras.optimizers.Adam(0.1))
    message = "The model's optimizer (Adam) is not prepared"
    refused(message, lambda: fit(model))
    fit(hvt.prepare(model), epochs=1)


def check_xla_is_turned_off() -> None:
    model = prepared(jit_compile=True)
    reference = network(keras.optimizers.SGD(0.2))
    fit(model)
    fit_reference(reference)
    assert_same_weights(model, reference)
    model.compile(optimizer=model.optimizer, loss="binary_crossentropy", jit_compile=True)
    fit(model, epochs=1)


def check_loss_scaling() -> None:
    def optimizer() -> Any:
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.2), initial_scale=8.0)

    model, reference = prepared(optimizer(), seed=RANK), network(optimizer(), seed=0)
    fit(model)
    fit_reference(reference)
    assert_same_weights(model, reference)


def check_rates_within_a_multi_optimizer_are_refused() -> None:
    if SIZE == 1:
        return
    several = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    model = prepared(keras.optimizers.MultiOptimizer(several))
    refused("cannot scale the rates", lambda: fit(model, scale_lr="linear"))


def check_mixed_precision_of_keras_own_wrapping() -> None:
    """compile() wraps the prepared optimizer; one rank's inf skips the step on all ranks."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = prepared()
        x = OWN_SHARD[0].copy()
        if RANK == LAST:
            x[BATCH] = np.inf  # in step 2
        fit(model, data=(x, OWN_SHARD[1]), epochs=1, check_every=1)
    finally:
        keras.config.set_dtype_policy("float64")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert float(model.optimizer.dynamic_scale) == model.optimizer.initial_scale / 2
    assert int(model.optimizer.iterations) == STEPS - 1
    assert np.isfinite(np.concatenate([w.ravel() for w in model.get_weights()])).all()


class Pair(keras.Model):
    """As Keras' GANs: two networks and optimizers, a custom `compile` and `train_step`."""

    def __init__(self) -> None:
        super().__init__()
        keras.utils.set_random_seed(5)
        layers = keras.layers
        self.one = keras.Sequential([keras.Input((6,)), layers.Dense(3, "tanh"), layers.Dense(1)])
        self.other = keras.Sequential([keras.Input((6,)), layers.Dense(1)])

    def compile(self, first: Any, second: Any) -> None:
        super().compile(jit_compile=False)
        self.first, self.second = first, second

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            difference = tf.reduce_mean(tf.square(self.one(x) - self.other(x) - y))
            loss = tf.reduce_mean(tf.square(self.other(x) - y))
        of_one, of_other = self.one.trainable_weights, self.other.trainable_weights
        self.first.apply(tape.gradient(difference, of_one), of_one)
        self.second.apply(tape.gradient(loss, of_other), of_other)
        return {"difference": difference, "loss": loss}


def check_two_networks_with_an_optimizer_each() -> None:
    def made(prepare: Any) -> Any:
        model = Pair()
        model.compile(prepare(keras.optimizers.Adam(0.02)), prepare(keras.optimizers.SGD(0.1)))
        return model

    ours, reference = made(hvt.prepare), made(lambda optimizer: optimizer)
    history, expected = fit(ours, scale_lr="none"), fit_reference(reference)
    assert_same_weights(ours, reference)
    assert_same_history(history, expected)
    hvt.assert_in_sync(ours)
    half = Pair()
    half.compile(hvt.prepare(keras.optimizers.Adam()), keras.optimizers.SGD())
    refused("optimizer (SGD) is not prepared", lambda: fit(half))


def check_a_checkpoint_in_the_middle_of_an_accumulation() -> None:
    """An epoch ends with accumulated gradients; rank 0's file resumes as all ranks would."""
    make = lambda: keras.optimizers.SGD(0.2, gradient_accumulation_steps=2)  # noqa: E731
    file = Path(hvt.broadcast(tempfile.mkdtemp())) / "model.keras"
    fit(prepared(make()), keras.callbacks.ModelCheckpoint(file), epochs=1)
    hvt.broadcast(None)
    model = hvt.load(file)
    fit(model, epochs=1)
    reference = network(make())
    fit_reference(reference, epochs=2)
    assert_same_weights(model, reference)


def check_two_optimizers_over_two_fits() -> None:
    """The first batch builds the model, also Keras' default RMSprop, which does not train it."""

    class Called(Pair):
        def call(self, x: Any) -> Any:
            return self.one(x)

    model = Called()
    model.compile(hvt.prepare(keras.optimizers.SGD(0.1)), hvt.prepare(keras.optimizers.SGD(0.1)))
    fit(model, epochs=1)
    fit(model, epochs=1)
    reference = Called()
    reference.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    fit_reference(reference, epochs=1)
    fit_reference(reference, epochs=1)
    assert_same_weights(model, reference)


def check_a_request_that_is_withdrawn() -> None:
    class AtLeast(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch < 4:
                self.model.stop_training = False

    early = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=0)
    assert len(fit(prepared(), early, AtLeast(), epochs=9)["loss"]) == 5


def check_layers_adapted_to_a_shard_are_refused() -> None:
    if SIZE == 1:
        return
    for data, message in ((OWN_SHARD[0], "was adapted to different data on rank 1"), (X, None)):
        scale = keras.layers.Normalization()
        scale.adapt(data)
        net = keras.Sequential([keras.Input((6,)), scale, keras.layers.Dense(1, "sigmoid")])
        model = compiled(net, hvt.prepare(keras.optimizers.SGD(0.1)))
        if message:
            refused(message, lambda model=model: fit(model))
        else:
            fit(model, epochs=1)


class Codebook(keras.layers.Layer):
    """Its state depends on this rank's samples."""

    def build(self, shape: Any) -> None:
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        self.seen.assign_add(tf.cast(tf.reduce_sum(x), self.seen.dtype))
        return x


def check_layers_with_local_state() -> None:
    if SIZE == 1:
        return
    book = Codebook()
    net = keras.Sequential([keras.Input((6,)), book, keras.layers.Dense(1, "sigmoid")])
    model = compiled(net, hvt.prepare(keras.optimizers.SGD(0.2)))
    refused("Replicas diverged", lambda: fit(model))
    fitting = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    model.fit(*OWN_SHARD, callbacks=hvt.callbacks(local=[book]), **fitting)
    hvt.assert_in_sync(model, local=[book])


def check_arguments_out_of_range() -> None:
    for options, message in (
        ({"scale_lr": "cubic"}, "Unknown policy 'cubic': choose one of linear, none, sqrt"),
        ({"warmup_steps": -1}, "warmup_steps=-1 must be a whole number"),
        ({"warmup_epochs": -0.5}, "warmup_epochs=-0.5 must be a number of 0 or more"),
        ({"warmup_steps": 3, "warmup_epochs": 1}, "give one of them"),
        ({"check_every": 0}, "check_every=0 must be a whole number of at least 1"),
    ):
        refused(message, lambda options=options: hvt.callbacks(**options))
    refused("give it Keras callbacks, one by one", lambda: hvt.callbacks([Count()]))


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1:])
