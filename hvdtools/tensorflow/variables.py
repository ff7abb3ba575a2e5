"""Broadcast and comparison of variables over ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hvdtools.core.agreement import describe_differences, divergence_error, find_differences
from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow import named_collectives
from hvdtools.tensorflow.collectives import gather_object, require_rank
from hvdtools.tensorflow.session import require_started

_CHUNK_BYTES = 64 * 2**20
_WORD_BYTES = 8
_UNSIGNED = {1: tf.uint8, 2: tf.uint16, 4: tf.uint32}


def broadcast_variables(variables: Iterable[Any], root: int = 0) -> None:
    """Overwrite the variables on every rank with rank `root`'s, in place.

    Args:
        variables: `tf.Variable`s or Keras variables of any numeric dtype, such as
            `model.variables` or `optimizer.variables`: equally many, with the same
            shapes and dtypes and in the same order, on every rank.
        root: The rank with the values to keep, 0 to size - 1.

    Raises:
        HvdtoolsError: There is no such rank, or the ranks' variables differ in
            number, shape or dtype.
    """
    require_rank("broadcast_variables()", root)
    own = [_native(variable) for variable in variables]
    _require_same_layout(own)
    if hvd.size() == 1:
        return
    for number, chunk in enumerate(_chunks(own)):
        # As bytes: a broadcast does no arithmetic, so all dtypes are treated alike.
        held = [np.ascontiguousarray(v.numpy()).reshape(-1).view(np.uint8) for v in chunk]
        name = f"hvdtools.broadcast_variables.{number}"
        sent = named_collectives.broadcast(tf.constant(np.concatenate(held)), root, name).numpy()
        if hvd.rank() == root:
            continue
        pieces = np.split(sent, np.cumsum([len(piece) for piece in held])[:-1])
        for variable, piece in zip(chunk, pieces, strict=True):
            dtype = variable.dtype.as_numpy_dtype
            # The copy aligns the bytes for the dtype.
            variable.assign(piece.copy().view(dtype).reshape(variable.shape))


def _native(variable: Any) -> Any:
    """The tf.Variable of a Keras variable."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def _require_same_layout(own: Sequence[Any]) -> None:
    layout = [(v.name, tuple(v.shape), v.dtype.name) for v in own]
    all_ranks = gather_object(layout, "hvdtools.layout")
    first = all_ranks[0]
    # Names are only for the message: Keras numbers layers as a process creates them.
    shapes = [[variable[1:] for variable in other] for other in all_ranks]
    for rank, other in enumerate(all_ranks):
        if shapes[rank] != shapes[0]:
            different = (
                f"{a} on rank 0, {b} on rank {rank}"
                for a, b in zip(first, other, strict=False)
                if a[1:] != b[1:]
            )
            count = f"{len(first)} variables on rank 0, {len(other)} on rank {rank}"
            where = next(different, count)
            raise HvdtoolsError(
                f"The ranks built different models ({where}): build the same one on every rank."
            )


def _chunks(variables: Sequence[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    size_bytes = 0
    for variable in variables:
        if variable.shape.num_elements() == 0:
            continue
        if chunk and size_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(variable)
        size_bytes += variable.shape.num_elements() * variable.dtype.size
    if chunk:
        yield chunk


def assert_in_sync(variables: Iterable[Any], when: str = "") -> None:
    """Compare variables over ranks bit by bit. Call it on every rank.

    Args:
        variables: As in `broadcast_variables`.
        when: Part of the error message, "at step 100".

    Raises:
        HvdtoolsError: They differ. Raised on every rank, naming rank and variable.
    """
    require_started("assert_in_sync()")
    given = [variable for variable in variables if math.prod(variable.shape)]
    own = [_native(variable) for variable in given]
    if hvd.size() == 1 or not own:
        return
    sums = tf.stack([_checksum(variable) for variable in own])
    # Maximum and minimum in one all-reduce: min(x) = ~max(~x), also at the ends of the range.
    both = tf.concat([sums, tf.bitwise.invert(sums)], 0)
    largest, inverted = tf.split(named_collectives.allreduce(both, hvd.Max, "hvdtools.compare"), 2)
    if bool(tf.reduce_all(largest == tf.bitwise.invert(inverted))):
        return
    all_sums = named_collectives.allgather(sums[None], "hvdtools.compare.differences")
    # A Keras variable's path says more than its name.
    names = [f"the variable {getattr(v, 'path', v.name)}" for v in given]
    differences = find_differences(all_sums.numpy().tolist())
    raise divergence_error(describe_differences(differences, names), when)


def _checksum(variable: Any) -> Any:
    """The sum of the variable's bits as 64-bit words, modulo 2**64: shape (), int64.

    Integers, so that the order of addition does not matter. One changed bit changes
    the sum; exchanged words do not.
    """
    flat = tf.reshape(variable, [-1])
    if flat.dtype == tf.bool:
        flat = tf.cast(flat, tf.uint8)
    if flat.dtype.size >= _WORD_BYTES:
        return tf.reduce_sum(tf.bitcast(flat, tf.int64))
    per_word = _WORD_BYTES // flat.dtype.size
    whole = variable.shape.num_elements() // per_word * per_word
    words = tf.bitcast(tf.reshape(flat[:whole], [-1, per_word]), tf.int64)
    rest = tf.bitcast(flat[whole:], _UNSIGNED[flat.dtype.size])
    return tf.reduce_sum(words) + tf.reduce_sum(tf.cast(rest, tf.int64))
