"""Shards of a tf.data.Dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hvdtools.core.sharding import Sharding
from hvdtools.keras.data.pipeline import INFINITE, Batches, Pipeline
from hvdtools.keras.data.sample_weights import add_weights, sample_weight


def describe(dataset: Any, pipeline: Pipeline) -> str:
    """What must be the same on every rank, except for the order."""
    samples = "endless samples" if pipeline.samples == INFINITE else f"{pipeline.samples} samples"
    batches = "no batches" if pipeline.batches is None else f"batches of {pipeline.batches.rows}"
    return f"a tf.data.Dataset of {samples}, {batches}, {dataset.element_spec}"


def shard_dataset(dataset: Any, pipeline: Pipeline, sharding: Sharding) -> Any:
    """A dataset of one rank's samples, in batches of the same size.

    Args:
        sharding: Its `batch` is not used.

    Raises:
        HvdtoolsError: "drop" would leave everything out.
    """
    if pipeline.batches is None:
        own = _shard_elements(dataset, pipeline.samples, sharding)
    else:
        own = _shard_batches(dataset, pipeline.batches, sharding)
    return own.prefetch(tf.data.AUTOTUNE)


def _shard_batches(dataset: Any, batches: Batches, sharding: Sharding) -> Any:
    is_weighted = sharding.uneven == "weighted"
    sharding = replace(sharding, batch=batches.rows)
    if batches.drop_remainder:
        # Without its incomplete last batch the number of samples is a multiple of the ranks.
        sharding = replace(sharding, uneven="drop")
    samples = batches.samples
    if samples != INFINITE:
        noun, rows = ("whole batches", batches.rows) if batches.drop_remainder else ("samples", 1)
        sharding.require_enough(samples // rows, noun)
    own = _unbatch(dataset, batches, sharding).shard(sharding.size, sharding.rank)
    own = own.batch(batches.rows, drop_remainder=batches.drop_remainder)
    return _with_weights(own, samples, sharding) if is_weighted else own


def _unbatch(dataset: Any, batches: Batches, sharding: Sharding) -> Any:
    """All samples of all ranks, one by one."""
    samples = batches.samples
    if samples != INFINITE:
        kept, repeated = _kept(samples, sharding), _repeated(samples, sharding)
        if repeated or kept < samples or batches.mapped:
            dataset = _trim_and_repeat(
                dataset, batches.count, samples, kept=kept, repeated=repeated
            )
        samples = kept + repeated
    return dataset.unbatch().apply(tf.data.experimental.assert_cardinality(samples))


def _kept(samples: int, sharding: Sharding) -> int:
    """The number of samples that are assigned, without repetitions."""
    return samples - samples % sharding.size if sharding.uneven == "drop" else samples


def _repeated(samples: int, sharding: Sharding) -> int:
    """The number of samples that are repeated to complete the last round."""
    return -samples % sharding.size if sharding.uneven in ("pad", "weighted") else 0


def _shard_elements(dataset: Any, samples: int, sharding: Sharding) -> Any:
    """One rank's elements of a dataset in which each element is a sample."""
    if samples == INFINITE:
        return dataset.shard(sharding.size, sharding.rank)
    sharding.require_enough(samples, "samples")
    repeated = _repeated(samples, sharding)
    if repeated:
        rounds, batches = -(-samples // sharding.size), dataset.batch(sharding.size)
        dataset = _trim_and_repeat(batches, rounds, samples, kept=samples, repeated=repeated)
        total = samples + repeated
        dataset = dataset.unbatch().apply(tf.data.experimental.assert_cardinality(total))
    own = dataset.shard(sharding.size, sharding.rank)
    length = sharding.length(samples)
    return own if length == int(own.cardinality()) else _first(own, length)


def _first(elements: Any, count: int) -> Any:
    """take() that reads to the end, so that a cache() before it is completed."""

    def is_first(number: Any, _: Any) -> Any:
        return number < count

    def without_number(_: Any, element: Any) -> Any:
        return element

    kept = elements.enumerate().filter(is_first).map(without_number)
    return kept.apply(tf.data.experimental.assert_cardinality(count))


def _with_weights(own: Any, samples: int, sharding: Sharding) -> Any:
    """Weight each batch: 1 for each sample, except in an incomplete last step."""
    usual = np.ones(sharding.batch, keras.config.floatx())
    last, last_step = usual, -1
    if sharding.uneven == "weighted" and samples != INFINITE:
        last = np.array(last_weights(samples, sharding), usual.dtype)
        last_step = int(own.cardinality()) - 1

    def weight(step: Any, batch: Any) -> Any:
        is_last = tf.equal(step, last_step)
        weights = tf.cond(is_last, lambda: tf.constant(last), lambda: tf.constant(usual))
        return add_weights(batch, weights, _cast_like)

    return own.enumerate().map(weight)


def last_weights(samples: int, sharding: Sharding) -> list[float]:
    """The weights of this rank's samples in the last step of "weighted"; 0 for a filler."""
    rounds = -(-samples // sharding.size)
    before = (rounds - 1) // sharding.batch * sharding.batch
    rows = rounds - before
    real = len(sharding.positions(samples)) - before
    weight = sample_weight(sharding.size, rows, samples - before * sharding.size)
    return [weight] * real + [0.0] * (rows - real)


def _cast_like(weights: Any, like: Any) -> Any:
    return tf.cast(weights, like.dtype)


_WRONG_COUNT = (
    "The batches do not have as many rows as shard() counted, because of a map() after batch() or "
    "a wrong assert_cardinality(): keep the number of rows there, or call batch() after it."
)


def _trim_and_repeat(batches: Any, count: int, samples: int, *, kept: int, repeated: int) -> Any:
    """The batches without the rows after the first `kept`, followed by the first rows again.

    If there are fewer rows than `repeated`, they are repeated in turn. It processes
    batches, because a function called for each sample costs ten times as much as the rest
    of the sharding; and it reads to the end, because after `take()` a `cache()` before it
    would never be completed.

    Args:
        batches: A dataset of batches of tensors, dense unless `repeated` is 0.
        count: The number of batches.
        samples: The number of rows in all of them; reading raises if it is wrong.
        kept: Number of rows to keep.
        repeated: Number of rows to repeat at the end.
    """

    def step(state: Any, batch: Any) -> Any:
        number, start, first = state
        components = tf.nest.flatten(batch)
        end = start + _count_rows(components[0])
        is_last = tf.equal(number, count - 1)
        is_right = tf.where(is_last, tf.equal(end, samples), end <= samples)
        with tf.control_dependencies([tf.debugging.Assert(is_right, [_WRONG_COUNT])]):
            rows = tuple(each[: tf.maximum(kept - start, 0)] for each in components)
        if repeated:
            first = tf.cond(
                number == 0,
                lambda: tuple(each[:repeated] for each in components),
                lambda: _extend(first, components, repeated),
            )
            rows = tf.cond(is_last, lambda: _append(rows, first, repeated), lambda: rows)
        return (number + 1, end, first), tf.nest.pack_sequence_as(batch, rows)

    zero = tf.constant(0, tf.int64)
    specs = tf.nest.flatten(batches.element_spec)
    return batches.scan((zero, zero, tuple(map(_no_rows, specs)) if repeated else ()), step)


def _count_rows(component: Any) -> Any:
    if isinstance(component, tf.RaggedTensor):
        return tf.cast(component.nrows(), tf.int64)
    return tf.shape(component, out_type=tf.int64)[0]


def _no_rows(spec: Any) -> Any:
    """The initial state of scan(), which treats axes that change as unknown."""
    shape = [0] if spec.shape.rank is None else [0, *(axis or 0 for axis in spec.shape[1:])]
    return tf.zeros(shape, spec.dtype)


def _extend(first: Any, components: Any, count: int) -> tuple[Any, ...]:
    """The first `count` rows of `first` followed by a batch."""
    pairs = zip(first, components, strict=True)
    return tuple(tf.concat([old, new[:count]], 0)[:count] for old, new in pairs)


def _append(rows: Any, first: Any, count: int) -> tuple[Any, ...]:
    """`rows` followed by `count` of the first rows, in turn."""
    turn = tf.range(count, dtype=tf.int64) % _count_rows(first[0])
    pairs = zip(rows, first, strict=True)
    return tuple(tf.concat([new, tf.gather(old, turn)], 0) for new, old in pairs)
