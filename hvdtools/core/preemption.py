"""The signal by which a batch system says that a job's time is nearly up."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from hvdtools.core.errors import HvdtoolsError

# As sbatch's --signal spells it; launch/slurm.sbatch exports the one that it passes on.
NAME_VARIABLE = "HVDTOOLS_SIGNAL"
_DEFAULT = "USR1"

_heard = threading.Event()
_listening = False


def listen() -> None:
    """Take note of the signal from now on, instead of dying of it; only the first call counts.

    A handler that the script has set is called as well.

    Raises:
        HvdtoolsError: This is not the main thread, where Python handles signals, or
            HVDTOOLS_SIGNAL names no signal.
    """
    global _listening
    if _listening:
        return
    name = os.environ.get(NAME_VARIABLE, _DEFAULT)
    signum = getattr(signal, f"SIG{name}", None)
    if signum is None:
        raise HvdtoolsError(f"{NAME_VARIABLE}={name} names no signal: set it to USR1, or unset it.")
    if threading.current_thread() is not threading.main_thread():
        raise HvdtoolsError(
            "stop_requested() was first called in another thread than the main one, where Python "
            "handles signals: call it once there before."
        )
    before = signal.getsignal(signum)

    def take_note(number: int, frame: FrameType | None) -> None:
        _heard.set()
        if callable(before):
            before(number, frame)

    signal.signal(signum, take_note)
    _listening = True


def heard() -> bool:
    """True once the signal came to this process."""
    return _heard.is_set()
