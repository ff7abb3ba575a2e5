"""The shards of hvdtools.keras.shard(), computed for all ranks in one process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
import tensorflow as tf

import hvdtools.keras as hvt
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.sharding import UNEVEN, Sharding
from hvdtools.keras.data.arrays import shard_arrays
from hvdtools.keras.data.pipeline import INFINITE, UNKNOWN, read_pipeline, require_shardable
from hvdtools.keras.data.pydataset import PyDatasetShard, read_batches
from hvdtools.keras.data.sample_weights import weight_rank
from hvdtools.keras.data.shard import shard
from hvdtools.keras.data.tf_dataset import last_weights, shard_dataset

Dataset = tf.data.Dataset


@pytest.fixture(scope="module", autouse=True)
def _started() -> None:
    hvt.init()  # before TensorFlow does anything


def assert_cardinality(count: int) -> Any:
    return tf.data.experimental.assert_cardinality(count)


def numbers(count: int) -> Any:
    """Sample k is (k, k as one number)."""
    return Dataset.from_tensor_slices((np.arange(count), np.arange(count)[:, None]))


def shardings(size: int, uneven: str) -> list[Sharding]:
    return [Sharding(rank, size, uneven, 1) for rank in range(size)]


def shard_of(dataset: Any, sharding: Sharding) -> Any:
    pipeline = read_pipeline(dataset)
    require_shardable(dataset, pipeline, sharding.uneven)
    return shard_dataset(dataset, pipeline, sharding)


def shards(dataset: Any, size: int, uneven: str) -> list[list[Any]]:
    """Each rank's elements; their number equals the cardinality."""
    datasets = [shard_of(dataset, sharding) for sharding in shardings(size, uneven)]
    elements = [list(each.as_numpy_iterator()) for each in datasets]
    assert [int(each.cardinality()) for each in datasets] == [len(each) for each in elements]
    return elements


def interleaved(columns: list[list[int]]) -> list[int]:
    """The ranks' samples in the order of one process: one of each rank in turn."""
    return [k for together in zip_longest(*columns) for k in together if k is not None]


# -- a tf.data.Dataset -----------------------------------------------------


@pytest.mark.parametrize("uneven", UNEVEN)
@pytest.mark.parametrize(
    ("whole", "batch", "size"),
    [(13, 2, 3), (12, 2, 3), (2, 2, 3), (17, 1, 4), (23, 4, 2), (25, 3, 4)],
)
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_ranks_batches_together_are_one_process_batch(
    uneven: str, whole: int, batch: int, size: int, drop_remainder: bool
) -> None:
    dataset = numbers(whole).batch(batch, drop_remainder=drop_remainder)
    mode = "drop" if drop_remainder else uneven
    too_few = whole // batch < size if drop_remainder else whole < size
    if mode == "drop" and too_few:
        with pytest.raises(HvdtoolsError, match=rf"for {size} ranks|an empty dataset"):
            shards(dataset, size, uneven)
        return
    order = list(range(whole))
    if drop_remainder:
        order = order[: whole - whole % (batch * size)]
    elif mode == "drop":
        order = order[: whole - whole % size]
    elif mode in ("pad", "weighted"):
        order += [k % whole for k in range(-whole % size)]
    sharded = shards(dataset, size, uneven)
    global_batches = [order[k : k + batch * size] for k in range(0, len(order), batch * size)]
    for step, rows in enumerate(global_batches):
        together = [[int(k) for k in own[step][0]] if step < len(own) else [] for own in sharded]
        assert interleaved(together) == rows
    steps = {len(own) for own in sharded}
    assert max(steps) == len(global_batches)
    assert len(steps) == 1 or uneven == "ragged"


@pytest.mark.parametrize("uneven", UNEVEN)
def test_a_cache_before_is_completed(uneven: str) -> None:
    """A cache that is not read to its end would be filled again in each epoch."""
    asked = []

    def ask(number: Any) -> Any:
        asked.append(int(number))
        return number

    def slow(number: Any) -> Any:
        return tf.ensure_shape(tf.py_function(ask, [number], tf.int64), [])

    for cached in (
        Dataset.range(10).map(slow).cache().batch(3),
        Dataset.range(10).map(slow).batch(3).cache(),
        Dataset.range(10).map(slow).cache(),
    ):
        pairs = cached.map(lambda k: (k, k))
        batched = pairs.element_spec[0].shape.rank == 1
        if uneven == "weighted" and not batched:
            continue
        own = shard_of(pairs, Sharding(0, 4, uneven, 1))
        asked.clear()
        first = list(own.as_numpy_iterator())
        assert sorted(asked) == list(range(10))
        assert str(list(own.as_numpy_iterator())) == str(first)
        assert len(asked) == 10


PIPELINES: dict[str, Callable[[], Any]] = {
    "batch": lambda: Dataset.range(10).batch(4),
    "drop_remainder": lambda: Dataset.range(10).batch(4, drop_remainder=True),
    "parallel": lambda: Dataset.range(10).batch(4, num_parallel_calls=2),
    "padded": lambda: Dataset.range(10).padded_batch(4),
    "map": lambda: Dataset.range(10).batch(4).map(lambda k: k + 1).prefetch(1),
    "cache": lambda: Dataset.range(10).batch(4).cache().map(lambda k: k, num_parallel_calls=2),
    "options": lambda: Dataset.range(10).batch(4).with_options(tf.data.Options()),
    "shuffle": lambda: Dataset.range(10).shuffle(5, seed=1).batch(4).shuffle(9, seed=1),
    "take": lambda: Dataset.range(10).batch(4).take(2),
    "take all": lambda: Dataset.range(10).batch(4).take(-1),
    "take more": lambda: Dataset.range(10).batch(4).take(7),
    "skip": lambda: Dataset.range(10).batch(4).skip(1),
    "skip more": lambda: Dataset.range(10).batch(4).skip(7),
    "skip, take": lambda: Dataset.range(10).batch(4).skip(1).take(1).map(lambda k: k),
    "repeat": lambda: Dataset.range(10).batch(4).repeat(3),
    "repeat none": lambda: Dataset.range(10).batch(4).repeat(0),
    "repeated before": lambda: Dataset.range(10).repeat(3).batch(4),
    "full, shuffled, taken": lambda: Dataset.range(8).batch(4).shuffle(5, seed=1).take(1),
    "full, repeated, skipped": lambda: Dataset.range(8).batch(4).repeat(3).skip(5),
    "endless, taken": lambda: Dataset.range(10).repeat().batch(4).take(5),
    "full, endless, taken": lambda: Dataset.range(8).batch(4).repeat().take(5),
    "asserted": lambda: (
        Dataset.range(10).filter(lambda k: k < 9).apply(assert_cardinality(9)).batch(4)
    ),
    "asserted batches": lambda: (
        Dataset.range(10)
        .filter(lambda k: k < 9)
        .batch(4, drop_remainder=True)
        .apply(assert_cardinality(2))
    ),
    "twice": lambda: Dataset.range(10).batch(2).batch(2),
    "zip": lambda: Dataset.zip(Dataset.range(10), Dataset.range(12)).batch(4),
    "shard": lambda: Dataset.range(10).shard(3, 0).batch(4),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_the_samples_are_counted_without_reading(name: str) -> None:
    dataset = PIPELINES[name]()
    pipeline = read_pipeline(dataset)
    rows = [len(tf.nest.flatten(batch)[0]) for batch in dataset]
    assert pipeline.batches is not None
    assert (pipeline.samples, pipeline.batches.count) == (sum(rows), len(rows))
    assert pipeline.batches.rows == max(rows, default=pipeline.batches.rows)


@pytest.mark.parametrize(
    ("make", "samples", "batched"),
    [
        (lambda: Dataset.range(10), 10, False),
        (lambda: Dataset.range(10).batch(4).unbatch().apply(assert_cardinality(10)), 10, False),
        (lambda: Dataset.range(10).batch(4).filter(lambda k: k[0] < 4), UNKNOWN, False),
        (lambda: Dataset.range(10).shard(2, 0).map(lambda k: k), 5, False),
        (lambda: Dataset.range(10).filter(lambda k: k < 4).batch(4), UNKNOWN, True),
        (lambda: Dataset.range(10).filter(lambda k: k < 4).batch(4).take(1), UNKNOWN, True),
        (lambda: Dataset.range(10).repeat().batch(4), INFINITE, True),
        (lambda: Dataset.range(10).batch(4).repeat().prefetch(1), INFINITE, True),
    ],
)
def test_samples_that_cannot_be_counted(make: Any, samples: int, batched: bool) -> None:
    pipeline = read_pipeline(make())
    assert pipeline.samples == samples
    assert (pipeline.batches is not None) == batched


def test_the_order_is_read_from_the_pipeline() -> None:
    unseeded = Dataset.zip(Dataset.range(4), Dataset.range(4).shuffle(4)).batch(2)
    assert read_pipeline(unseeded).seeds == ((0, 0),)
    assert read_pipeline(Dataset.range(4).shuffle(4, seed=0).batch(2)).seeds not in ((), ((0, 0),))
    assert read_pipeline(Dataset.range(4).shard(4, 1).batch(2)).shards == ((4, 1),)
    options = tf.data.Options()
    options.deterministic = False
    for ready_first in (
        Dataset.range(4).with_options(options).batch(2),
        Dataset.range(4).map(lambda k: k, num_parallel_calls=2, deterministic=False).batch(2),
        Dataset.range(4).batch(2, num_parallel_calls=2, deterministic=False).prefetch(1),
    ):
        assert not read_pipeline(ready_first).deterministic
    assert read_pipeline(Dataset.range(4).batch(2)).deterministic


def batches_of_4() -> Any:
    return Dataset.range(10).batch(4)


def lengthened(batch: Any) -> Any:
    """Rows as long as the batch's largest number."""
    return tf.zeros([tf.shape(batch)[0], tf.cast(tf.reduce_max(batch) + 1, tf.int32)])


def ragged_rows() -> Any:
    return Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3], [4], [5, 6], [7]]))


def varying() -> Any:
    return Dataset.range(1, 5).map(lambda k: tf.range(k))


def sparse() -> Any:
    return Dataset.range(4).map(lambda k: tf.SparseTensor([[k]], [1.0], [4]))


REFUSED: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: Dataset.range(4).filter(lambda k: k < 9).batch(2), "drop", "must know the number"),
    (lambda: Dataset.range(0).batch(2), "ragged", "an empty dataset"),
    (lambda: Dataset.range(4), "weighted", r"call shard\(\) right after batch"),
    (lambda: Dataset.range(4).batch(2), "weighted", r"must be \(x, y\) or .*; it is a TensorSpec"),
    (
        lambda: Dataset.range(4).batch(3).shuffle(2, seed=1).take(1),
        "drop",
        r"samples that take\(\) leaves",
    ),
    (
        lambda: Dataset.range(4).batch(3).repeat().skip(1).take(4),
        "drop",
        r"samples that take\(\) leaves",
    ),
    (
        lambda: Dataset.range(4).batch(2).shard(2, 0).map(lambda k: k),
        "drop",
        "a part of the batches",
    ),
    (lambda: Dataset.range(4).batch(2).map(lambda k: (k, 1)), "drop", "is a single value"),
    (lambda: varying().padded_batch(2), "drop", "that padded_batch.. padded to different lengths"),
    (lambda: varying(), "pad", "must have one static shape"),
    (lambda: sparse().batch(2), "ragged", "cannot split batches of SparseTensors"),
    (lambda: ragged_rows().batch(2), "pad", "dense tensors only, and some are ragged"),
    (
        lambda: Dataset.zip((batches_of_4(), batches_of_4())),
        "drop",
        r"the operation after batch\(\)",
    ),
    (lambda: batches_of_4().concatenate(batches_of_4()), "drop", r"the operation after batch\(\)"),
    (lambda: batches_of_4().map(lengthened), "drop", r"and a map\(\) after batch\(\) may make"),
]


@pytest.mark.parametrize(("make", "uneven", "message"), REFUSED)
def test_datasets_that_cannot_be_sharded(make: Any, uneven: str, message: str) -> None:
    with pytest.raises(HvdtoolsError, match=message):
        shard_of(make(), Sharding(0, 2, uneven, 1))


def test_elements_of_any_kind_are_samples() -> None:
    for make in (varying, sparse, ragged_rows):
        whole = [str(element) for element in make()]
        for uneven in ("drop", "ragged"):
            own = [
                [str(e) for e in shard_of(make(), sharding)] for sharding in shardings(3, uneven)
            ]
            kept = whole[: len(whole) - len(whole) % 3] if uneven == "drop" else whole
            assert own == [kept[rank::3] for rank in range(3)]
    files = Dataset.from_tensor_slices([f"file{k}" for k in range(5)])
    padded = shards(files, 3, "pad")
    assert padded == [[b"file0", b"file3"], [b"file1", b"file4"], [b"file2", b"file0"]]


def test_ragged_rows() -> None:
    for uneven, rows in (("drop", [[1], [4]]), ("ragged", [[1], [4], [7]])):
        own = shard_of(ragged_rows().batch(2).map(lambda row: row), Sharding(0, 2, uneven, 1))
        assert [row for batch in own for row in batch.to_list()] == rows


def test_unknown_shapes() -> None:
    def unknown(k: Any) -> Any:
        return tf.py_function(lambda k: tf.stack([k, k]), [k], tf.int64), k

    for uneven in UNEVEN:
        sharded = shards(Dataset.range(7).map(unknown).batch(2), 2, uneven)
        rows = [int(k) for own in sharded for batch in own for k in batch[0][:, 1]]
        left_out, again = uneven == "drop", uneven in ("pad", "weighted")
        assert sorted(rows) == sorted([*range(7 - left_out), *[0] * again])


def test_endless_datasets_are_the_same_in_all_modes() -> None:
    for uneven in UNEVEN:
        for endless in (numbers(4).repeat().batch(3), numbers(4).batch(2).repeat()):
            own = shard_of(endless, Sharding(1, 3, uneven, 1))
            assert int(own.cardinality()) == INFINITE
            rows = [int(k) for batch in own.take(4) for k in batch[0]]
            assert rows == [(1 + 3 * k) % 4 for k in range(len(rows))]
            assert all((len(batch) == 3) == (uneven == "weighted") for batch in own.take(2))
    own = shard_of(Dataset.range(4).repeat(), Sharding(1, 3, "drop", 1))
    assert [int(k) for k in own.take(3)] == [1, 0, 3]


@pytest.mark.parametrize("uneven", UNEVEN)
def test_rows_that_a_map_adds_or_removes_raise(uneven: str) -> None:
    def doubled(x: Any, y: Any) -> Any:
        return tf.concat([x, x], 0), tf.concat([y, y], 0)

    def halved(x: Any, y: Any) -> Any:
        return x[::2], y[::2]

    for change in (doubled, halved):
        own = shard_of(numbers(12).batch(4).map(change), Sharding(0, 2, uneven, 1))
        with pytest.raises(tf.errors.InvalidArgumentError, match="keep the number of rows there"):
            list(own)


def test_a_shuffled_dataset_has_a_new_order_in_each_epoch() -> None:
    for shuffled in (
        numbers(20).shuffle(20, seed=3).batch(4),
        numbers(20).batch(4).shuffle(20, seed=3),
    ):
        # The same on each rank: a dataset and its copies share their epochs.
        own = [shard_of(shuffled, sharding) for sharding in shardings(2, "drop")]
        assert read_pipeline(shuffled).samples == 20
        epochs = [[int(k) for batch in own[0] for k in batch[0]] for _ in range(2)]
        assert len(epochs[0]) == 10
        assert epochs[0] != epochs[1]


# -- weights ---------------------------------------------------------------


def test_weighted_means_are_the_mean_over_the_global_batch() -> None:
    draw = np.random.default_rng(0)
    for _ in range(3000):
        size, batch, whole = (int(draw.integers(1, high)) for high in (9, 9, 90))
        losses = draw.normal(size=whole)
        rounds = -(-whole // size)
        before = (rounds - 1) // batch * batch
        total = 0.0
        for rank in range(size):
            weights = last_weights(whole, Sharding(rank, size, "weighted", batch))
            own = losses[before * size :][rank::size]
            assert weights.count(0.0) == len(weights) - len(own)
            assert len(weights) == rounds - before
            padded = np.append(own, [1e6] * (len(weights) - len(own)))
            total += np.sum(padded * weights) / len(weights) / size
        assert abs(total - np.mean(losses[before * size :])) < 1e-12


TARGETS: dict[str, tuple[Any, Any, Any]] = {
    "classes": ((), (5,), "sparse_categorical_crossentropy"),
    "classes, one column": ((1,), (5,), "sparse_categorical_crossentropy"),
    "one hot": ((5,), (5,), "categorical_crossentropy"),
    "numbers": ((), (1,), "mean_squared_error"),
    "tokens": ((4,), (4, 5), "sparse_categorical_crossentropy"),
    "series": ((4, 2), (4, 2), "mean_squared_error"),
    "masks": ((4, 4), (4, 4, 5), "sparse_categorical_crossentropy"),
    "masks, one channel": ((4, 4, 1), (4, 4, 5), "sparse_categorical_crossentropy"),
    "images": ((4, 4, 1), (4, 4, 1), "mean_squared_error"),
    "images, three channels": ((4, 4, 3), (4, 4, 3), "mean_absolute_error"),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("own_weights", [False, True])
def test_weights_fit_the_targets_of_keras_losses(name: str, own_weights: bool) -> None:
    """A batch has as many samples as an axis has elements, so a wrong axis would also fit."""
    shape, predicted, loss_name = TARGETS[name]
    whole, batch, size = 23, 4, 3  # in the last step four rows, on one rank a filler
    draw = np.random.default_rng(1)
    one_of_five = loss_name.startswith("sparse")
    y = draw.integers(0, 5, (whole, *shape)) if one_of_five else draw.random((whole, *shape))
    prediction = draw.random((whole, *predicted)) + 0.1
    prediction /= prediction.sum(-1, keepdims=True) if predicted[-1] > 1 else 1
    w = draw.integers(1, 4, (whole, *[1] * len(shape)))
    loss = LOSSES[loss_name](dtype="float64")
    data = Dataset.from_tensor_slices((prediction, y, w) if own_weights else (prediction, y))
    sharded = shards(data.batch(batch), size, "weighted")
    start = 0
    for together in zip(*sharded, strict=True):
        assert all(np.shape(weights)[0] == len(p) for p, _, weights in together)
        mean = np.mean([float(loss(y, p, weights)) for p, y, weights in together])
        batch_rows = slice(start, start + batch * size)
        expected = loss(
            y[batch_rows], prediction[batch_rows], w[batch_rows] if own_weights else None
        )
        assert abs(mean - float(expected)) < 1e-6  # the weights are float32
        start += batch * size
    assert start >= whole


LOSSES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "mean_squared_error": keras.losses.MeanSquaredError,
    "mean_absolute_error": keras.losses.MeanAbsoluteError,
}


def test_targets_of_several_outputs() -> None:
    def rank(*shapes: tuple[int, ...]) -> int:
        return weight_rank({str(k): np.zeros(shape) for k, shape in enumerate(shapes)})

    assert rank((8,), (8, 4)) == 2
    assert rank((8, 4), (8, 2)) == 2
    assert rank((8, 4, 4), (8, 2, 2)) == 3
    for shapes in (((8,), (8, 4, 4)), ((8, 2), (8, 4, 4))):
        with pytest.raises(HvdtoolsError, match="with a weight for each"):
            rank(*shapes)
    targets = {"a": np.zeros(7), "b": np.zeros((7, 4, 4))}
    own = {"a": np.ones(7), "b": np.full((7, 4, 4), 2.0)}
    sharded = shards(
        Dataset.from_tensor_slices((np.zeros(7), targets, own)).batch(2), 2, "weighted"
    )
    lasts = [rank_batches[-1][2] for rank_batches in sharded]
    third = float(np.float32(4 / 3))
    assert [last["a"].tolist() for last in lasts] == [[third, third], [third, 0]]
    assert all((last["b"] == 2 * last["a"][:, None, None]).all() for last in lasts)


# -- a keras.utils.PyDataset -----------------------------------------------


class Rows(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of `rows` samples, of `whole` samples together; sample k is (k, k)."""

    def __init__(self, whole: int, rows: int, **options: Any) -> None:
        super().__init__(**options)
        self.whole = whole
        self.rows = rows
        self.calls: list[str] = []

    def __len__(self) -> int:
        return -(-self.whole // self.rows)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rows = np.arange(self.whole)[index * self.rows : (index + 1) * self.rows]
        return rows, rows * 1.0

    def on_epoch_begin(self) -> None:
        self.calls.append("begin")

    def on_epoch_end(self) -> None:
        self.calls.append("end")


class Endless(Rows):
    num_batches = None


class Growing(Rows):
    def __getitem__(self, index: int) -> Any:
        return (np.zeros(3 + index % 2), np.zeros(3 + index % 2))


class WithoutLength(keras.utils.PyDataset):  # type: ignore[misc]
    pass


def py_shards(dataset: Any, size: int, uneven: str) -> list[Any]:
    batches = read_batches(dataset, uneven)
    return [PyDatasetShard(dataset, batches, sharding) for sharding in shardings(size, uneven)]


@pytest.mark.parametrize("uneven", UNEVEN)
@pytest.mark.parametrize(
    ("whole", "rows", "size"), [(24, 4, 3), (23, 4, 3), (17, 4, 2), (5, 4, 3), (9, 1, 4), (2, 4, 2)]
)
def test_batches_of_a_py_dataset(uneven: str, whole: int, rows: int, size: int) -> None:
    dataset = Rows(whole, rows)
    full, count = whole // rows, -(-whole // rows)
    if uneven == "drop" and (full if count > 1 else count) < size:
        with pytest.raises(HvdtoolsError, match=f"whole batches for {size} ranks"):
            py_shards(dataset, size, uneven)
        return
    sharded = [list(each) for each in py_shards(dataset, size, uneven)]
    steps = {len(own) for own in sharded}
    assert len(steps) == 1 or uneven == "ragged"
    seen = [batch[0].tolist() for together in zip_longest(*sharded) for batch in together if batch]
    everything = [batch[0].tolist() for batch in dataset]
    if uneven == "drop":
        assert seen == everything[: full - full % size]
    if uneven == "ragged":
        assert seen == everything
    if uneven == "pad":
        assert {len(batch) for batch in seen} == {min(rows, whole)}
        assert set(chain(*seen)) == set(range(whole))
        assert seen[:full] == everything[:full]
    if uneven == "weighted":
        assert seen[:count] == everything
        assert_weighted_means(sharded, whole, rows * size)


def assert_weighted_means(sharded: list[Any], whole: int, batch_rows: int) -> None:
    losses = np.random.default_rng(2).normal(size=whole)
    for step, together in enumerate(zip(*sharded, strict=True)):
        means = [np.sum(losses[x] * w.astype(float)) / len(x) for x, _, w in together]
        expected = np.mean(losses[step * batch_rows : (step + 1) * batch_rows])
        assert abs(np.mean(means) - expected) < 1e-6


def test_a_shard_of_a_py_dataset_behaves_like_its_source() -> None:
    whole = Rows(12, 2, workers=3, use_multiprocessing=False, max_queue_size=4)
    own, _ = py_shards(whole, 2, "drop")
    assert (own.workers, own.use_multiprocessing, own.max_queue_size) == (3, False, 4)
    own.on_epoch_begin()
    own.on_epoch_end()
    assert whole.calls == ["begin", "end"]
    copied = pickle.loads(pickle.dumps(own))  # as in a worker process
    assert [batch[0].tolist() for batch in copied] == [batch[0].tolist() for batch in own]
    (endless, _) = py_shards(Endless(400, 2), 2, "weighted")
    assert endless.num_batches is None
    assert len(own) == own.num_batches == 3
    assert [endless[k][0].tolist() for k in range(2)] == [[0, 1], [4, 5]]
    assert endless[0][2].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WithoutLength(), "give it a __len__"),
        (lambda: Rows(0, 2), "an empty dataset"),
        (lambda: py_shards(Rows(8, 2), 2, "drop")[0], "got a shard"),
        (lambda: Growing(8, 2), "Batch 1 holds 4 samples instead of 3"),
    ],
)
def test_py_datasets_that_cannot_be_sharded(make: Any, message: str) -> None:
    with pytest.raises(HvdtoolsError, match=message):
        list(chain(*py_shards(make(), 2, "weighted")))


# -- arrays ----------------------------------------------------------------


@pytest.mark.parametrize(("whole", "size"), [(12, 3), (13, 3), (14, 3), (1, 4), (9, 4)])
def test_rows_of_arrays(whole: int, size: int) -> None:
    x = np.arange(whole * 2).reshape(whole, 2)
    data = ({"x": x, "more": [tf.constant(x)]}, x[:, 0] // 2, None)
    for uneven in ("drop", "pad", "ragged"):
        if uneven == "drop" and whole < size:
            with pytest.raises(HvdtoolsError, match=f"1 samples for {size} ranks"):
                shard_arrays(data, shardings(size, uneven)[0])
            continue
        sharded = [shard_arrays(data, sharding) for sharding in shardings(size, uneven)]
        order = list(range(whole - whole % size if uneven == "drop" else whole))
        if uneven == "pad":
            order += [k % whole for k in range(-whole % size)]
        assert interleaved([own[1].tolist() for own in sharded]) == order
        for inputs, targets, nothing in sharded:
            assert nothing is None
            assert (inputs["x"][:, 0] == 2 * targets).all()
            assert (inputs["more"][0].numpy() == inputs["x"]).all()
            assert np.shares_memory(inputs["x"], x) or uneven == "pad" or not len(targets)


def test_arrays_that_cannot_be_sharded() -> None:
    sharding = Sharding(0, 2, "drop", 1)
    with pytest.raises(HvdtoolsError, match="got arrays of 3, 4 rows"):
        shard_arrays((np.zeros(3), np.zeros((4, 2))), sharding)
    with pytest.raises(HvdtoolsError, match="without rows"):
        shard_arrays(np.zeros((0, 2)), sharding)
    with pytest.raises(HvdtoolsError, match="arrays are not batched yet"):
        shard_arrays(np.zeros(3), Sharding(0, 2, "weighted", 1))


# -- in a job of one rank --------------------------------------------------


def test_one_rank_keeps_its_data() -> None:
    for data in (numbers(3).shuffle(3).batch(2), Rows(5, 2), (np.zeros(3), [tf.zeros(3)])):
        for uneven in (None, *UNEVEN):
            assert shard(data, uneven=uneven) is data


@pytest.mark.parametrize(
    "data", [[1, 2], iter([np.zeros(2)]), "rows", None, (), np.float64(3), [np.zeros(2), 3]]
)
def test_unsupported_data(data: Any) -> None:
    with pytest.raises(HvdtoolsError, match=r"give it a tf\.data\.Dataset, a keras\.utils\.PyData"):
        shard(data)


def test_an_unknown_mode() -> None:
    with pytest.raises(HvdtoolsError, match="Unknown uneven mode 'even': choose one of drop, pad"):
        shard(np.zeros(3), uneven="even")
