"""How a rank of a PyTorch program ends. Imports no framework, so that bad arguments are quick."""

from __future__ import annotations

import multiprocessing
import os
import sys


def leave(exit_code: int = 0) -> None:
    """End this process if it has or had a process group; else do nothing.

    Some of Gloo's threads outlive the group. When Python ends under them they now and
    then abort a rank that has written its result ("terminate called without an active
    exception"), and the whole job fails.

    A rank that failed must also be the first to end: while Python tears its group down, the
    other ranks would lose it and fail, and a launcher reports the rank that ends first.
    """
    meeting = sys.modules.get("hvdtools.bench.programs.torch.process_group")
    if meeting is None or not meeting.had_a_group():
        return
    hvd = sys.modules.get("horovod.torch")
    if not exit_code and hvd is not None and hvd.is_initialized():
        hvd.shutdown()  # MPI takes a rank for lost that goes without a word
    sys.stdout.flush()
    sys.stderr.flush()
    for loading in multiprocessing.active_children():
        loading.terminate()
    os._exit(exit_code)
