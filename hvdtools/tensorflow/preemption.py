"""Does the batch system want this job to stop? One answer for all ranks."""

from __future__ import annotations

import horovod.tensorflow as hvd
import tensorflow as tf

from hvdtools.core import preemption
from hvdtools.tensorflow import named
from hvdtools.tensorflow.session import require_started


def stop_requested() -> bool:
    """True on every rank, from the same call on, once any rank got the signal to save and stop.

    The signal is SIGUSR1, or what HVDTOOLS_SIGNAL names; launch/slurm.sbatch passes it to
    all ranks some time before the job's time is up, and starts the job again if it then
    ends with exit code 75. From the first call on the signal no longer ends the process.
    Each call is an exchange of one number: call it on every rank, outside of a `tf.function`.

    Raises:
        HvdtoolsError: `init()` was not called, or the first call is not in the main thread.
    """
    require_started("stop_requested()")
    preemption.listen()
    if hvd.size() == 1:
        return preemption.heard()
    asked = tf.constant([preemption.heard()], tf.int32)
    return bool(named.allgather(asked, "hvdtools.stop_requested").numpy().any())
