"""The logs of an epoch are those of all ranks' samples."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as hvd
import keras

from hvdtools.keras.callbacks.joint import Joint, Results, logs_of, metrics_of


class JointMetrics(keras.callbacks.Callback):
    """Overwrites the logs for the callbacks that come after it.

    Attributes:
        evaluated: What the last evaluation gave.
    """

    def __init__(self) -> None:
        super().__init__()
        self.evaluated: Results = {}
        self._epoch: int | None = None
        # Of this epoch: taken before the validation resets the metrics.
        self._training: Joint | None = None
        self._validation: Results = {}
        self._last: Results = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._training, self._validation = epoch, None, {}

    def on_test_begin(self, logs: Any = None) -> None:
        if hvd.size() > 1 and self._epoch is not None:
            self._training = metrics_of(self.model, f"the validation of epoch {self._epoch + 1}")

    def on_test_end(self, logs: Any = None) -> None:
        if hvd.size() > 1:
            logs.update(logs_of(metrics_of(self.model, "the end of an evaluation"), logs))
        self.evaluated = dict(logs)
        self._validation = {f"val_{name}": value for name, value in logs.items()}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if hvd.size() == 1:
            return
        joint = self._training or metrics_of(self.model, f"the end of epoch {epoch + 1}")
        of_training = {name: logs[name] for name in logs if name not in self._validation}
        logs.update(logs_of(joint, of_training), **self._validation)
        self._last = dict(logs)

    def on_train_end(self, logs: Any = None) -> None:
        logs.update(self._last)
        self._epoch = None
