"""What a training of train_keras.py takes of a rank's memory."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import tensorflow as tf
from keras_work import device

_GPU = "GPU:0"  # each rank sees its own alone
_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: getrusage(2)


class PeakMemory:
    """The most that is taken from when this is made.

    On a GPU what TensorFlow gives out there. On a CPU how far the resident set grows;
    where the kernel does not let its peak be reset, beyond the peak that was before.
    """

    def __init__(self) -> None:
        if device() == "cuda":
            tf.config.experimental.reset_memory_stats(_GPU)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")  # the peak's reset: proc(5)
        self._before_bytes = _peak_bytes()

    def grown_bytes(self) -> int:
        return _peak_bytes() - self._before_bytes


def _peak_bytes() -> int:
    if device() == "cuda":
        return int(tf.config.experimental.get_memory_info(_GPU)["peak"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT_BYTES
