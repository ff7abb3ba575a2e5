"""One rank writes and prints; the others train without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import horovod.tensorflow as hvd
import keras

# By name: not every Keras 3 has them all.
_WRITERS = (
    "BackupAndRestore",
    "CSVLogger",
    "ModelCheckpoint",
    "OrbaxCheckpoint",
    "ProgbarLogger",
    "RemoteMonitor",
    "TensorBoard",
)
# They do their work on every rank; what they say is said once.
_SPEAKERS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


def for_this_rank(own: Sequence[Any]) -> list[Any]:
    """The callbacks that run here; on other ranks than 0 they are made silent."""
    if hvd.rank() == 0:
        return list(own)
    kept = [callback for callback in own if not _for_rank_0(callback)]
    for callback in kept:
        if isinstance(callback, _SPEAKERS):
            callback.verbose = 0
    return kept


def _for_rank_0(callback: Any) -> bool:
    writers = tuple(
        getattr(keras.callbacks, name) for name in _WRITERS if hasattr(keras.callbacks, name)
    )
    return isinstance(callback, writers) or getattr(callback, "rank_0_only", False)


class Silent(keras.callbacks.ProgbarLogger):
    """Keras prints a progress bar of its own where the list has none: this one is mute."""

    @classmethod
    def where_needed(cls) -> list[Silent]:
        """One, on ranks other than 0."""
        return [cls()] if hvd.rank() else []

    def set_params(self, params: Any) -> None:
        super().set_params({**params, "verbose": 0})
