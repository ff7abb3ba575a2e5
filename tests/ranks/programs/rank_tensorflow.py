"""Run in every rank: hvdtools.tensorflow in custom loops, compared with one process."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf
from checking_base import refused, run_checks

import hvdtools.tensorflow as hvt
from hvdtools.core.errors import HvdtoolsError

TOPOLOGY = hvt.init()
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
BATCH, STEPS = 4, 5
RNG = np.random.default_rng(11)
X = RNG.normal(size=(BATCH * SIZE * STEPS, 6))
WORDS = RNG.integers(0, 9, size=len(X))
Y = np.tanh(X @ RNG.normal(size=(6, 2)))
Tape = Callable[[], Any]


def variables() -> dict[str, Any]:
    """Those of a network of one dense layer and one embedding, float64."""
    random = np.random.default_rng(5)
    shapes = {"kernel": (6, 2), "bias": (2,), "table": (9, 6)}
    return {
        name: tf.Variable(random.normal(size=shape), name=name) for name, shape in shapes.items()
    }


def train(tape: Tape, rank: int, size: int, *, compiled: bool) -> dict[str, Any]:
    """Gradient descent over every size-th sample; with size 1 over the combined batches."""
    held = variables()

    def step(x: Any, words: Any, y: Any) -> None:
        with tape() as recorded:
            rows = tf.gather(held["table"], words)  # its gradient is tf.IndexedSlices
            out = (x + rows) @ held["kernel"] + held["bias"]
            loss = tf.reduce_mean(tf.square(out - y))
        gradients = recorded.gradient(loss, held)
        assert isinstance(gradients["table"], tf.IndexedSlices)
        for name, gradient in gradients.items():
            if isinstance(gradient, tf.IndexedSlices):
                held[name].scatter_sub(tf.IndexedSlices(0.1 * gradient.values, gradient.indices))
            else:
                held[name].assign_sub(0.1 * gradient)

    run = tf.function(step) if compiled else step
    for number in range(STEPS):
        rows = slice(number * BATCH * SIZE, (number + 1) * BATCH * SIZE)
        run(*(tf.constant(array[rows][rank::size]) for array in (X, WORDS, Y)))
    return {name: variable.numpy() for name, variable in held.items()}


def require_same_as_one_process(tape: Tape, *, compiled: bool) -> None:
    ours = train(tape, RANK, SIZE, compiled=compiled)
    theirs = train(tf.GradientTape, 0, 1, compiled=compiled)
    for name, expected in theirs.items():
        assert np.abs(ours[name] - expected).max() < 1e-13, name
        assert all(np.array_equal(other, ours[name]) for other in hvt.gather(ours[name]))


def check_eager_loop() -> None:
    require_same_as_one_process(hvt.GradientTape, compiled=False)


def check_loop_under_tf_function() -> None:
    require_same_as_one_process(hvt.GradientTape, compiled=True)


def check_a_bucket_for_each_variable() -> None:
    require_same_as_one_process(lambda: hvt.GradientTape(bucket_mib=1e-6), compiled=True)


def check_sparse_as_dense() -> None:
    table = tf.Variable(np.zeros((4, 2)))
    with hvt.GradientTape(sparse_as_dense=True) as tape:
        loss = tf.reduce_sum(tf.gather(table, [RANK % 4]))
    gradient = tape.gradient(loss, table)
    assert not isinstance(gradient, tf.IndexedSlices)
    expected = np.zeros((4, 2))
    for rank in range(SIZE):
        expected[rank % 4] += 1 / SIZE
    assert np.allclose(gradient, expected, atol=1e-15)


def check_different_numbers_of_rows() -> None:
    table = tf.Variable(np.zeros((5, 1)))
    with hvt.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table, list(range(RANK + 1))))
    rows = tape.gradient(loss, table)
    expected = [sum(rank >= row for rank in range(SIZE)) / SIZE for row in range(5)]
    assert np.allclose(tf.convert_to_tensor(rows)[:, 0], expected, atol=1e-15)


def check_structures_and_persistent_tapes() -> None:
    one, other = tf.Variable([1.0]), tf.Variable([[2.0, 3.0]])
    with hvt.GradientTape(persistent=True) as tape:
        loss = (RANK + 1) * (tf.reduce_sum(one) + 2 * tf.reduce_sum(other))
        never = tf.constant(1.0)
    mean = (SIZE + 1) / 2
    nested = tape.gradient(loss, {"a": one, "b": [other]})
    assert np.allclose(nested["a"], mean)
    assert np.allclose(nested["b"][0], 2 * mean)
    assert np.allclose(tape.gradient(loss, one), mean)
    assert tape.gradient(never, [one]) == [None]


def check_two_tapes_in_one_function() -> None:
    one, other = tf.Variable([1.0]), tf.Variable([2.0])

    @tf.function
    def both(factor: Any) -> Any:
        with hvt.GradientTape() as first:
            loss = one * factor
        with hvt.GradientTape() as second:
            more = other * 10 * factor
        return first.gradient(loss, one), second.gradient(more, other)

    mean = (SIZE - 1) / 2
    for _ in range(3):
        gradient, tenfold = both(tf.constant(float(RANK)))
        assert np.allclose(gradient, mean)
        assert np.allclose(tenfold, 10 * mean)


def check_tapes_in_scopes_branches_and_functions() -> None:
    """Gradients in a different order on each rank are matched correctly."""
    one, other, third = (tf.Variable([0.0]) for _ in range(3))

    def late(value: Any, rank: int) -> Any:
        wait = 0.3 if rank == RANK else 0.0
        slow = tf.py_function(lambda x: (time.sleep(wait), x)[1], [value], tf.float32)
        slow.set_shape([])
        return slow

    def gradient(variable: Any, factor: Any) -> Any:
        with hvt.GradientTape() as tape:
            loss = tf.reduce_sum(variable * factor)
        return tape.gradient(loss, variable)

    @tf.function
    def inner(factor: Any) -> Any:
        return gradient(third, 100 * factor)

    @tf.function
    def all_of_them(factor: Any) -> Any:
        with tf.name_scope("one"):
            first = gradient(one, late(factor, 0))
        with tf.name_scope("other"):
            second = tf.cond(
                factor >= 0, lambda: gradient(other, 10 * late(factor, 1)), lambda: tf.zeros([1])
            )
        return first, second, inner(factor)

    mean = (SIZE - 1) / 2
    for _ in range(2):
        found = [float(value[0]) for value in all_of_them(tf.constant(float(RANK)))]
        assert np.allclose(found, [mean, 10 * mean, 100 * mean]), found


def check_a_function_traced_again_on_one_rank() -> None:
    """A last batch of another shape on one rank: the others keep their graph."""
    weight = tf.Variable([1.0])

    @tf.function
    def step(x: Any) -> Any:
        with hvt.GradientTape() as tape:
            loss = tf.reduce_mean(x) * weight
        return tape.gradient(loss, weight)

    for turn in range(3):
        length = 2 if RANK == 0 and turn == 1 else 4
        assert np.allclose(step(tf.fill([length], float(RANK))), (SIZE - 1) / 2)


def check_parallel_functions_with_one_name() -> None:
    """As a GAN's two steps: each a tf.function, called by a third one without an order."""
    one, other = tf.Variable([0.0]), tf.Variable([0.0])

    def made(variable: Any, slow_rank: int) -> Any:
        def pause(x: Any) -> Any:
            time.sleep(0.3 if slow_rank == RANK else 0.0)
            return x

        @tf.function
        def step(factor: Any) -> Any:
            late = tf.py_function(pause, [factor], tf.float32)
            late.set_shape([])
            with hvt.GradientTape() as tape:
                loss = tf.reduce_sum(variable * late)
            return tape.gradient(loss, variable)

        return step

    first, second = made(one, 0), made(other, 1)

    @tf.function
    def both(factor: Any) -> Any:
        return first(factor), second(10 * factor)

    mean = (SIZE - 1) / 2
    for _ in range(2):
        found = [float(value[0]) for value in both(tf.constant(float(RANK)))]
        assert np.allclose(found, [mean, 10 * mean]), found


def check_constant_gradients_are_sent_in_every_step() -> None:
    """TensorFlow folds operations on constants; a rank that retraces would then wait forever."""
    weight = tf.Variable([1.0])

    @tf.function
    def step(x: Any) -> Any:
        with hvt.GradientTape() as tape:
            loss = 3.0 * (RANK + 1) * weight + tf.reduce_sum(x) * 0.0
        return tape.gradient(loss, weight)

    for turn in range(4):
        length = 2 if RANK == 0 and turn == 2 else 4
        assert np.allclose(step(tf.zeros([length])), 3 * (SIZE + 1) / 2)


def check_gradients_by_inputs_are_refused() -> None:
    x = tf.constant([1.0])
    with hvt.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    refused("take gradients by inputs from tf.GradientTape", lambda: tape.gradient(y, x))


def check_complex_variables_in_sync() -> None:
    for dtype in ("complex64", "complex128"):
        held = [tf.Variable(np.array([1, 2j], dtype))]
        hvt.assert_in_sync(held)
        if SIZE > 1:
            held[0].assign(held[0] * (1 + RANK))
            refused("diverged", lambda held=held: hvt.assert_in_sync(held))


def check_xla_is_refused() -> None:
    if SIZE == 1:
        return
    weight = tf.Variable([1.0])

    @tf.function(jit_compile=True)
    def step() -> Any:
        with hvt.GradientTape() as tape:
            loss = weight * 2
        return tape.gradient(loss, weight)

    refused("compiled by XLA", step)


def check_broadcast_variables() -> None:
    for dtype in ("float32", "float64", "bfloat16", "float16", "int64", "uint8", "bool"):
        held = [
            tf.Variable(tf.cast(tf.fill([3, 2], RANK + 1), dtype)),
            tf.Variable(tf.cast(RANK, dtype)),
            tf.Variable(tf.zeros([0, 4], dtype)),
        ]
        hvt.broadcast_variables(held, root=SIZE - 1)
        assert np.array_equal(held[0].numpy(), np.full((3, 2), SIZE).astype(held[0].numpy().dtype))
        assert held[1].numpy() == np.array(SIZE - 1).astype(held[1].numpy().dtype)


def check_different_models_are_named() -> None:
    if SIZE == 1:
        return
    held = [tf.Variable([1.0]), tf.Variable(np.zeros(3 if RANK == SIZE - 1 else 2))]
    message = refused("different models", lambda: hvt.broadcast_variables(held))
    assert "on rank 0" in message
    assert f"on rank {SIZE - 1}" in message


def check_diverged_replicas_are_named() -> None:
    held = [tf.Variable(np.arange(7.0), name="first"), tf.Variable([True, False], name="second")]
    hvt.assert_in_sync(held)
    if SIZE == 1:
        return
    if RANK == 1:
        held[0].assign(
            np.nextafter(held[0].numpy(), 1e9) * np.eye(7)[6] + np.arange(7) * (1 - np.eye(7)[6])
        )
    message = refused("Replicas diverged", lambda: hvt.assert_in_sync(held))
    assert "first" in message
    assert "rank 1 differs" in message
    assert "second" not in message


def check_average() -> None:
    assert hvt.average(RANK + 1) == (SIZE + 1) / 2
    if SIZE > 1:
        weighted = hvt.average({"a": float(RANK), "b": np.array([RANK, 1.0])}, count=RANK)
        counts = sum(range(SIZE))
        assert np.isclose(weighted["a"], sum(r * r for r in range(SIZE)) / counts, rtol=1e-15)
        assert np.allclose(weighted["b"][1], 1)
    nothing = float("nan") if RANK == 0 and SIZE > 1 else 4.0
    assert hvt.average(nothing, count=0 if np.isnan(nothing) else 1) == 4
    refused("0 or more", lambda: hvt.average(1.0, count=-1))
    refused("cannot average 'value', a str", lambda: hvt.average("x"))
    refused("nothing to average", lambda: hvt.average(1.0, count=0))
    if SIZE > 1:
        refused("different names or shapes", lambda: hvt.average({f"rank {RANK}": 1.0}))


def check_gather_and_broadcast() -> None:
    own = np.full((RANK, 2), RANK, "int16")
    for rank, other in enumerate(hvt.gather(own)):
        assert other.shape == (rank, 2)
        assert other.dtype == np.int16
    assert hvt.broadcast({"from": RANK}, root=SIZE - 1) == {"from": SIZE - 1}
    refused("one of the ranks", lambda: hvt.broadcast(1, root=SIZE))


def check_init_again_and_another_size() -> None:
    assert hvt.init() == TOPOLOGY
    refused(f"has {SIZE} rank", lambda: hvt.init(expect_size=SIZE + 1))
    threads = os.environ.get("OMP_NUM_THREADS")
    assert threads is None or tf.config.threading.get_intra_op_parallelism_threads() == int(threads)


def check_errors_are_hvdtools_errors() -> None:
    try:
        hvt.broadcast_variables([tf.Variable(1.0)], root=-1)
    except HvdtoolsError:
        return
    raise AssertionError("root=-1 was taken")


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1:])
