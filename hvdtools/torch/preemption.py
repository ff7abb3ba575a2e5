"""Does the batch system want this job to stop? One answer for all ranks."""

from __future__ import annotations

import horovod.torch as hvd
import torch

from hvdtools.core import preemption
from hvdtools.torch.session import require_started
from hvdtools.torch.waiting import waiting


def stop_requested() -> bool:
    """True on every rank, from the same call on, once any rank got the signal to save and stop.

    The signal is SIGUSR1, or what HVDTOOLS_SIGNAL names; launch/slurm.sbatch passes it to
    all ranks some time before the job's time is up, and starts the job again if it then
    ends with exit code 75. From the first call on the signal no longer ends the process.
    Each call is an all-reduce of one number: call it on every rank, every so many steps.

        if step % 50 == 0 and hvt.stop_requested():
            hvt.save("last.pt", model=model, optimizer=optimizer, step=step)
            sys.exit(75)

    Raises:
        HvdtoolsError: `init()` was not called, or the first call is not in the main thread.
    """
    require_started("stop_requested()")
    preemption.install_handler()
    if hvd.size() == 1:
        return preemption.signal_received()
    with waiting("stop_requested()"):
        asked = torch.tensor([preemption.signal_received()], dtype=torch.int32)
        return bool(hvd.allreduce(asked, op=hvd.Sum, name="hvdtools.stop_requested").item())
