"""Compare a model over ranks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.replicated import optimizers_of, replicated
from hvdtools.tensorflow.session import require_started
from hvdtools.tensorflow.variables import assert_in_sync as assert_same


def assert_in_sync(model: Any, *, local: Sequence[Any] = ()) -> None:
    """Compare a model's weights and its optimizers' state over ranks, bit by bit.

    Call it on every rank. Running statistics of batch-norm layers that are not
    synchronized are left out: each rank has its own; so are gradients that an
    optimizer accumulates.

    Args:
        model: Compiled and built.
        local: Further layers whose non-trainable weights are each rank's own.

    Raises:
        HvdtoolsError: They differ: on every rank, naming rank and variable. Or
            the model has not been trained yet.
    """
    require_started("assert_in_sync()")
    if not all(optimizer is not None and optimizer.built for optimizer in optimizers_of(model)):
        raise HvdtoolsError(
            "assert_in_sync() got a model that is not compiled and built: call it after fit()."
        )
    assert_same(replicated(model, local))
