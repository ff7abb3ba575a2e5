"""The weight of this rank's batch in the average over ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from hvdtools.core.errors import HvdtoolsError

_explicit: list[float] = []
# By the pass over a loader that handed the batch out; the latest batch comes last.
_of_batch: dict[object, float] = {}


@contextmanager
def weight(value: float) -> Iterator[None]:
    """Average the gradients of the `backward()` inside weighted by `value`.

    ``sum(weight_r * gradient_r) / sum(weight_r)`` over ranks: with `value` the
    number of things that this rank's loss is a mean over (samples, tokens that
    are not padding), the result is the gradient of the mean over all of them.
    A rank with weight 0 counts for nothing, whatever its loss (a NaN from an
    empty mean too). Where gradients add up over several passes (`accumulate`,
    `no_sync`) the sum over passes of ``weight * gradient`` is divided by the
    mean weight of a pass: with the loss divided by the number of passes, as
    ever, that is the mean over all things of all passes.

    Every rank must give a weight in the same passes. Where batch norm is
    synchronized the forward pass belongs inside, too. It goes before the weight
    that `shard(uneven="weighted")` gives its batches.

    Args:
        value: 0 or more, finite.

    Raises:
        HvdtoolsError: `value` is negative, infinite or NaN. From `backward()`:
            only some ranks gave a weight, or all of them gave 0.
    """
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise HvdtoolsError(f"weight({value!r}) must be a finite number of 0 or more.")
    _explicit.append(number)
    try:
        yield
    finally:
        _explicit.pop()


def current_weight() -> float | None:
    """The weight of a backward pass that begins now; None if none was given.

    Within a loop over `shard(uneven="weighted")` it is the number of samples in
    the batch handed out last, 0 for a stand-in: what a mean over the batch
    counts, as in ``average(loss, count=batch_weight())``.
    """
    if _explicit:
        return _explicit[-1]
    return next(reversed(_of_batch.values()), None)


def set_batch_weight(owner: object, value: float | None) -> None:
    """Set the weight of the batch that `owner` yields, until its next batch; None ends it.

    An owner is one pass over one loader. Passes nest (a validation loop within
    an epoch) and take turns (two loaders in one zip): the batch handed out last
    counts, and when a pass ends the weight of the other one is in force again.
    """
    _of_batch.pop(owner, None)
    if value is not None:
        _of_batch[owner] = value
