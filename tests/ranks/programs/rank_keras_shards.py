"""Run in every rank: training on the shards of hvdtools.keras.shard().

Every rank also trains by itself, with a plain optimizer, on the combined batches: the
ranks together must get the same weights. Prints {check: "ok" or its traceback}.

Usage: ... [CHECK ...]; all of them by default.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
import tensorflow as tf
from checking_base import heard, refused, run_checks

import hvdtools.keras as hvt
from hvdtools.keras.data.shard import shard
from hvdtools.tensorflow.collectives import gather_object

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
keras.config.set_floatx("float64")
BATCH = 4
WHOLE = 5 * BATCH * SIZE + SIZE + 1  # the last step is incomplete, and so is its last round
RNG = np.random.default_rng(5)
X = RNG.normal(size=(WHOLE, 3))
Y = np.tanh(X @ RNG.normal(size=(3, 2)))
W = RNG.random(WHOLE)
EVEN = WHOLE - WHOLE % SIZE
Dataset = tf.data.Dataset


def trained(data: Any, *, prepared: bool, **fitting: Any) -> list[Any]:
    """The weights after three epochs of `fit`."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(2)]
    )
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    if prepared:
        hvt.prepare(optimizer)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    arguments = (data[0], data[1]) if isinstance(data, tuple) else (data,)
    model.fit(*arguments, epochs=3, verbose=0, **fitting)
    weights: list[Any] = model.get_weights()
    return weights


def require_equal(weights: list[Any], expected: list[Any]) -> None:
    assert all(np.isfinite(weight).all() for weight in weights)
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-10, atol=1e-13)


def samples(*arrays: Any) -> Any:
    return Dataset.from_tensor_slices(arrays)


def shuffled(data: Any) -> Any:
    return data.shuffle(WHOLE, seed=11)


def unchanged(data: Any) -> Any:
    return data


def check_fit_on_a_dataset_equals_one_process() -> None:
    for arrange, arrays in ((unchanged, (X, Y)), (shuffled, (X, Y, W))):
        for uneven, length in (("drop", EVEN), ("weighted", WHOLE)):
            keras.utils.set_random_seed(2)
            own = shard(arrange(samples(*arrays)).batch(BATCH), uneven=uneven)
            keras.utils.set_random_seed(2)
            combined = arrange(samples(*arrays)).take(length).batch(BATCH * SIZE)
            require_equal(trained(own, prepared=True), trained(combined, prepared=False))


def check_fit_with_two_outputs_equals_one_process() -> None:
    labels = np.argmax(Y, axis=1)

    def weights_of(data: Any, *, prepared: bool) -> list[Any]:
        keras.utils.set_random_seed(3)
        inputs = keras.Input((3,))
        outputs = {
            "numbers": keras.layers.Dense(2, name="numbers")(inputs),
            "labels": keras.layers.Dense(2, name="labels", activation="softmax")(inputs),
        }
        model = keras.Model(inputs, outputs)
        optimizer = keras.optimizers.Adam(0.05)
        if prepared:
            hvt.prepare(optimizer)
        losses = {"numbers": "mse", "labels": "sparse_categorical_crossentropy"}
        model.compile(optimizer=optimizer, loss=losses, jit_compile=False)
        model.fit(data, epochs=3, verbose=0)
        weights: list[Any] = model.get_weights()
        return weights

    data = samples(X, {"numbers": Y, "labels": labels})
    own = shard(data.batch(BATCH), uneven="weighted")
    require_equal(
        weights_of(own, prepared=True), weights_of(data.batch(BATCH * SIZE), prepared=False)
    )


def check_weighted_with_fewer_samples_than_ranks() -> None:
    few = (X[: SIZE - 1], Y[: SIZE - 1])
    own = shard(samples(*few).batch(BATCH), uneven="weighted")
    require_equal(
        trained(own, prepared=True),
        trained(samples(*few).batch(BATCH * SIZE), prepared=False),
    )


def check_early_sharding() -> None:
    """Sharded before samples are created and batched, as with files."""

    def made(row: Any) -> Any:
        return tf.gather(X, row), tf.gather(Y, row)

    own = shard(Dataset.range(WHOLE)).map(made).batch(BATCH)
    combined = Dataset.range(EVEN).map(made).batch(BATCH * SIZE)
    require_equal(trained(own, prepared=True), trained(combined, prepared=False))


class Rows(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of X, Y and, if `weighted`, W."""

    def __init__(self, whole: int, rows: int, *, weighted: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.whole = whole
        self.rows = rows
        self.arrays = (X, Y, W) if weighted else (X, Y)

    def __len__(self) -> int:
        return -(-self.whole // self.rows)

    def __getitem__(self, index: int) -> Any:
        rows = slice(index * self.rows, min(self.whole, (index + 1) * self.rows))
        return tuple(array[rows] for array in self.arrays)


def check_fit_on_a_py_dataset_equals_one_process() -> None:
    whole_rounds = BATCH * SIZE * (WHOLE // (BATCH * SIZE))
    # fit() shuffles rounds in the same way with the same seed.
    for weighted, workers, shuffle in ((False, 1, True), (True, 2, False)):
        for uneven, length in (("drop", whole_rounds), ("weighted", WHOLE)):
            own = shard(Rows(WHOLE, BATCH, weighted=weighted, workers=workers), uneven=uneven)
            combined = Rows(length, BATCH * SIZE, weighted=weighted)
            require_equal(
                trained(own, prepared=True, shuffle=shuffle),
                trained(combined, prepared=False, shuffle=shuffle),
            )


def check_a_warning_for_different_shuffling_of_a_py_dataset() -> None:
    for seed, warned in ((1, False), (1 + RANK, True)):
        random.seed(seed)
        with heard() as lines:
            shard(Rows(WHOLE, BATCH), uneven="weighted")
        assert any("fit() shuffles the batches" in line for line in lines) == (warned and RANK == 0)


def check_fit_on_arrays_equals_one_process() -> None:
    own = shard((X, Y))
    assert np.shares_memory(own[0], X)
    combined = (X[:EVEN], Y[:EVEN])
    require_equal(
        trained(own, prepared=True, batch_size=BATCH, shuffle=False),
        trained(combined, prepared=False, batch_size=BATCH * SIZE, shuffle=False),
    )


def check_evaluation_of_every_sample_once() -> None:
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(loss="mse")
    expected = model.evaluate(X, Y, batch_size=BATCH, verbose=0)
    own = shard(samples(X, Y).batch(BATCH), uneven="ragged")
    loss = model.evaluate(own, verbose=0)
    count = len(range(RANK, WHOLE, SIZE))
    assert abs(hvt.average(loss, count=count) - expected) < 1e-12


def check_each_epoch_has_every_sample_in_a_new_order() -> None:
    """Shuffled before and after batch(), with an explicit seed and with Keras' own."""
    for early, late, seed in ((True, False, 9), (False, True, 9), (True, True, None)):
        keras.utils.set_random_seed(6)
        data = Dataset.range(WHOLE).map(lambda row: (row, row))
        data = data.shuffle(WHOLE, seed=seed) if early else data
        data = data.batch(BATCH)
        data = data.shuffle(WHOLE, seed=seed) if late else data
        for uneven in ("drop", "pad", "weighted", "ragged"):
            own = shard(data, uneven=uneven)
            epochs = [gather_object(real_samples(own), "test.epoch") for _ in range(2)]
            assert epochs[0] != epochs[1]
            for ranks in epochs:
                require_epoch([row for rows in ranks for row in rows], uneven)


def real_samples(own: Any) -> list[int]:
    """The samples with a weight above 0."""
    rows = []
    for row, _, *weights in own:
        counts = weights[0].numpy() > 0 if weights else [True] * len(row)
        rows += [int(k) for k, real in zip(row, counts, strict=True) if real]
    return rows


def require_epoch(rows: list[int], uneven: str) -> None:
    if uneven == "pad":
        assert len(rows) == WHOLE + -WHOLE % SIZE
        assert set(rows) == set(range(WHOLE))
    else:
        assert len(rows) == len(set(rows)) == (EVEN if uneven == "drop" else WHOLE)


def check_different_data_are_refused() -> None:
    rows = Dataset.range(WHOLE)
    last = SIZE - 1
    for make in (
        lambda: shard(Dataset.range(WHOLE + (last == RANK)).batch(BATCH)),
        lambda: shard(rows.batch(BATCH + (last == RANK))),
        lambda: shard(rows.map(lambda k: (k, k)) if last == RANK else rows),
        lambda: shard(rows.batch(BATCH), uneven="pad" if last == RANK else "drop"),
        lambda: shard(Rows(WHOLE, BATCH) if last == RANK else rows.batch(BATCH)),
        lambda: shard(Rows(WHOLE - (last == RANK), BATCH)),
        lambda: shard(X[: WHOLE - (last == RANK)]),
        lambda: shard({"x": X} if last == RANK else {"y": X}),
        lambda: shard(X[::-1] if last == RANK else X),
    ):
        assert "gave shard() different data (rank 0: " in refused(f"; rank {last}: ", make)


def check_different_orders_are_refused() -> None:
    last = SIZE - 1

    def made(arrange: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: shard(arrange(Dataset.range(WHOLE)).batch(BATCH))

    def shuffled_with(seed: int | None) -> Callable[[Any], Any]:
        return lambda data: data.shuffle(8, seed=seed)

    other = f"with a different seed on rank {last} than on rank 0"
    keras.utils.set_random_seed(1)
    refused(other, made(shuffled_with(1 + (last == RANK))))
    keras.utils.set_random_seed(1 + (last == RANK))
    refused(other, made(shuffled_with(None)))
    refused(other, made(shuffled_with(5)))
    refused(f"splits the data already, on rank {last}", made(split_for(last)))
    once = shard(Dataset.range(WHOLE).batch(BATCH))
    refused("splits the data already", lambda: shard(once))
    made(lambda data: data.shard(2, 0))()  # the same part on all ranks, as for validation


def split_for(last: int) -> Callable[[Any], Any]:
    return lambda data: data.shard(WHOLE, int(last == RANK))


def check_random_orders_are_refused() -> None:
    keras.utils.set_random_seed(1)
    options = tf.data.Options()
    options.deterministic = False
    refused(
        "as they become ready (deterministic=False)",
        lambda: shard(Dataset.range(WHOLE).with_options(options).batch(BATCH)),
    )
    tf.random.set_seed(None)
    refused(
        "shuffled without a seed", lambda: shard(Dataset.range(WHOLE).shuffle(WHOLE).batch(BATCH))
    )


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1:])
