"""`python -m hvdtools.rank_wrapper [--watch [--tag]] [--bind KIND] [--cpus N] [--show] -- PROGRAM`.

Run in each rank if the launcher or the job needs it. It binds the rank to cores and prints
where, and then becomes the program. With --watch it stays as the program's parent instead:

- It reports how the program ended, since not every launcher does.
- It ends the program when its output is no longer read. A launcher that dies takes its ssh
  clients with it, and nothing tells the processes at the other end.
- With --tag it prefixes each line with the rank, for a launcher that would do so in mid-line.
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
from hvdtools.rank_wrapper import exit_line

_CARRIAGE_RETURN = re.compile(rb"\r(?!\n)")  # a progress bar redraws its line
_GRACE_S = 5.0
_DRAIN_S = 2.0
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


def watch(command: Sequence[str], rank: int, tag: str | None) -> int:
    """Run the command in this rank and return its exit code, 128 + number for a signal.

    Args:
        rank: This rank's number.
        tag: The prefix of each line, with "{stream}" for the stream; None to leave the
            output unchanged.
    """
    pipe = None if tag is None else subprocess.PIPE
    # A signal that arrives before the program exists must wait until it can be forwarded.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)

    def in_child() -> None:
        # Called between fork and exec, where nothing may be imported: the library is loaded above.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    try:
        # A separate process group: a signal to all of ours must reach the program once, through
        # this process. Not a session: Linux schedules each as a whole (sched_autogroup), and a
        # rank that waits and yields its core would yield it only to itself.
        # MPICH's PMI uses a file descriptor that the rank inherits.
        program = subprocess.Popen(
            command,
            close_fds=False,
            preexec_fn=in_child,
            stdout=pipe,
            stderr=pipe,
        )
    except OSError as error:
        print(f"hvdtools: {command[0]!r} cannot be run: {error.strerror}.", file=sys.stderr)
        return 127

    def forward(signum: int, frame: FrameType | None) -> None:
        _signal_group(program, signum)

    for signum in _FORWARDED:
        signal.signal(signum, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    threading.Thread(target=_end_if_unread, args=(program,), daemon=True).start()
    taggers = _start_taggers(program, tag)
    code = program.wait()
    code = 128 - code if code < 0 else code
    _signal_group(program, signal.SIGKILL)  # processes that it left behind
    for tagger in taggers:
        tagger.join(_DRAIN_S)
    if code != 0:
        line = (tag or "").format(stream="stderr") + exit_line(rank, code) + "\n"
        _write(2, line.encode())
    return code


def _start_taggers(program: subprocess.Popen[bytes], tag: str | None) -> list[threading.Thread]:
    if tag is None:
        return []
    assert program.stdout is not None and program.stderr is not None
    threads = []
    for pipe, stream, number in ((program.stdout, "stdout", 1), (program.stderr, "stderr", 2)):
        arguments = (pipe, tag.format(stream=stream).encode(), number)
        threads.append(threading.Thread(target=_tag_lines, args=arguments, daemon=True))
        threads[-1].start()
    return threads


def _tag_lines(pipe: IO[bytes], tag: bytes, number: int) -> None:
    for line in pipe:
        # Whole lines, each in one write: the launcher interleaves the output of the ranks.
        whole = line if line.endswith(b"\n") else line + b"\n"
        _write(number, tag + _CARRIAGE_RETURN.sub(b"\r" + tag, whole))


def _write(number: int, text: bytes) -> None:
    try:
        while text:
            text = text[os.write(number, text) :]
    except OSError:  # the output is not read; `_end_if_unread` notices it, too
        return


def _end_if_unread(program: subprocess.Popen[bytes]) -> None:
    """Wait until the reader of our output is gone, then end the program."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)  # errors and hang-ups are reported without being requested
    events = {event for _, event in poll.poll()}
    if not any(event & (select.POLLERR | select.POLLHUP) for event in events):
        return  # the stream was closed before this process started, so there never was a reader
    _signal_group(program, signal.SIGTERM)
    try:
        program.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(program, signal.SIGKILL)


def _signal_group(program: subprocess.Popen[bytes], signum: int) -> None:
    try:
        os.killpg(program.pid, signum)
    except ProcessLookupError:
        return


def _replace_process(command: Sequence[str]) -> int:
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"hvdtools: {command[0]!r} cannot be run: {error.strerror}.", file=sys.stderr)
    return 127


def main(arguments: Sequence[str]) -> int:
    """Run the wrapper; returns only if it watches the program, or fails."""
    split = list(arguments).index("--")
    parser = argparse.ArgumentParser(prog="python -m hvdtools.rank_wrapper")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--tag", action="store_true")
    parser.add_argument("--bind", default="none")
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args(arguments[:split])
    command = arguments[split + 1 :]
    if options.bind != "none" or options.show:
        from hvdtools.rank_wrapper.binding import bind

        bind(options.bind, options.cpus, sys.stderr if options.show else None)
    if not options.watch:
        return _replace_process(command)
    rank = read_launch_environment(os.environ).rank
    return watch(command, rank, f"[{rank}]<{{stream}}>:" if options.tag else None)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except HvdtoolsError as error:
        print(f"hvdtools: {error}", file=sys.stderr)
        sys.exit(2)
