"""The log of a job, read as it grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


class JobLog:
    """Reads a file that others append to, on a file system that may show it late.

    Attributes:
        path: The file.
        was_there: True once it could be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.was_there = False
        self._position_bytes = 0
        self._begun = b""

    def new_lines(self, *, to_end: bool = False) -> Iterator[str]:
        """The lines that were completed since the last call, without their ends.

        Args:
            to_end: Nothing more will be written: a last line without its end is one, too.
        """
        *lines, self._begun = (self._begun + self._new_bytes()).split(b"\n")
        if to_end and self._begun:
            lines.append(self._begun)
            self._begun = b""
        for line in lines:
            yield line.decode(errors="backslashreplace")

    def _new_bytes(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                self.was_there = True
                if file.seek(0, 2) < self._position_bytes:
                    self._position_bytes = 0  # written anew
                file.seek(self._position_bytes)
                new = file.read()
        except OSError:
            return b""
        self._position_bytes += len(new)
        return new
