"""Only rank 0 writes files and prints; the other ranks train silently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import horovod.tensorflow as hvd
import keras

# By name: not every version of Keras 3 has them all.
_WRITERS = (
    "BackupAndRestore",
    "CSVLogger",
    "ModelCheckpoint",
    "OrbaxCheckpoint",
    "ProgbarLogger",
    "RemoteMonitor",
    "TensorBoard",
)
# They run on every rank, but only rank 0 prints their messages.
_PRINTERS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)


def callbacks_of_rank(callbacks: Sequence[Any]) -> list[Any]:
    """The callbacks that run on this rank; on other ranks than 0 they do not print."""
    if hvd.rank() == 0:
        return list(callbacks)
    kept = [callback for callback in callbacks if not _only_on_rank_0(callback)]
    for callback in kept:
        if isinstance(callback, _PRINTERS):
            callback.verbose = 0
    return kept


def _only_on_rank_0(callback: Any) -> bool:
    writers = tuple(
        getattr(keras.callbacks, name) for name in _WRITERS if hasattr(keras.callbacks, name)
    )
    return isinstance(callback, writers) or getattr(callback, "rank_0_only", False)


class SilentProgbar(keras.callbacks.ProgbarLogger):
    """Replaces the progress bar that Keras adds to a list without one."""

    @classmethod
    def if_needed(cls) -> list[SilentProgbar]:
        """One, on ranks other than 0."""
        return [cls()] if hvd.rank() else []

    def set_params(self, params: Any) -> None:
        super().set_params({**params, "verbose": 0})
