"""Ranks that were given different arguments would wait for each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.tensorflow.collect import gather_object

_REMEDY = {
    "steps": "hvt.shard() gives every rank equally many, or say steps_per_epoch",
}


class SameArguments(keras.callbacks.Callback):
    """Compares over ranks what `fit` and `callbacks()` were given.

    Args:
        alike: Arguments that must be equal, beside those of `fit`.
    """

    def __init__(self, alike: Mapping[str, Any]) -> None:
        super().__init__()
        self._alike = dict(alike)

    def on_train_begin(self, logs: Any = None) -> None:
        mine = {
            "epochs": self.params["epochs"],
            "steps": self.params["steps"],
            "steps_per_execution": self.model.steps_per_execution,
            **self._alike,
        }
        everyone = gather_object(mine, "hvdtools.arguments")
        if mine["steps"] is None and len(everyone) > 1:
            logger.warning(
                "Keras cannot count the steps of this data: every rank must take equally many, or "
                "the job hangs; say fit(steps_per_epoch=...)"
            )
        for name, first in everyone[0].items():
            for rank, other in enumerate(everyone):
                if other[name] != first:
                    remedy = _REMEDY.get(name, f"give every rank the same {name}")
                    raise HvdtoolsError(
                        f"The ranks would wait for each other: {name} is {first!r} on rank 0 and "
                        f"{other[name]!r} on rank {rank}; {remedy}."
                    )
