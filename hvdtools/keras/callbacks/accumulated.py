"""What is saved at the end of an epoch goes for all ranks."""

from __future__ import annotations

from typing import Any

import horovod.tensorflow as hvd
import keras

from hvdtools.keras.replicated import even_out


class Accumulated(keras.callbacks.Callback):
    """Evens out gradients that are accumulated when an epoch ends, before rank 0 saves them."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if hvd.size() > 1:
            even_out(self.model)
