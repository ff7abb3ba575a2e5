"""Report the ranks that others wait for.

Horovod 0.28.1 has a stall inspector, which stayed silent in every build tried
here. A thread in every rank exchanges, every few seconds, what its script waits
for or which line it runs; Horovod's own thread carries that also while a script
is stuck. Rank 0 reports which rank has not arrived, and where it is.
"""

from __future__ import annotations

import atexit
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from hvdtools.core.log import logger
from hvdtools.core.text import ranks_text
from hvdtools.torch.waiting import current_wait

_MESSAGE_BYTES = 2048
_POLL_S = 0.05
_MAX_NAMED = 8  # absent ranks that a report names
_PACKAGE = str(Path(__file__).parent)
_LIBRARIES = ("site-packages", "dist-packages", _PACKAGE, str(Path(threading.__file__).parent))


@dataclass(frozen=True)
class State:
    """What one rank's script does.

    Attributes:
        waits_for: What it waits for, or None.
        waited_s: For how long.
        at: The line it runs, "train.py:41 in main".
    """

    waits_for: str | None
    waited_s: float
    at: str


def own_state() -> State:
    """The state of this process' main thread, seen from another."""
    wait = current_wait()
    main = sys._current_frames().get(threading.main_thread().ident or 0)
    at = _line_of_script(main)
    return State(wait[0], wait[1], at) if wait else State(None, 0.0, at)


def _line_of_script(frame: FrameType | None) -> str:
    """The innermost line outside of libraries, or the innermost of all."""
    innermost = frame
    while frame is not None:
        if not any(part in frame.f_code.co_filename for part in _LIBRARIES):
            break
        frame = frame.f_back
    shown = frame or innermost
    if shown is None:
        return "an unknown line"
    return f"{Path(shown.f_code.co_filename).name}:{shown.f_lineno} in {shown.f_code.co_name}"


def report(states: list[State], stall_s: float) -> str | None:
    """The message on a stall of at least `stall_s` seconds; None if there is none.

    Args:
        states: In rank order.
        stall_s: Seconds.
    """
    longest = max(states, key=lambda state: state.waited_s)
    if longest.waits_for is None or longest.waited_s < stall_s:
        return None
    there = [rank for rank, state in enumerate(states) if state.waits_for == longest.waits_for]
    absent = [(rank, state) for rank, state in enumerate(states) if rank not in there]
    if not absent:
        return None  # all are there: it is the transfer itself that is slow
    return (
        f"stalled: {ranks_text(there)} waited {longest.waited_s:.0f} s so far for "
        f"{longest.waits_for}; not there: {_describe_absent(absent)}."
    )


def _describe_absent(absent: list[tuple[int, State]]) -> str:
    named = [
        f"rank {rank}, which waits for {state.waits_for} at {state.at}"
        if state.waits_for
        else f"rank {rank}, at {state.at}"
        for rank, state in absent[:_MAX_NAMED]
    ]
    more = [f"{len(absent) - _MAX_NAMED} more ranks"] if len(absent) > _MAX_NAMED else []
    return "; ".join(named + more)


class StallWatch:
    """A thread in every rank that exchanges what the ranks wait for.

    Args:
        stall_s: Seconds of waiting after which rank 0 reports, and between reports.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._ended = threading.Event()
        self._reported_s = -stall_s
        self._thread = threading.Thread(target=self._run, name="hvdtools-stall-watch", daemon=True)
        self._thread.start()
        # After hvd.init(), so that it ends before Horovod does.
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the thread; it leaves an exchange that other ranks do not answer."""
        self._ended.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._ended.wait(self._stall_s / 4):
            try:
                states = self._exchange_states()
            except (HorovodInternalError, ValueError):
                return  # the job ends, and the rank that failed reports why
            if states is None:
                return
            if hvd.rank() == 0 and time.monotonic() - self._reported_s >= self._stall_s:
                self._log(report(states, self._stall_s))

    def _log(self, message: str | None) -> None:
        if message is not None:
            logger.warning(message)
            self._reported_s = time.monotonic()

    def _exchange_states(self) -> list[State] | None:
        handle = hvd.allgather_async(_packed(own_state()), name="hvdtools.stall")
        begun_s = time.monotonic()
        warned = False
        while not hvd.poll(handle):
            if self._ended.wait(_POLL_S):
                return None
            if not warned and time.monotonic() - begun_s > 2 * self._stall_s:
                warned = True
                logger.warning(
                    f"stalled: some rank has not answered for {2 * self._stall_s:.0f} s, not even "
                    "its Horovod thread: its process was stopped, or its machine is cut off."
                )
        rows = hvd.synchronize(handle).view(hvd.size(), _MESSAGE_BYTES)
        return [_unpacked(row) for row in rows]


def _packed(state: State) -> Tensor:
    fields = asdict(state)
    text = json.dumps(fields)
    for name in ("at", "waits_for"):
        if len(text) > _MESSAGE_BYTES and fields[name]:
            fields[name] = fields[name][:100] + "..."
            text = json.dumps(fields)
    return torch.frombuffer(bytearray(text.encode().ljust(_MESSAGE_BYTES)), dtype=torch.uint8)


def _unpacked(row: Tensor) -> State:
    return State(**json.loads(bytes(row.tolist()).decode()))
