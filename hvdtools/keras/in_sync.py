"""Compare a model over ranks at once."""

from __future__ import annotations

from typing import Any

from hvdtools.errors import HvdtoolsError
from hvdtools.keras.replicated import replicated
from hvdtools.tensorflow.session import require_started
from hvdtools.tensorflow.variables import assert_in_sync as assert_same


def assert_in_sync(model: Any) -> None:
    """Compare a model's weights and its optimizer's state over ranks, bit by bit.

    Call it on every rank. Running statistics of batch-norm layers that are not
    synchronized are left out: each rank has its own; so are gradients that an
    optimizer accumulates.

    Args:
        model: Compiled and built.

    Raises:
        HvdtoolsError: They differ: on every rank, naming rank and variable. Or
            the model is not built.
    """
    require_started("assert_in_sync()")
    if not model.built or model.optimizer is None or not model.optimizer.built:
        raise HvdtoolsError(
            "assert_in_sync() got a model that is not compiled and built: call it after fit()."
        )
    assert_same(replicated(model))
