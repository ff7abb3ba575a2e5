"""Leave out, or repeat, rows of a batched tf.data.Dataset so that they divide evenly."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_WRONG = (
    "shard() counts samples where batch() makes batches of them, and a map() after it, or a wrong "
    "assert_cardinality(), makes others: keep the number of rows there, or batch() after it."
)


def evened(batches: Any, count: int, samples: int, *, keep: int, again: int) -> Any:
    """The batches without the rows from `keep` on, and with the first `again` rows at their end.

    Where there are fewer rows than `again` they are repeated in turn. It looks
    at batches and not at samples, because a function called for each sample
    costs ten times what dealing does; and it reads to the end, because `take()`
    would keep a `cache()` before it from ever being complete.

    Args:
        batches: A dataset of batches of tensors, dense where `again` is not 0.
        count: How many there are.
        samples: How many rows they have together; others raise when they are read.
        keep: So many rows come first.
        again: So many follow.
    """

    def step(state: Any, batch: Any) -> Any:
        number, start, first = state
        parts = tf.nest.flatten(batch)
        end = start + _rows_in(parts[0])
        is_last = tf.equal(number, count - 1)
        as_promised = tf.where(is_last, tf.equal(end, samples), end <= samples)
        with tf.control_dependencies([tf.debugging.Assert(as_promised, [_WRONG])]):
            kept = tuple(part[: tf.maximum(keep - start, 0)] for part in parts)
        if again:
            first = tf.cond(
                number == 0, lambda: _to(again, parts), lambda: _on(again, first, parts)
            )
            kept = tf.cond(is_last, lambda: _followed(kept, first, again), lambda: kept)
        return (number + 1, end, first), tf.nest.pack_sequence_as(batch, kept)

    zero = tf.constant(0, tf.int64)
    specs = tf.nest.flatten(batches.element_spec)
    return batches.scan((zero, zero, tuple(map(_no_rows, specs)) if again else ()), step)


def _rows_in(part: Any) -> Any:
    if isinstance(part, tf.RaggedTensor):
        return tf.cast(part.nrows(), tf.int64)
    return tf.shape(part, out_type=tf.int64)[0]


def _no_rows(spec: Any) -> Any:
    """What scan() begins with; it takes the shape to be unknown where a later one differs."""
    shape = [0] if spec.shape.rank is None else [0, *(axis or 0 for axis in spec.shape[1:])]
    return tf.zeros(shape, spec.dtype)


def _to(count: int, parts: Any) -> tuple[Any, ...]:
    return tuple(part[:count] for part in parts)


def _on(count: int, first: Any, parts: Any) -> tuple[Any, ...]:
    """The first `count` rows of what came before and this batch."""
    joined = (tf.concat([old, part[:count]], 0) for old, part in zip(first, parts, strict=True))
    return _to(count, joined)


def _followed(kept: Any, first: Any, again: int) -> tuple[Any, ...]:
    """The rows kept, and `again` of the first ones."""
    turn = tf.range(again, dtype=tf.int64) % _rows_in(first[0])
    return tuple(
        tf.concat([part, tf.gather(old, turn)], 0) for part, old in zip(kept, first, strict=True)
    )
