"""Runs the ranks of one host as children, and ends all when one fails."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from hvdtools.launch.outcome import Failure, culprit

KEPT_LINES = 20
# When a rank dies, those that wait for it say so within a second, and then the first can be told
# from the others; who is still there is asked to end, and then made to.
_LAST_WORDS_S = 3.0
_GRACE_S = 10.0
_NOT_FOUND = 127


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    reader: threading.Thread
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))


def run_ranks(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> tuple[int, str]:
    """Run `command` once in each environment and wait for all; nothing of them is left then.

    Each line of a rank is printed behind its number. SIGTERM, by which SageMaker stops a job
    two minutes before it kills it, and SIGINT go on to the ranks.

    Args:
        environments: A rank's whole environment; RANK is its number.

    Returns:
        (0, "") or the exit code of the rank that failed first (128 + number for a signal)
        and what to tell the user about it.
    """
    ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    ranks: dict[int, _Rank] = {}

    def pass_on(signum: int, frame: FrameType | None) -> None:
        _signal_all(ranks, signum)

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        for environment in environments:
            rank = _start(command, environment, ended)
            ranks[rank.number] = rank
        return _wait(ranks, ended)
    except OSError as error:
        return _NOT_FOUND, f"{command[0]!r} cannot be run in the container: {error.strerror}."
    finally:
        _end(ranks)
        for each, handler in before.items():
            signal.signal(each, handler)


def _start(
    command: Sequence[str],
    environment: Mapping[str, str],
    ended: queue.SimpleQueue[tuple[int, int]],
) -> _Rank:
    # A session of its own, so that its children can be ended with it.
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    number = int(environment["RANK"])
    rank = _Rank(number, process, threading.Thread(daemon=True))
    rank.reader = threading.Thread(target=_read, args=(rank,), daemon=True)
    rank.reader.start()

    def wait() -> None:
        ended.put((number, process.wait()))

    threading.Thread(target=wait, daemon=True).start()
    return rank


def _read(rank: _Rank) -> None:
    assert rank.process.stdout is not None
    for line in rank.process.stdout:
        text = line.decode(errors="backslashreplace").rstrip("\r\n")
        rank.last_lines.append(text)
        # In one piece, since ranks write at the same time.
        sys.stdout.write(f"[{rank.number}] {text}\n")
        sys.stdout.flush()


def _wait(ranks: Mapping[int, _Rank], ended: queue.SimpleQueue[tuple[int, int]]) -> tuple[int, str]:
    failures: list[Failure] = []
    deadline: float | None = None
    for _ in ranks:
        try:
            patience_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            number, code = ended.get(timeout=patience_s)
        except queue.Empty:
            break
        if code != 0:
            failures.append(Failure(number, 128 - code if code < 0 else code))
            deadline = deadline or time.monotonic() + _LAST_WORDS_S
    if not failures:
        return 0, ""
    _end(ranks)
    said = {number: tuple(rank.last_lines) for number, rank in ranks.items()}
    failure = culprit(tuple(failures), said)
    lines = "\n".join(said[failure.rank])
    return (
        failure.exit_code,
        f"rank {failure.rank} ended with exit code {failure.exit_code}.\n{lines}",
    )


def _end(ranks: Mapping[int, _Rank]) -> None:
    """End every rank and what it left behind, and read all that they said."""
    alive = [rank for rank in ranks.values() if rank.process.poll() is None]
    _signal_all({rank.number: rank for rank in alive}, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    for rank in alive:
        try:
            rank.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
    _signal_all(ranks, signal.SIGKILL)
    for rank in ranks.values():
        rank.process.wait()
        rank.reader.join(_LAST_WORDS_S)


def _signal_all(ranks: Mapping[int, _Rank], signum: int) -> None:
    for rank in list(ranks.values()):
        try:
            os.killpg(rank.process.pid, signum)
        except ProcessLookupError:
            continue
