"""Starts a plan, shows what its ranks say, and tells how it ended."""

from __future__ import annotations

import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import IO

from hvdtools.core.errors import TIMED_OUT, HvdtoolsError
from hvdtools.launch.launchers import launcher
from hvdtools.launch.outcome import Failure, Outcome, culprit
from hvdtools.launch.plan import Plan
from hvdtools.launch.process_tree import end_tree
from hvdtools.launch.transcript import OnLine, Transcript
from hvdtools.rank_wrapper import parse_exit_line

# When to tell ranks to save, in seconds since the epoch; set by batch scripts.
SAVE_AT = "HVDTOOLS_SAVE_AT"
_LAST_WORDS_S = 5.0
_FIND_OUT_S = 3.0


@dataclass(frozen=True)
class _Stop:
    """Why to stop waiting: the launcher ended, a signal or the clock, or a reader that failed.

    Attributes:
        signum: The signal to end the launcher with; None if it has ended.
        exit_code: What the job's exit code is then; None where the ranks' failures tell.
        error: What a reader met.
    """

    signum: int | None = None
    exit_code: int | None = None
    error: BaseException | None = None


class _Endings:
    """How watched ranks ended (see `hvdtools.rank_wrapper`), in the order in which they say so."""

    def __init__(self, stops: queue.SimpleQueue[_Stop]) -> None:
        self.failures: list[Failure] = []
        self._stops = stops

    def heard(self, line: str) -> bool:
        """True if the line is such a word; some launchers let the others wait for ever then."""
        ended = parse_exit_line(line)
        if ended is None:
            return False
        if not self.failures:
            # The other ranks find out by themselves, and their words may help.
            timer = threading.Timer(_FIND_OUT_S, self._stops.put, [_Stop(signum=signal.SIGTERM)])
            timer.daemon = True
            timer.start()
        self.failures.append(Failure(*ended))
        return True


class _SaveSignal:
    """Passes SIGUSR1, "save and exit", to the launcher, which passes it on to its ranks.

    It comes as a signal to this process, or at the time that HVDTOOLS_SAVE_AT gives.

    Attributes:
        was_sent: True once the launcher was told.

    Raises:
        HvdtoolsError: HVDTOOLS_SAVE_AT is not a time.
    """

    def __init__(self, launcher: str) -> None:
        self._launcher = launcher
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None
        self._is_asked = False
        self.was_sent = False
        try:
            self._save_at_s = float(os.environ.get(SAVE_AT) or "inf")
        except ValueError:
            raise HvdtoolsError(
                f"{SAVE_AT}={os.environ[SAVE_AT]} is not a time in seconds since the epoch: "
                "correct it, or unset it."
            ) from None

    def __call__(self) -> None:
        """Tell the ranks now, or as soon as there is a launcher."""
        self._is_asked = True
        if self._process is None:
            return
        if self._launcher == "horovodrun":  # it would end by the signal itself
            print(
                "hvdtools: horovodrun does not pass SIGUSR1 on, so ranks are not told to save: "
                "use --launcher mpirun.",
                file=sys.stderr,
            )
            return
        self.was_sent = True
        self._process.send_signal(signal.SIGUSR1)

    def pass_to(self, process: subprocess.Popen[bytes]) -> None:
        """Set the launcher that was started."""
        self._process = process
        if self._is_asked:
            self()
        if self._save_at_s < float("inf"):
            self._timer = threading.Timer(max(0.0, self._save_at_s - time.time()), self)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """Forget the time."""
        if self._timer is not None:
            self._timer.cancel()


def show(rank: int | None, stream: str, line: str) -> None:
    """Print a line to the stream it came from, "[rank] line"; the launcher's own words bare."""
    print(line if rank is None else f"[{rank}] {line}", file=getattr(sys, stream), flush=True)


def run(plan: Plan, *, on_line: OnLine | None = None, timeout_s: float | None = None) -> Outcome:
    """Start `plan` and wait for it; no process of it is left on return.

    SIGINT, SIGTERM, SIGHUP and SIGUSR2 (Grid Engine's notice of an end, `qsub -notify`) end
    every rank while this runs in the main thread. SIGUSR1 is
    passed on to the launcher, which passes it on to the ranks: to hvdtools it means "save and
    exit". The variable HVDTOOLS_SAVE_AT, in seconds since the epoch, sends it at a time.

    Args:
        plan: From `make_plan`.
        on_line: Called with (rank or None for the launcher's own words, "stdout" or
            "stderr", line) for each line as it arrives, one call at a time. `show` if None.
            An exception that it raises ends the job and is raised again here.
        timeout_s: End the job after this many seconds; None waits for ever.
    """
    # A SimpleQueue may be put to inside a signal handler that interrupts its own get.
    stops: queue.SimpleQueue[_Stop] = queue.SimpleQueue()
    endings = _Endings(stops)
    tell = on_line or show

    def take(rank: int | None, stream: str, line: str) -> None:
        if not endings.heard(line):
            tell(rank, stream, line)

    transcript = Transcript(launcher(plan.launcher).tag(plan.argv), take)
    save = _SaveSignal(plan.launcher)
    with _signals_to(stops, save):
        process = _start(plan)
        try:
            save.pass_to(process)
            readers = _read_in_threads(process, transcript, stops)
            stop = _wait(stops, timeout_s)
        except BaseException:
            end_tree(process.pid, signal.SIGTERM)
            raise
        if stop.signum is not None:
            end_tree(process.pid, stop.signum)
        exit_code = process.wait()
        for reader in readers:  # a process that outlives its rank may hold the pipe open
            reader.join(timeout=_LAST_WORDS_S)
    _raise_what_a_reader_met(stop, stops)
    if stop.exit_code is not None:
        return Outcome(stop.exit_code, None, (), stopped=True)
    outcome = _outcome(plan, exit_code, transcript, tuple(endings.failures))
    return replace(outcome, told_to_save=save.was_sent)


def _start(plan: Plan) -> subprocess.Popen[bytes]:
    # A session of its own, so that a Ctrl-C reaches the ranks once, by way of end_tree.
    return subprocess.Popen(
        plan.argv,
        env={**os.environ, **dict(plan.env)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _read_in_threads(
    process: subprocess.Popen[bytes], transcript: Transcript, stops: queue.SimpleQueue[_Stop]
) -> list[threading.Thread]:
    def read(pipe: IO[bytes], stream: str) -> None:
        # newline="": a carriage return ends a line too, and stays to be told from a line break.
        with io.TextIOWrapper(
            pipe, encoding="utf-8", errors="backslashreplace", newline=""
        ) as text:
            try:
                transcript.read(text, stream)
            except BaseException as error:
                stops.put(_Stop(signum=signal.SIGTERM, error=error))

    def wait() -> None:
        process.wait()
        stops.put(_Stop())

    assert process.stdout is not None and process.stderr is not None
    readers = [
        threading.Thread(target=read, args=(process.stdout, "stdout"), daemon=True),
        threading.Thread(target=read, args=(process.stderr, "stderr"), daemon=True),
    ]
    for thread in (*readers, threading.Thread(target=wait, daemon=True)):
        thread.start()
    return readers


def _wait(stops: queue.SimpleQueue[_Stop], timeout_s: float | None) -> _Stop:
    try:
        return stops.get(timeout=timeout_s)
    except queue.Empty:
        return _Stop(signum=signal.SIGTERM, exit_code=TIMED_OUT)


def _raise_what_a_reader_met(stop: _Stop, stops: queue.SimpleQueue[_Stop]) -> None:
    # The last lines are read after the launcher has ended, so an error may have come second.
    later = [stops.get() for _ in range(stops.qsize())]
    for error in (each.error for each in (stop, *later) if each.error is not None):
        raise error


@contextmanager
def _signals_to(stops: queue.SimpleQueue[_Stop], save: _SaveSignal) -> Iterator[None]:
    """While inside, a signal that would end this process goes to `stops`, and SIGUSR1 to `save`."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return

    def handle(signum: int, frame: object) -> None:
        stops.put(_Stop(signum=signum, exit_code=128 + signum))

    wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup keeps its promise
        wanted.append(signal.SIGHUP)
    before = {signum: signal.signal(signum, handle) for signum in wanted}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda signum, frame: save())
    try:
        yield
    finally:
        save.stop()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _own_words(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(line for line in lines if parse_exit_line(line) is None)


def _outcome(
    plan: Plan, exit_code: int, transcript: Transcript, failures: tuple[Failure, ...]
) -> Outcome:
    if exit_code == 0 and not failures:
        return Outcome(0, None, ())
    own_code = 128 - exit_code if exit_code < 0 else exit_code
    words = transcript.words()
    failures = failures or launcher(plan.launcher).failures(words, own_code)
    if plan.ranks == 1 and not words.strip():
        failures = (Failure(0, own_code),)  # Open MPI 5 does not report on a rank that is alone
    if not failures:
        return Outcome(own_code, None, transcript.last_lines(None))
    said = {rank: _own_words(transcript.last_lines(rank)) for rank in range(plan.ranks)}
    failure = culprit(failures, said)
    return Outcome(failure.exit_code, failure.rank, said[failure.rank], failure.code_is_own)
