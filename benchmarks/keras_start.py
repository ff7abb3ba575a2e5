"""Imported before TensorFlow, which reads what is set here when it is imported."""

from __future__ import annotations

import os

from hvdtools.cpus import usable_cpus
from hvdtools.topology import promised

# Keras on another backend is no TensorFlow job.
os.environ["KERAS_BACKEND"] = "tensorflow"
# Only warnings and errors: the start-up chatter would bury a rank's own lines.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# TensorFlow turns oneDNN on by itself on some CPUs only. Without it the yardstick computes much
# slower than `fit` does, which would flatter us; METHOD.md has the figures.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def bound_threads() -> int:
    """Give TensorFlow the same threads under every engine; how many for one operation.

    OMP_NUM_THREADS, or this rank's share of the cores; and one more for operations
    that run beside each other, so that one which waits for other ranks holds up none.
    """
    share = len(usable_cpus()) // promised(os.environ).local_size
    count = int(os.environ.get("OMP_NUM_THREADS") or max(1, share))
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(count)
    os.environ["TF_NUM_INTEROP_THREADS"] = str(count + 1)
    return count
