"""What was measured: one JSON line a case, written as soon as it is known."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.results.measured import (
    Allreduce,
    Loader,
    Measured,
    Training,
    from_table,
    to_table,
)
from hvdtools.bench.results.migration import SCHEMA_VERSION, migrated
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError

FILE_NAME = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """One engine in one job, whole or failed. `results.schema.json` documents the fields too.

    Attributes:
        run_id: One `hvdtools bench run`, resumed or not; many results share it.
        time_utc: When the job ended, ISO 8601.
        suite: The suite's name.
        suite_digest: Of what the suite says, so that a run is resumed with the same.
        family: Whose program it was, a name in `engines.FAMILIES`.
        kind: "training", "allreduce" or "input".
        program: The program's file, without its folder.
        options: What the suite told the program, for all engines and rank counts alike.
        engine: A name among the family's engines.
        interleaved: The engines that took turns in this one job.
        scaling: "weak" or "strong"; None where there is nothing to scale.
        ranks, nodes: Of the job.
        repeat: Which repetition of the job, from 1.
        wall_s: The whole job, with its start.
        exit_code, error: 0 and None for a job that worked; `error` says why it did not.
        command: The same job by hand, from a clone.
        versions, hardware, environment: See `facts`.
        measured: What the program found; None for a job that failed.
    """

    run_id: str
    time_utc: str
    suite: str
    suite_digest: str
    family: str
    kind: str
    program: str
    options: dict[str, str | int | float]
    engine: str
    interleaved: tuple[str, ...]
    scaling: str | None
    ranks: int
    nodes: int
    repeat: int
    wall_s: float
    exit_code: int
    error: str | None
    command: str
    versions: dict[str, str]
    hardware: dict[str, str | int | float | list[str]]
    environment: dict[str, str]
    measured: Measured | None
    schema_version: int = SCHEMA_VERSION

    @property
    def training(self) -> Training | None:
        """What was measured, if it is a training."""
        return self.measured if isinstance(self.measured, Training) else None

    @property
    def allreduce(self) -> Allreduce | None:
        """What was measured, if it is all-reduces."""
        return self.measured if isinstance(self.measured, Allreduce) else None

    @property
    def loader(self) -> Loader | None:
        """What was measured, if it is a loader."""
        return self.measured if isinstance(self.measured, Loader) else None

    @property
    def block_rates(self) -> list[float]:
        """Samples a second of all ranks together, in each block; none for an all-reduce."""
        return self.measured.block_rates if isinstance(self.measured, Training | Loader) else []

    def to_json(self) -> str:
        """One line, without its newline."""
        table = {**vars(self), "measured": None}
        if self.measured is not None:
            table["measured"] = to_table(self.measured)
        return json.dumps(table)


def from_json(line: str) -> Result:
    """The result on one line, of this schema version or an older one.

    Raises:
        ValueError: The line is not whole JSON.
        HvdtoolsError: It is JSON of another kind, or of an unknown schema version.
    """
    table = json.loads(line)
    table = migrated(table if isinstance(table, dict) else {})
    expected = {field.name for field in dataclasses.fields(Result)}
    if table.keys() != expected:
        odd = ", ".join(sorted(table.keys() ^ expected))
        raise HvdtoolsError(f"A result has missing or unknown fields ({odd}): was it edited?")
    family = FAMILIES.get(table["family"])
    if family is None or table["engine"] not in family.engines:
        raise HvdtoolsError(
            f"A result is of the engine {table['engine']!r} of {table['family']!r}, which this "
            "hvdtools does not know: read it with the hvdtools that wrote it."
        )
    if table["measured"] is not None:
        table["measured"] = from_table(table["kind"], table["measured"])
    return Result(**{**table, "interleaved": tuple(table["interleaved"])})


def append(file: Path, result: Result) -> None:
    """Add one line and have it on disk on return; what is there stays, cut lines too.

    The file is not kept open: a run that is killed leaves whole lines behind.
    """
    with file.open("ab+") as out:
        out.seek(0, os.SEEK_END)
        if out.tell() > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")  # an earlier run was cut off in mid-line
        out.write(result.to_json().encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())


def bring_up_to_date(file: Path) -> None:
    """Rewrite a file that has lines of older versions, whole or not at all; cut lines are dropped.

    Raises:
        HvdtoolsError: A line cannot be migrated; the file is left unchanged then.
    """
    if not file.is_file() or not _has_old_lines(file):
        return
    lines = "".join(result.to_json() + "\n" for result in _whole_lines(file).results)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with unfinished.open("w") as out:
        out.write(lines)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(file)


def _has_old_lines(file: Path) -> bool:
    for line in file.read_bytes().decode("utf-8", errors="replace").splitlines():
        try:
            table = json.loads(line)
        except ValueError:
            continue
        if isinstance(table, dict) and table.get("schema_version") != SCHEMA_VERSION:
            return True
    return False


@dataclass(frozen=True)
class Reading:
    """The results of a file, and how many of its lines were cut short and left out."""

    results: tuple[Result, ...]
    cut_lines: int

    def of_run(self, run_id: str | None) -> tuple[Result, ...]:
        """The results of one run, by default of the newest.

        Raises:
            HvdtoolsError: There is no such run; the message lists those there are.
        """
        runs = list(dict.fromkeys(result.run_id for result in self.results))
        wanted = runs[-1] if run_id is None else run_id
        if wanted not in runs:
            raise HvdtoolsError(f"Unknown run {wanted!r}: choose one of {', '.join(runs)}.")
        return tuple(result for result in self.results if result.run_id == wanted)


def read(file: Path) -> Reading:
    """Every whole result in the file, in its order.

    Raises:
        HvdtoolsError: There is no file, no whole line in it, or a line is of
            an unknown schema version.
    """
    if not file.is_file():
        raise HvdtoolsError(f"There are no results in {file}: run `hvdtools bench run demo` first.")
    reading = _whole_lines(file)
    if not reading.results:
        raise HvdtoolsError(f"There is no whole result in {file}: run the suite again.")
    return reading


def whole_results(file: Path) -> tuple[Result, ...]:
    """The same; none where there is no file, or nothing but a line that was cut.

    Raises:
        HvdtoolsError: A line is of an unknown schema version.
    """
    return _whole_lines(file).results if file.is_file() else ()


def _whole_lines(file: Path) -> Reading:
    results: list[Result] = []
    cut_lines = 0
    for line in file.read_bytes().decode("utf-8", errors="replace").splitlines():
        try:
            results.append(from_json(line))
        except ValueError:
            cut_lines += 1
    return Reading(tuple(results), cut_lines)


def new_run_id(time_utc: str) -> str:
    """A name for a run that sorts by time: "20260131T120000Z-9f3c"."""
    compact = "".join(character for character in time_utc[:19] if character not in "-:")
    return f"{compact}Z-{os.urandom(2).hex()}"
