"""Run in every rank: prepare() on Keras optimizers, compared with one process.

Rank 0 also trains by itself, on the combined batches, with a plain optimizer: the ranks
together must get the same weights.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
import tensorflow as tf
from checking_base import refused, run_checks

import hvdtools.keras as hvt
from hvdtools.keras.optimizer import averaging_of

TOPOLOGY = hvt.init()
keras.config.set_floatx("float64")
RANK, SIZE = TOPOLOGY.rank, TOPOLOGY.size
BATCH, STEPS = 8, 6
RNG = np.random.default_rng(7)
X = RNG.normal(size=(BATCH * SIZE * STEPS, 6))
Y = np.tanh(X @ RNG.normal(size=(6, 2)))
X32 = X.astype("float32")
WORDS = RNG.integers(0, 20, size=(len(X), 5))
Make = Callable[[], Any]


def dense(dtype: str = "float64") -> Any:
    """`dtype` is that of the layers, or their policy."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh", dtype=dtype),
            keras.layers.Dense(2, dtype=dtype),
        ]
    )


def train(
    optimizer: Any,
    rank: int,
    size: int,
    build: Callable[[], Any] = dense,
    x: Any = X,
    *,
    epochs: int = 2,
    **compiling: Any,
) -> Any:
    """Fit on every size-th sample; with size 1 on the combined batches. Returns the model."""
    keras.utils.set_random_seed(3)
    model = build()
    model.compile(optimizer=optimizer, loss="mse", **{"jit_compile": False, **compiling})
    batch = BATCH * SIZE // size
    model.fit(x[rank::size], Y[rank::size], batch, epochs=epochs, shuffle=False, verbose=0)
    return model


def train_reference(make: Make, **options: Any) -> list[np.ndarray]:
    """The weights that one process trains: rank 0 trains and broadcasts them."""
    return hvt.broadcast(train(make(), 0, 1, **options).get_weights() if RANK == 0 else [])


def relative_difference(ours: Any, theirs: list[np.ndarray]) -> float:
    """The largest difference between a model's weights and others, relative to the weights."""
    pairs = zip(ours.get_weights(), theirs, strict=True)
    return max(float(np.abs(a - b).max() / (1e-3 + np.abs(b).max())) for a, b in pairs)


def equals_one_process(
    make: Make, tolerance: float, build_reference: Callable[[], Any] | None = None, **options: Any
) -> Any:
    """Check it, and that training changed the weights. Returns the ranks' model.

    `build_reference` builds the model of the one process if `build`'s would use collectives.
    """
    ours = train(hvt.prepare(make()), RANK, SIZE, **options)
    theirs = train_reference(
        make, **options | ({"build": build_reference} if build_reference else {})
    )
    keras.utils.set_random_seed(3)
    untrained = options.get("build", dense)()
    assert relative_difference(untrained, theirs) > 1e-3
    assert relative_difference(ours, theirs) < tolerance, relative_difference(ours, theirs)
    require_same_on_all_ranks(ours.get_weights())
    return ours


def require_same_on_all_ranks(weights: Any) -> None:
    """Bit for bit."""
    for held in weights:
        others = hvt.gather(held)
        assert all(np.array_equal(other, others[0], equal_nan=True) for other in others)


OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01, centered=True),
    "Adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "Adadelta": lambda: keras.optimizers.Adadelta(1.0),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "Adamax": lambda: keras.optimizers.Adamax(0.01),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "Nadam": lambda: keras.optimizers.Nadam(0.01),
    "Ftrl": lambda: keras.optimizers.Ftrl(0.05),
    "Lion": lambda: keras.optimizers.Lion(0.01),
    "Lamb": lambda: keras.optimizers.Lamb(0.01),
    "Muon": lambda: keras.optimizers.Muon(0.01),
    "ScheduleFreeAdamW": lambda: keras.optimizers.ScheduleFreeAdamW(0.01),
    "MultiOptimizer": lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1), {".*bias": keras.optimizers.Adam(0.01)}
        )
    ),
}
SETTINGS: dict[str, Make] = {
    "clipnorm": lambda: keras.optimizers.SGD(0.5, clipnorm=0.05),
    "global_clipnorm": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.05),
    "clipvalue": lambda: keras.optimizers.SGD(0.5, momentum=0.5, clipvalue=0.01),
    "accumulation": lambda: keras.optimizers.AdamW(0.01, gradient_accumulation_steps=3),
    "accumulation and clipping": lambda: keras.optimizers.SGD(
        0.5, global_clipnorm=0.05, gradient_accumulation_steps=2
    ),
    "EMA": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.8),
    "EMA overwrite": lambda: keras.optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2
    ),
    "schedule": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.05, 10, warmup_target=0.1, warmup_steps=3)
    ),
    "callable rate": lambda: keras.optimizers.SGD(lambda: 0.05),
    "static loss scale": lambda: keras.optimizers.Adam(0.01, loss_scale_factor=8.0),
    "loss scaling": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01, global_clipnorm=0.05), dynamic_growth_steps=4
    ),
    "loss scaling and accumulation": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    ),
}


def check_every_optimizer_is_tested() -> None:
    known = {
        name
        for name, found in vars(keras.optimizers).items()
        if isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer)
    }
    tested = {type(make()).__name__ for make in OPTIMIZERS.values()}
    assert known - tested <= {"Optimizer", "LossScaleOptimizer"}, known - tested


def check_optimizers_equal_one_process() -> None:
    for make in OPTIMIZERS.values():
        equals_one_process(make, 1e-7)


def check_sgd_in_float64_to_its_last_digits() -> None:
    equals_one_process(OPTIMIZERS["momentum"], 1e-12)


def check_float32_to_rounding() -> None:
    for name in ("SGD", "Adam", "AdamW"):
        equals_one_process(OPTIMIZERS[name], 3e-5, build=lambda: dense("float32"))


def check_settings_equal_one_process() -> None:
    for make in SETTINGS.values():
        equals_one_process(make, 1e-7)
        equals_one_process(make, 1e-7, run_eagerly=True, epochs=1)


def check_many_small_buckets() -> None:
    ours = train(hvt.prepare(OPTIMIZERS["Adam"](), bucket_mib=1e-4), RANK, SIZE)
    assert relative_difference(ours, train_reference(OPTIMIZERS["Adam"])) < 1e-7


def check_several_steps_in_one_execution() -> None:
    equals_one_process(OPTIMIZERS["Adam"], 1e-7, steps_per_execution=3)


def embedding() -> Any:
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int64"),
            keras.layers.Embedding(20, 4, dtype="float64"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, dtype="float64"),
        ]
    )


def check_sparse_gradients() -> None:
    for name in ("SGD", "Adam", "AdamW"):
        equals_one_process(OPTIMIZERS[name], 1e-7, build=embedding, x=WORDS)
    # Only for an optimizer that treats sparse gradients as it does dense ones.
    made_dense = hvt.prepare(OPTIMIZERS["SGD"](), sparse_as_dense=True)
    ours = train(made_dense, RANK, SIZE, embedding, WORDS)
    assert (
        relative_difference(ours, train_reference(OPTIMIZERS["SGD"], build=embedding, x=WORDS))
        < 1e-7
    )


class Unused(keras.Model):
    """Has a layer that its loss does not use."""

    def __init__(self) -> None:
        super().__init__(dtype="float64")
        self.used = keras.layers.Dense(2, dtype="float64")
        self.unused = keras.layers.Dense(3, dtype="float64")

    def build(self, shape: Any) -> None:
        self.used.build(shape)
        self.unused.build(shape)
        self.built = True

    @classmethod
    def made(cls) -> Unused:
        model = cls()
        model.build((None, 6))
        return model

    def call(self, x: Any) -> Any:
        return self.used(x)


def check_variables_that_the_loss_does_not_use() -> None:
    equals_one_process(
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.5), 1e-7, build=Unused.made
    )


def check_a_gradient_on_some_ranks_only_is_an_error_on_all() -> None:
    if SIZE == 1:
        return
    optimizer = hvt.prepare(keras.optimizers.SGD(0.1))
    first, second = tf.Variable([1.0, 2.0], name="first"), tf.Variable([3.0], name="second")
    gradients = [tf.constant([1.0, 1.0]), tf.constant([1.0]) if RANK == 0 else None]
    try:
        optimizer.apply(gradients, [first, second])
    except tf.errors.InvalidArgumentError as error:
        assert "second" in str(error) and "let the loss use them on every rank" in str(error)
    else:
        raise AssertionError("nothing was raised")
    assert np.array_equal(first.numpy(), [1.0, 2.0])


def check_low_precision_weights() -> None:
    """bfloat16 and float16 gradients are averaged."""
    for dtype in ("bfloat16", "float16"):
        optimizer = hvt.prepare(keras.optimizers.SGD(1.0))
        variable = tf.Variable(tf.zeros([3], dtype))
        optimizer.apply([tf.constant([RANK, 2 * RANK, 1], dtype)], [variable])
        mean = (SIZE - 1) / 2
        assert np.allclose(variable.numpy().astype(float), [-mean, -2 * mean, -1], atol=1e-2)


def check_mixed_precision_decides_alike_on_all_ranks() -> None:
    """An inf on one rank: all skip the step and halve the loss scale."""
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = dense("mixed_float16")
        assert model.dtype_policy.name == "mixed_float16"
        model.compile(optimizer=hvt.prepare(keras.optimizers.Adam(0.01)), loss="mse")
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        x, y = X[RANK::SIZE].astype("float32"), Y[RANK::SIZE].astype("float32")
        model.train_on_batch(x[:BATCH], y[:BATCH])
        before = model.get_weights()
        scale = float(model.optimizer.dynamic_scale)
        bad = np.where(RANK == SIZE - 1, np.inf, 1.0) * x[:BATCH]
        model.train_on_batch(bad, y[:BATCH])
        assert all(map(np.array_equal, before, model.get_weights()))
        assert float(model.optimizer.dynamic_scale) == scale / 2
        model.train_on_batch(x[:BATCH], y[:BATCH])
        assert not all(map(np.array_equal, before, model.get_weights()))
        require_same_on_all_ranks([*model.get_weights(), model.optimizer.dynamic_scale.numpy()])
    finally:
        keras.config.set_dtype_policy("float64")


def half() -> Any:
    return dense("mixed_float16")


def check_mixed_precision_is_near_one_process() -> None:
    """float16 rounds a batch of another size differently: the result is near, not equal."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        ours = train(hvt.prepare(OPTIMIZERS["SGD"]()), RANK, SIZE, half, X32)
        theirs = train_reference(OPTIMIZERS["SGD"], build=half, x=X32)
    finally:
        keras.config.set_dtype_policy("float64")
    assert isinstance(ours.optimizer, keras.optimizers.LossScaleOptimizer)
    assert relative_difference(ours, theirs) < 1e-2
    require_same_on_all_ranks(ours.get_weights())


def normed(synchronized: bool) -> Callable[[], Any]:
    def build() -> Any:
        return keras.Sequential(
            [
                keras.Input((6,), dtype="float64"),
                keras.layers.Dense(8, dtype="float64"),
                keras.layers.BatchNormalization(dtype="float64", synchronized=synchronized),
                keras.layers.Dense(2, dtype="float64"),
            ]
        )

    return build


def check_batch_norm_synchronized() -> None:
    equals_one_process(OPTIMIZERS["momentum"], 1e-9, normed(False), build=normed(True))


def branches(synchronized: bool) -> Callable[[], Any]:
    """Several parallel layers of one width."""

    def build() -> Any:
        inputs = keras.Input((6,))
        normed = [
            keras.layers.BatchNormalization(synchronized=synchronized)(
                keras.layers.Dense(8)(inputs)
            )
            for _ in range(4)
        ]
        return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(normed)))

    return build


def check_batch_norm_synchronized_in_branches() -> None:
    equals_one_process(OPTIMIZERS["momentum"], 1e-9, branches(False), build=branches(True))


def check_a_mask_and_synchronized_statistics_are_refused() -> None:
    if SIZE == 1:
        return
    layer = keras.layers.BatchNormalization(synchronized=True)
    mask = np.ones((3, 5), bool)
    refused("gets a mask", lambda: layer(np.ones((3, 5, 2)), training=True, mask=mask))


def check_batch_norm_of_images_and_float16() -> None:
    """Several axes, and an input that Keras casts to float32 for the statistics."""
    for dtype, tolerance in (("float64", 1e-9), ("float16", 1e-2)):
        layer = keras.layers.BatchNormalization(synchronized=True, dtype=dtype)
        images = np.random.default_rng(1).normal(size=(4 * SIZE, 3, 3, 2)).astype(dtype)
        ours = np.asarray(layer(images[RANK::SIZE], training=True)).astype(float)
        mean, spread = images.astype(float).mean((0, 1, 2)), images.astype(float).std((0, 1, 2))
        expected = (images[RANK::SIZE] - mean) / np.sqrt(spread**2 + layer.epsilon)
        assert np.abs(ours - expected).max() < tolerance


def check_batch_norm_otherwise_local() -> None:
    if SIZE == 1:
        return
    model = train(hvt.prepare(OPTIMIZERS["SGD"]()), RANK, SIZE, normed(False))
    require_same_on_all_ranks([w.numpy() for w in model.trainable_weights])
    statistics = [w.numpy() for w in model.non_trainable_weights]
    assert not np.array_equal(*hvt.gather(statistics[0])[:2])


def check_a_subclass_and_a_copy() -> None:
    class Halved(keras.optimizers.SGD):
        """Overrides both what Keras documents and what it does not."""

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            super().apply([g / 2 for g in grads], trainable_variables)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            super().update_step(gradient * 3, variable, learning_rate)

    equals_one_process(lambda: Halved(0.05), 1e-7)
    optimizer = hvt.prepare(Halved(0.05))
    assert type(optimizer) is Halved
    # Keras copies by configuration: the copy is another optimizer, which is not prepared.
    copied = copy.deepcopy(hvt.prepare(OPTIMIZERS["Adam"]()))
    assert averaging_of(copied) is None
    hvt.prepare(Halved.from_config(optimizer.get_config()))


def check_two_models_in_alternation() -> None:
    pair = [train(hvt.prepare(OPTIMIZERS["Adam"]()), RANK, SIZE, epochs=1) for _ in range(2)]
    plain = [train(OPTIMIZERS["Adam"](), 0, 1, epochs=1) for _ in range(2)]
    for step in range(3):
        for ours, theirs, turn in zip(pair, plain, range(2), strict=True):
            rows = slice(step * BATCH * SIZE, (step + 1) * BATCH * SIZE)
            x, y = X[rows] * (1 + turn), Y[rows]
            ours.train_on_batch(x[RANK::SIZE], y[RANK::SIZE])
            theirs.train_on_batch(x, y)
    assert all(
        relative_difference(ours, theirs.get_weights()) < 1e-7
        for ours, theirs in zip(pair, plain, strict=True)
    )


def check_a_loaded_model_resumes() -> None:
    """Saved half way by rank 0, loaded on every rank: equal to uninterrupted training."""
    file = Path(hvt.broadcast(tempfile.mkdtemp())) / "model.keras"
    half_way = train(hvt.prepare(OPTIMIZERS["Adam"]()), RANK, SIZE, epochs=1)
    if RANK == 0:
        half_way.save(file)
    hvt.broadcast(None)
    model = hvt.prepare(keras.saving.load_model(file))
    model.fit(X[RANK::SIZE], Y[RANK::SIZE], BATCH, shuffle=False, verbose=0)
    assert relative_difference(model, train_reference(OPTIMIZERS["Adam"])) < 1e-7


def check_save_and_load() -> None:
    """One file from rank 0, which the others cannot see."""
    folder = Path(tempfile.mkdtemp())  # another on each rank
    file = folder / "model.keras"
    half_way = train(hvt.prepare(OPTIMIZERS["AdamW"]()), RANK, SIZE, epochs=1)
    hvt.save(file, half_way)
    assert [other.name for other in folder.iterdir()] == (["model.keras"] if RANK == 0 else [])
    model = hvt.load(file)
    model.fit(X[RANK::SIZE], Y[RANK::SIZE], BATCH, shuffle=False, verbose=0)
    assert relative_difference(model, train_reference(OPTIMIZERS["AdamW"])) < 1e-7
    refused("must end in .keras", lambda: hvt.save(folder / "model.h5", model))
    refused("load() could not read", lambda: hvt.load(folder / "absent.keras"))
    if RANK == 0:
        (folder / "bad.keras").write_text("no model")
    refused("load() could not read", lambda: hvt.load(folder / "bad.keras"))
    refused("save() could not write", lambda: hvt.save("/proc/none/model.keras", model))


def check_saving_in_the_middle_of_an_accumulation() -> None:
    file = Path(hvt.broadcast(tempfile.mkdtemp())) / "model.keras"
    make = lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=4)  # noqa: E731
    half_way = train(hvt.prepare(make()), RANK, SIZE, epochs=1)  # 6 steps: 2 are added up
    hvt.save(file, half_way)
    model = hvt.load(file)
    for each in (model, half_way):
        each.fit(X[RANK::SIZE], Y[RANK::SIZE], BATCH, shuffle=False, verbose=0)
        assert relative_difference(each, train_reference(make)) < 1e-7


def check_the_replica_check_of_a_model() -> None:
    model = train(hvt.prepare(OPTIMIZERS["Adam"]()), RANK, SIZE, normed(False), epochs=1)
    hvt.assert_in_sync(model)
    if SIZE == 1:
        return
    moment = model.optimizer.variables[-1]
    moment.assign(moment + RANK)
    assert moment.path in refused("Replicas diverged", lambda: hvt.assert_in_sync(model))


LOAD_WITHOUT_HOROVOD = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("horovod", "hvdtools"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[2], model.predict(x, verbose=0))
model.fit(x, model.predict(x, verbose=0), verbose=0)
print(type(model.optimizer).__module__, int(model.optimizer.iterations))
"""


def check_a_saved_model_needs_neither_horovod_nor_hvdtools() -> None:
    model = train(hvt.prepare(OPTIMIZERS["AdamW"]()), RANK, SIZE, epochs=1)
    if RANK:
        return
    with tempfile.TemporaryDirectory() as folder:
        file, array = Path(folder) / "model.keras", Path(folder) / "x.npy"
        model.save(file)
        np.save(array, X[:4])
        job = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "OMPI_"))}
        done = subprocess.run(
            [sys.executable, "-c", LOAD_WITHOUT_HOROVOD, str(file), str(array)],
            capture_output=True,
            text=True,
            env=job,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["keras.src.optimizers.adamw", str(STEPS + 1)]
        assert np.allclose(np.load(array), model.predict(X[:4], verbose=0))


def check_xla_is_refused() -> None:
    if SIZE == 1:
        return
    compiled = {"epochs": 1, "jit_compile": True}
    refused(
        "compiled by XLA, which has no Horovod operations",
        lambda: train(hvt.prepare(OPTIMIZERS["SGD"]()), RANK, SIZE, **compiled),
    )


def check_a_compiled_model_without_xla() -> None:
    keras.utils.set_random_seed(3)
    model = dense()
    model.compile(optimizer=OPTIMIZERS["SGD"](), loss="mse", jit_compile=True)
    hvt.prepare(model)
    model.fit(X[RANK::SIZE], Y[RANK::SIZE], BATCH, epochs=2, shuffle=False, verbose=0)
    assert relative_difference(model, train_reference(OPTIMIZERS["SGD"])) < 1e-7


def check_plain_horovod_does_not_average_and_prepare_does() -> None:
    """The fault that this package works around."""
    import horovod.tensorflow.keras as plain

    if SIZE == 1:
        return
    wrapped = train(plain.DistributedOptimizer(OPTIMIZERS["SGD"]()), RANK, SIZE)
    kernels = hvt.gather(wrapped.get_weights()[0])
    assert not np.allclose(kernels[0], kernels[1]), (
        "plain Horovod averages: this package may be superfluous"
    )
    equals_one_process(OPTIMIZERS["SGD"], 1e-7)


def check_bad_input() -> None:
    optimizer = hvt.prepare(keras.optimizers.SGD(0.1))
    refused("prepared already", lambda: hvt.prepare(optimizer))
    refused("prepared already", lambda: hvt.prepare(keras.optimizers.LossScaleOptimizer(optimizer)))
    built = keras.optimizers.SGD(0.1)
    built.build([keras.Variable([1.0])])
    refused("built already", lambda: hvt.prepare(built))
    refused("a Keras optimizer such as", lambda: hvt.prepare("adam"))
    refused("not compiled", lambda: hvt.prepare(dense()))
    refused("must be more than 0", lambda: hvt.prepare(keras.optimizers.SGD(0.1), bucket_mib=0))
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        refused("tf.distribute", lambda: hvt.prepare(keras.optimizers.SGD(0.1)))


if __name__ == "__main__":
    run_checks(globals(), sys.argv[1:])
