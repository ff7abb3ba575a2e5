"""What stands between a launcher and the program in a rank, where one of them needs it.

Run in each rank: `python -m hvdtools.rank_wrapper [--watch [--tag]] [--bind KIND]
[--cpus N] [--show] -- PROGRAM ...`. It binds the rank to cores, says so, and then
becomes the program; or, to watch, it stays above it:

- It says how the program ended, since not every launcher does.
- It ends the program when nobody listens any more. A launcher that goes away takes its ssh
  clients along, and nobody tells the processes at the other ends.
- It begins each line with the rank's number, for a launcher that would do so in mid-line.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import IO

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import read_launch_environment
from hvdtools.rank_wrapper.words import ending

_MOVES_BACK = re.compile(rb"\r(?!\n)")  # a progress bar draws itself again
_GRACE_S = 5.0
_DRAIN_S = 2.0
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


def watch(command: Sequence[str], rank: int, tag: str | None) -> int:
    """Run the command in this rank and return its exit code, 128 + number for a signal.

    Args:
        rank: This rank's number.
        tag: What each of its lines begins with, "{stream}" standing for the stream; None to
            leave its output alone.
    """
    pipe = None if tag is None else subprocess.PIPE
    # A signal that comes before there is a program to pass it on to must wait for it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)

    def in_program() -> None:
        # Called between fork and exec, where nothing may be imported: the library is loaded before.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        # A process group of its own: what is sent to all of ours must reach it once, by way of
        # us. Not a session: Linux schedules each as a whole (sched_autogroup), and a rank that
        # waits and yields its core would yield it to nobody but itself.
        # MPICH's PMI speaks over a file that the rank inherits.
        program = subprocess.Popen(
            command,
            close_fds=False,
            preexec_fn=in_program,
            stdout=pipe,
            stderr=pipe,
        )
    except OSError as error:
        print(f"hvdtools: {command[0]!r} cannot be run: {error.strerror}.", file=sys.stderr)
        return 127

    def pass_on(signum: int, frame: FrameType | None) -> None:
        _signal_all(program, signum)

    for signum in _PASSED_ON:
        signal.signal(signum, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    threading.Thread(target=_end_unheard, args=(program,), daemon=True).start()
    taggers = _tag_lines(program, tag)
    code = program.wait()
    code = 128 - code if code < 0 else code
    _signal_all(program, signal.SIGKILL)  # what it left behind
    for tagger in taggers:
        tagger.join(_DRAIN_S)
    if code != 0:
        _write(2, (tag or "").format(stream="stderr") + ending(rank, code) + "\n")
    return code


def _tag_lines(program: subprocess.Popen[bytes], tag: str | None) -> list[threading.Thread]:
    if tag is None:
        return []
    assert program.stdout is not None and program.stderr is not None
    threads = []
    for pipe, stream, number in ((program.stdout, "stdout", 1), (program.stderr, "stderr", 2)):
        words = (pipe, tag.format(stream=stream), number)
        threads.append(threading.Thread(target=_tag, args=words, daemon=True))
        threads[-1].start()
    return threads


def _tag(pipe: IO[bytes], tag: str, number: int) -> None:
    begin = tag.encode()
    for line in pipe:
        # Whole lines, each in one write: the launcher mixes what the ranks write.
        whole = line if line.endswith(b"\n") else line + b"\n"
        _write_bytes(number, begin + _MOVES_BACK.sub(b"\r" + begin, whole))


def _write(number: int, text: str) -> None:
    _write_bytes(number, text.encode())


def _write_bytes(number: int, text: bytes) -> None:
    try:
        while text:
            text = text[os.write(number, text) :]
    except OSError:  # nobody listens: `_end_unheard` sees it too
        return


def _end_unheard(program: subprocess.Popen[bytes]) -> None:
    """Wait until whoever read our output is gone, then end the program."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)  # an error or a hang-up is told without being asked for
    told = {event for _, event in poll.poll()}
    if not any(event & (select.POLLERR | select.POLLHUP) for event in told):
        return  # the stream was closed before we came, so nobody ever listened
    _signal_all(program, signal.SIGTERM)
    try:
        program.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_all(program, signal.SIGKILL)


def _signal_all(program: subprocess.Popen[bytes], signum: int) -> None:
    try:
        os.killpg(program.pid, signum)
    except ProcessLookupError:
        return


def _become(command: Sequence[str]) -> int:
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"hvdtools: {command[0]!r} cannot be run: {error.strerror}.", file=sys.stderr)
    return 127


def main(words: Sequence[str]) -> int:
    """Do what the words ask for; returns only where it watches, or fails."""
    split = list(words).index("--")
    parser = argparse.ArgumentParser(prog="python -m hvdtools.rank_wrapper")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--tag", action="store_true")
    parser.add_argument("--bind", default="none")
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args(words[:split])
    command = words[split + 1 :]
    if asked.bind != "none" or asked.show:
        from hvdtools.rank_wrapper.binding import bind

        bind(asked.bind, asked.cpus, sys.stderr if asked.show else None)
    if not asked.watch:
        return _become(command)
    rank = read_launch_environment(os.environ).rank
    return watch(command, rank, f"[{rank}]<{{stream}}>:" if asked.tag else None)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HvdtoolsError as error:
        print(f"hvdtools: {error}", file=sys.stderr)
        sys.exit(2)
