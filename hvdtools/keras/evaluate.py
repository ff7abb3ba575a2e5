"""Evaluate a model on all ranks' data."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as hvd
import keras

from hvdtools.core.errors import HvdtoolsError
from hvdtools.keras.callbacks.joint_metrics import JointMetrics
from hvdtools.keras.callbacks.rank_0 import for_this_rank
from hvdtools.tensorflow.session import require_started


def evaluate(model: keras.Model, x: Any, y: Any = None, **options: Any) -> dict[str, Any]:
    """`model.evaluate` on every rank's part, and the results for all of it. On every rank.

    The metrics' states are combined, so that an AUC is that of all samples and a
    mean weighs every sample the same, however unevenly they are spread. Rank 0
    prints.

    Args:
        model: A compiled model, the same on every rank.
        x, y: This rank's part, as `model.evaluate` takes it, such as
            `hvt.shard(dataset, uneven="ragged")`. It may be empty.
        options: Further arguments of `model.evaluate`.

    Returns:
        {name: the value}, the same on every rank.

    Raises:
        HvdtoolsError: `init()` was not called, or the model has other metrics on
            some ranks.
    """
    require_started("evaluate()")
    if "return_dict" in options:
        raise HvdtoolsError("evaluate() always returns a dict: leave return_dict out.")
    joint = JointMetrics()
    own = for_this_rank(keras.tree.flatten(options.pop("callbacks", None) or []))
    if hvd.rank():
        options["verbose"] = 0
    model.evaluate(x, y, callbacks=[joint, *own], return_dict=True, **options)
    return joint.evaluated
