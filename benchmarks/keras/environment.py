"""What is settled before TensorFlow is imported. Needs no TensorFlow."""

from __future__ import annotations

import os

from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import read_launch_environment


def set_environment() -> int:
    """Set the variables that TensorFlow and Keras read when they are imported.

    TensorFlow gets the same threads under every engine: OMP_NUM_THREADS, or this
    rank's share of the cores; and one more for operations that run beside each other,
    so that one which waits for other ranks holds up none.

    Returns:
        The threads of one operation.
    """
    # Keras on another backend is no TensorFlow job.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Only warnings and errors: the start-up chatter would bury a rank's own lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow turns oneDNN on by itself on some CPUs only. Without it the baseline computes
    # much slower than `fit` does, which would flatter us; METHOD.md has the figures.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    share = len(usable_cpus()) // read_launch_environment(os.environ).local_size
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, share))
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)
    os.environ["TF_NUM_INTEROP_THREADS"] = str(threads + 1)
    return threads


def check_meeting_point() -> None:
    """See that the ranks of --engine mwms know where to meet.

    Raises:
        HvdtoolsError: Nobody said where, or they are on several machines.
    """
    place = read_launch_environment(os.environ)
    if "MASTER_ADDR" not in os.environ or not os.environ.get("MASTER_PORT", "").isdigit():
        raise HvdtoolsError(
            "--engine mwms meets at MASTER_ADDR, rank r at port MASTER_PORT + r: set both, the "
            "same on every rank."
        )
    if place.local_size != place.size:
        raise HvdtoolsError("--engine mwms is set up for one machine: start all ranks there.")
