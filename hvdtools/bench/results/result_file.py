"""Result files: one JSON line for each engine of a job, written as soon as it is known."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools.bench.results.measured import (
    Allreduce,
    Loader,
    Measured,
    Training,
    from_dict,
    to_dict,
)
from hvdtools.bench.results.migration import SCHEMA_VERSION, migrate
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.core.errors import HvdtoolsError, unknown_name

FILE_NAME = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """One engine in one job that worked or failed; `results.schema.json` has the same fields.

    Attributes:
        run_id: Of one `hvdtools bench run`, resumed or not; many results share it.
        time_utc: When the job ended, ISO 8601.
        suite: The suite's name.
        suite_digest: Of the suite's content: a run is resumed with the same suite only.
        family: Of its program, a name in `engines.FAMILIES`.
        kind: "training", "allreduce" or "input".
        program: The program's file, without its folder.
        options: Of the program as in the suite, the same for all engines and sizes.
        engine: A name among the family's engines.
        interleaved: The engines that were interleaved in this job.
        scaling: "weak" or "strong"; None where nothing is scaled.
        ranks, nodes: The size of the job.
        repeat: Which repetition of the job, from 1.
        wall_s: Of the whole job, including its start.
        exit_code, error: 0 and None for a job that worked; `error` says why one failed.
        command: Runs the same job from a clone.
        versions, hardware, environment: See `run.facts`.
        measured: None for a job that failed.
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
        """What was measured, if that is a training."""
        return self.measured if isinstance(self.measured, Training) else None

    @property
    def allreduce(self) -> Allreduce | None:
        """What was measured, if that is all-reduces."""
        return self.measured if isinstance(self.measured, Allreduce) else None

    @property
    def loader(self) -> Loader | None:
        """What was measured, if that is a loader."""
        return self.measured if isinstance(self.measured, Loader) else None

    @property
    def block_rates(self) -> list[float]:
        """Samples/s of all ranks together in each block; empty for an all-reduce."""
        return self.measured.block_rates if isinstance(self.measured, Training | Loader) else []

    def to_json(self) -> str:
        """One line, without its newline."""
        measured = None if self.measured is None else to_dict(self.measured)
        return json.dumps({**vars(self), "measured": measured})


def from_json(line: str) -> Result:
    """The result on one line, of this schema version or an older one.

    Raises:
        ValueError: The line is incomplete JSON.
        HvdtoolsError: It is other JSON, or of an unknown schema version.
    """
    fields = json.loads(line)
    return _from_dict(fields if isinstance(fields, dict) else {})


def _from_dict(old_fields: dict[str, Any]) -> Result:
    fields = migrate(old_fields)
    expected = {field.name for field in dataclasses.fields(Result)}
    if fields.keys() != expected:
        odd = ", ".join(sorted(fields.keys() ^ expected))
        raise HvdtoolsError(f"A result has missing or unknown fields ({odd}): was it edited?")
    family = FAMILIES.get(fields["family"])
    if family is None or fields["engine"] not in family.engines:
        raise HvdtoolsError(
            f"A result has the unknown engine {fields['engine']!r} of {fields['family']!r}: read "
            "it with the version of hvdtools that wrote it."
        )
    if fields["measured"] is not None:
        fields["measured"] = from_dict(fields["kind"], fields["measured"])
    return Result(**{**fields, "interleaved": tuple(fields["interleaved"])})


def append(file: Path, result: Result) -> None:
    """Add one line, on disk when this returns; all other lines stay, incomplete ones too.

    The file is not kept open: a run that is killed leaves complete lines.
    """
    with file.open("ab+") as out:
        out.seek(0, os.SEEK_END)
        if out.tell() > 0:
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")  # an earlier run was killed while writing
        out.write(result.to_json().encode() + b"\n")
        out.flush()
        os.fsync(out.fileno())


def replace_file(file: Path, text: str) -> None:
    """Write a file as a whole: if this fails, the old one stays unchanged."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8", newline="") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(file)


def migrate_file(file: Path) -> None:
    """Rewrite a file that has lines of older versions; incomplete lines are dropped.

    Raises:
        HvdtoolsError: A line cannot be migrated; the file stays unchanged.
    """
    if not file.is_file():
        return
    versions = {fields.get("schema_version") for fields in _lines(file) if fields is not None}
    if versions - {SCHEMA_VERSION}:
        replace_file(file, "".join(result.to_json() + "\n" for result in results_so_far(file)))


@dataclass(frozen=True)
class Reading:
    """The results of a file, and how many incomplete lines were ignored."""

    results: tuple[Result, ...]
    incomplete_lines: int

    def of_run(self, run_id: str | None) -> tuple[Result, ...]:
        """The results of one run, by default the newest.

        Raises:
            HvdtoolsError: There is no such run; the message lists the known ones.
        """
        runs = list(dict.fromkeys(result.run_id for result in self.results))
        wanted = runs[-1] if run_id is None else run_id
        if wanted not in runs:
            raise unknown_name("run", wanted, runs)
        return tuple(result for result in self.results if result.run_id == wanted)


def read(file: Path) -> Reading:
    """All results of a file, in its order.

    Raises:
        HvdtoolsError: There is no file or no complete line in it, or a line has an unknown
            schema version.
    """
    if not file.is_file():
        raise HvdtoolsError(f"There are no results in {file}: run `hvdtools bench run demo` first.")
    lines = list(_lines(file))
    results = tuple(_from_dict(fields) for fields in lines if fields is not None)
    if not results:
        raise HvdtoolsError(f"There is no complete result in {file}: run the suite again.")
    return Reading(results, len(lines) - len(results))


def results_so_far(file: Path) -> tuple[Result, ...]:
    """The same results; none where there is no file or no complete line.

    Raises:
        HvdtoolsError: A line has an unknown schema version.
    """
    lines = _lines(file) if file.is_file() else ()
    return tuple(_from_dict(fields) for fields in lines if fields is not None)


def _lines(file: Path) -> Iterator[dict[str, Any] | None]:
    """The JSON object on each line; None for an incomplete line."""
    for line in file.read_bytes().decode("utf-8", errors="replace").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            yield None
        else:
            yield fields if isinstance(fields, dict) else {}


def new_run_id(time_utc: str) -> str:
    """A new run id, which sorts by time: "20260131T120000Z-9f3c"."""
    compact = "".join(character for character in time_utc[:19] if character not in "-:")
    return f"{compact}Z-{os.urandom(2).hex()}"
