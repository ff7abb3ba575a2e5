"""What a training of train_keras.py takes of a rank's memory."""

from __future__ import annotations

import tensorflow as tf

from hvdtools.bench.programs.common.resident_set import forget_the_peak, peak_bytes
from hvdtools.bench.programs.keras.workload import device

_GPU = "GPU:0"  # each rank sees its own alone


class PeakMemory:
    """The most that is taken from when this is made.

    On a GPU what TensorFlow gives out there. On a CPU how far the resident set grows;
    where the kernel does not let its peak be reset, beyond the peak that was before.
    """

    def __init__(self) -> None:
        if device() == "cuda":
            tf.config.experimental.reset_memory_stats(_GPU)
        else:
            forget_the_peak()
        self._before_bytes = _peak_bytes()

    def grown_bytes(self) -> int:
        return _peak_bytes() - self._before_bytes


def _peak_bytes() -> int:
    if device() == "cuda":
        return int(tf.config.experimental.get_memory_info(_GPU)["peak"])
    return peak_bytes()
