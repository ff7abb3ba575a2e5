"""A file of output for each rank."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TextIO

from hvdtools.core.errors import HvdtoolsError


class LogFiles:
    """Writes each rank's lines, of both streams as they arrive, to "rank-3.log" in a folder.

    Files of an earlier job are never written to; a restart of the same job writes to
    "rank-3.restart-1.log".

    Args:
        folder: Is made if it is not there.
        ranks: How many ranks there are; the numbers have as many digits as the last needs.

    Raises:
        HvdtoolsError: The folder cannot be made or written to, or holds such files.
    """

    def __init__(self, folder: Path, ranks: int) -> None:
        self._folder, self._digits = folder, len(str(ranks - 1))
        self._files: dict[int, TextIO] = {}
        self._suffix = ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = sorted(folder.glob("rank-*.log"))
            if taken:
                raise HvdtoolsError(
                    f"{folder} holds the output of an earlier job ({taken[0].name}): choose "
                    "another --log-dir, or move it away."
                )
            self._file(0)  # or the first line would find out
        except OSError as error:
            raise HvdtoolsError(f"--log-dir {folder} cannot be written to: {error}.") from None

    def __enter__(self) -> LogFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def restart(self, number: int) -> None:
        """Go on in new files, for the `number`-th restart."""
        self._close()
        self._suffix = f".restart-{number}"

    def write(self, rank: int, line: str) -> None:
        """Add a line of a rank; it is on disk when this returns."""
        self._file(rank).write(line + "\n")

    def _file(self, rank: int) -> TextIO:
        if rank not in self._files:
            path = self._folder / f"rank-{rank:0{self._digits}}{self._suffix}.log"
            self._files[rank] = path.open("x", buffering=1, errors="backslashreplace")
        return self._files[rank]

    def _close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
