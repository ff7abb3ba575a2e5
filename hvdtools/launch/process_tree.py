"""Ends a launcher and every process below it, those that left its session included."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

# horovodrun needs 1 s to notice and gives a rank 5 s to end; then it is our turn, within 10 s.
_GRACE_S = 6.0
_KILL_S = 2.0


def end_tree(pid: int, signum: int) -> None:
    """Send `signum` to process `pid`, let it end its ranks, and kill what is left.

    The processes are listed before the signal is sent: a launcher puts its ranks into
    sessions of their own, and once it is gone nothing leads from it to them.
    Returns when none is left, after about 8 seconds at most.
    """
    import psutil

    try:
        launcher = psutil.Process(pid)
        tree = [launcher, *launcher.children(recursive=True)]
        launcher.send_signal(signum)
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(tree, timeout=_GRACE_S)
    born_since = [child for process in alive for child in _children(process)]
    for process in {*alive, *born_since}:
        _send(process, signal.SIGKILL)
    psutil.wait_procs([*alive, *born_since], timeout=_KILL_S)


def _children(process: psutil.Process) -> list[psutil.Process]:
    import psutil

    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, signum: int) -> None:
    import psutil

    try:
        process.send_signal(signum)
    except psutil.NoSuchProcess:
        return
