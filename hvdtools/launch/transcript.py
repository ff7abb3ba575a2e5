"""Who said what: a launcher's two output streams taken apart into lines of ranks."""

from __future__ import annotations

import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import TextIO

KEPT_LINES = 20
_KEPT_ERRORS = 15
_KEPT_WORDS = 2000  # enough for the report of a job of hundreds of ranks, bounded for a long one

OnLine = Callable[[int | None, str, str], None]


class Transcript:
    """Reads both streams of a launcher, shows each line, and keeps the last of every rank.

    A line of a rank goes to the stream that its tag names, or else to the one it came by; what
    has no tag is the launcher's own and has rank None. A carriage return ends a line too, so that a
    progress bar is seen while it moves.
    """

    def __init__(self, tag: re.Pattern[str], on_line: OnLine) -> None:
        self._tag = tag
        self._on_line = on_line
        self._one_at_a_time = threading.Lock()
        self._tails: defaultdict[tuple[int, str], deque[str]] = defaultdict(
            lambda: deque(maxlen=KEPT_LINES)
        )
        self._words: deque[str] = deque(maxlen=_KEPT_WORDS)

    def read(self, pipe: TextIO, stream: str) -> None:
        """Read `pipe` (opened with newline="") to its end; one thread a stream may do so."""
        speaker: int | None = None
        for piece in pipe:
            text = piece.rstrip("\r\n")
            moves_on = piece.endswith("\r")
            with self._one_at_a_time:
                for said_by, where, line in self._split(text, speaker, stream):
                    speaker = said_by
                    # An empty piece before a carriage return is a cursor that moves, not a line.
                    if line or not moves_on:
                        self._take(said_by, where, line)
            # After a carriage return the same rank goes on, without a new tag.
            speaker = speaker if moves_on else None

    def _split(
        self, text: str, speaker: int | None, stream: str
    ) -> list[tuple[int | None, str, str]]:
        tags = list(self._tag.finditer(text))
        if not tags:
            return [(speaker, stream, text)]
        # A rank that ends without a line break is followed by another's tag in the same line.
        before = text[: tags[0].start()]
        pieces = [(speaker, stream, before)] if before else []
        ends = [*(following.start() for following in tags[1:]), len(text)]
        for found, end in zip(tags, ends, strict=True):
            said_by, line = int(found["rank"]), text[found.end() : end]
            where = found.groupdict().get("stream") or stream
            if pieces and pieces[-1][:2] == (said_by, where):
                # Open MPI 4 tags every write, even in the middle of a line.
                line = pieces.pop()[2] + line
            pieces.append((said_by, where, line))
        return pieces

    def _take(self, rank: int | None, stream: str, line: str) -> None:
        if rank is None:
            self._words.append(line)
        else:
            self._tails[rank, stream].append(line)
        self._on_line(rank, stream, line)

    def last_lines(self, rank: int | None) -> tuple[str, ...]:
        """The last lines of a rank, 20 at most, or of the launcher itself (None).

        A rank's two streams arrive in no fixed order, and its error must not be pushed out by
        what it printed: standard error comes last and has 15 of the lines, more if there is room.
        """
        with self._one_at_a_time:
            if rank is None:
                return tuple(self._words)[-KEPT_LINES:]
            printed = list(self._tails.get((rank, "stdout"), ()))
            errors = list(self._tails.get((rank, "stderr"), ()))
        errors = errors[-max(_KEPT_ERRORS, KEPT_LINES - len(printed)) :]
        return (*printed[max(0, len(printed) + len(errors) - KEPT_LINES) :], *errors)

    def words(self) -> str:
        """What the launcher said itself."""
        with self._one_at_a_time:
            return "\n".join(self._words)
