"""The signal with which a batch system announces that a job's time is nearly up."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from hvdtools.core.errors import HvdtoolsError

# Spelled as for sbatch's --signal; launch/slurm.sbatch exports the signal that it forwards.
SIGNAL_VARIABLE = "HVDTOOLS_SIGNAL"
_DEFAULT = "USR1"

_received = threading.Event()
_installed = False


def install_handler() -> None:
    """Record the signal from now on instead of dying of it; later calls do nothing.

    A handler that the script has installed is called as well.

    Raises:
        HvdtoolsError: This is not the main thread, where Python handles signals, or
            HVDTOOLS_SIGNAL is not the name of a signal.
    """
    global _installed
    if _installed:
        return
    name = os.environ.get(SIGNAL_VARIABLE, _DEFAULT)
    signum = getattr(signal, f"SIG{name}", None)
    if signum is None:
        raise HvdtoolsError(
            f"{SIGNAL_VARIABLE}={name} is not the name of a signal: set it to USR1, or unset it."
        )
    if threading.current_thread() is not threading.main_thread():
        raise HvdtoolsError(
            "The first call of stop_requested() is not in the main thread, where Python handles "
            "signals: call it once there first."
        )
    previous = signal.getsignal(signum)

    def handler(number: int, frame: FrameType | None) -> None:
        _received.set()
        if callable(previous):
            previous(number, frame)

    signal.signal(signum, handler)
    _installed = True


def signal_received() -> bool:
    """True once this process has received the signal."""
    return _received.is_set()
