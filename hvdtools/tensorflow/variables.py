"""Variables made equal on every rank, and compared over ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hvdtools.core import divergence
from hvdtools.core.errors import HvdtoolsError
from hvdtools.tensorflow import named
from hvdtools.tensorflow.collect import gather_object, require_rank
from hvdtools.tensorflow.session import require_started

_CHUNK_BYTES = 64 * 2**20
_WORD_BYTES = 8
_WHOLE_NUMBERS = {1: tf.uint8, 2: tf.uint16, 4: tf.uint32}


def broadcast_variables(variables: Iterable[Any], root: int = 0) -> None:
    """Overwrite the variables on every rank with rank `root`'s, in place.

    Args:
        variables: `tf.Variable`s or Keras variables of any dtype of numbers, such
            as `model.variables` or `optimizer.variables`: as many, with the same
            shapes and dtypes and in the same order, on every rank.
        root: The rank whose values are kept, 0 to size - 1.

    Raises:
        HvdtoolsError: There is no such rank, or the ranks' variables differ in
            number, shape or dtype.
    """
    require_rank("broadcast_variables()", root)
    mine = [_native(variable) for variable in variables]
    _require_same_layout(mine)
    if hvd.size() == 1:
        return
    for number, chunk in enumerate(_chunks(mine)):
        # Bytes: broadcasting adds nothing up, so no dtype needs a case of its own.
        held = [np.ascontiguousarray(v.numpy()).reshape(-1).view(np.uint8) for v in chunk]
        name = f"hvdtools.broadcast_variables.{number}"
        sent = named.broadcast(tf.constant(np.concatenate(held)), root, name).numpy()
        if hvd.rank() == root:
            continue
        pieces = np.split(sent, np.cumsum([len(piece) for piece in held])[:-1])
        for variable, piece in zip(chunk, pieces, strict=True):
            dtype = variable.dtype.as_numpy_dtype
            # A copy aligns the bytes for the dtype.
            variable.assign(piece.copy().view(dtype).reshape(variable.shape))


def _native(variable: Any) -> Any:
    """The tf.Variable in a Keras variable."""
    return variable if isinstance(variable, tf.Variable) else variable.value


def _require_same_layout(mine: Sequence[Any]) -> None:
    layout = [(v.name, tuple(v.shape), v.dtype.name) for v in mine]
    everyone = gather_object(layout, "hvdtools.layout")
    # Names are for the sentence alone: Keras numbers layers as a process makes them.
    shapes = [[held[1:] for held in other] for other in everyone]
    for rank, other in enumerate(everyone):
        if shapes[rank] != shapes[0]:
            pairs = zip(everyone[0], other, strict=False)
            where = next(
                (
                    f"{ours} on rank 0, {its} on rank {rank}"
                    for ours, its in pairs
                    if ours[1:] != its[1:]
                ),
                f"{len(everyone[0])} variables on rank 0, {len(other)} on rank {rank}",
            )
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
    """Compare variables over ranks, bit by bit. Call it on every rank.

    Args:
        variables: As in `broadcast_variables`.
        when: Said in the error, "at step 100".

    Raises:
        HvdtoolsError: They differ: on every rank, naming rank and variable.
    """
    require_started("assert_in_sync()")
    given = [variable for variable in variables if math.prod(variable.shape)]
    mine = [_native(variable) for variable in given]
    if hvd.size() == 1 or not mine:
        return
    sums = tf.stack([_checksum(variable) for variable in mine])
    # Largest and smallest in one message: min(x) = ~max(~x), also at the ends of the range.
    both = tf.concat([sums, tf.bitwise.invert(sums)], 0)
    largest, inverted = tf.split(named.allreduce(both, hvd.Max, "hvdtools.compare"), 2)
    if bool(tf.reduce_all(largest == tf.bitwise.invert(inverted))):
        return
    everyone = named.allgather(sums[None], "hvdtools.compare.differences").numpy().tolist()
    # A Keras variable's path says more than its name.
    names = [f"the variable {getattr(v, 'path', v.name)}" for v in given]
    where = divergence.in_words(divergence.differences(everyone), names)
    at = f" {when}" if when else ""
    raise HvdtoolsError(f"Replicas diverged{at}: {where}; {divergence.REMEDY}.")


def _checksum(variable: Any) -> Any:
    """The sum of the variable's bits as 64-bit words, modulo 2**64: shape (), int64.

    Whole numbers, so that the order of adding does not matter. One changed bit
    changes it; words that change places do not.
    """
    flat = tf.reshape(variable, [-1])
    if flat.dtype == tf.bool:
        flat = tf.cast(flat, tf.uint8)
    if flat.dtype.size >= _WORD_BYTES:
        return tf.reduce_sum(tf.bitcast(flat, tf.int64))
    in_a_word = _WORD_BYTES // flat.dtype.size
    whole = variable.shape.num_elements() // in_a_word * in_a_word
    words = tf.bitcast(tf.reshape(flat[:whole], [-1, in_a_word]), tf.int64)
    rest = tf.bitcast(flat[whole:], _WHOLE_NUMBERS[flat.dtype.size])
    return tf.reduce_sum(words) + tf.reduce_sum(tf.cast(rest, tf.int64))
