"""What was measured: one JSON line a case, written as soon as it is known."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.engines import ENGINES
from hvdtools.errors import HvdtoolsError

SCHEMA_VERSION = 2
FILE_NAME = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """One case of one round, whole or failed.

    Attributes:
        run_id: One `hvdtools bench run`; many results share it.
        time_utc: When the case ended, ISO 8601.
        suite, scaling, engine, ranks, round: Which case it was.
        framework: Whose program it was, a name in `engines.FRAMEWORKS`.
        program: The program's file, without its folder.
        model, data: What it trained, on which images.
        moved_by: What carried the gradients: "mpi", "gloo", "grpc" or "nccl".
        device: "cpu" or "cuda".
        batch_per_rank, threads_per_rank, lr: As the program used them; `lr` is
            that of the whole job.
        steps_per_block: Steps in each of `block_s`.
        block_s: Wall times of blocks of steps, each the slowest rank's, in seconds.
        samples_per_s: Of all ranks together, the median over the blocks.
        accuracy: On the whole test set after training, 0 to 1.
        in_sync: Whether all ranks ended with the same weights, bit for bit;
            None for a single rank.
        wall_s: The whole job, with its start.
        exit_code, error: 0 and None for a case that worked; `error` says why
            it did not. What the program would have measured is then None.
        command: The same job by hand, from a clone.
        versions, hardware, environment: See `facts`.
    """

    run_id: str
    time_utc: str
    suite: str
    scaling: str
    framework: str
    program: str
    model: str
    data: str
    engine: str
    ranks: int
    round: int
    batch_per_rank: int
    threads_per_rank: int
    moved_by: str | None
    device: str | None
    lr: float | None
    steps_per_block: int | None
    block_s: tuple[float, ...]
    samples_per_s: float | None
    accuracy: float | None
    in_sync: bool | None
    wall_s: float
    exit_code: int
    error: str | None
    command: str
    versions: dict[str, str]
    hardware: dict[str, str | int | float | list[str]]
    environment: dict[str, str]
    schema_version: int = SCHEMA_VERSION

    @property
    def block_rates(self) -> list[float]:
        """Samples a second in each block: ranks x batch x steps over the slowest rank's time."""
        samples = self.ranks * self.batch_per_rank * (self.steps_per_block or 0)
        return [samples / seconds for seconds in self.block_s]

    def to_json(self) -> str:
        """One line, without its newline."""
        return json.dumps(dataclasses.asdict(self))


def from_json(line: str) -> Result:
    """The result on one line.

    Raises:
        ValueError: The line is not whole JSON.
        HvdtoolsError: It is JSON of another kind, or of another schema version.
    """
    table = json.loads(line)
    version = table.get("schema_version") if isinstance(table, dict) else None
    if version != SCHEMA_VERSION:
        raise HvdtoolsError(
            f"A result has schema version {version}, and this hvdtools reads {SCHEMA_VERSION}: "
            "read it with the hvdtools that wrote it, or start a new folder with --out."
        )
    expected = {field.name for field in dataclasses.fields(Result)}
    if table.keys() != expected:
        odd = ", ".join(sorted(table.keys() ^ expected))
        raise HvdtoolsError(f"A result has missing or unknown fields ({odd}): was it edited?")
    if table["engine"] not in ENGINES:
        raise HvdtoolsError(
            f"A result is of the engine {table['engine']!r}, which this hvdtools does not know: "
            "read it with the hvdtools that wrote it."
        )
    return Result(**{**table, "block_s": tuple(table["block_s"])})


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
            another schema version.
    """
    if not file.is_file():
        raise HvdtoolsError(f"There are no results in {file}: run `hvdtools bench run demo` first.")
    results: list[Result] = []
    cut_lines = 0
    for line in file.read_bytes().decode("utf-8", errors="replace").splitlines():
        try:
            results.append(from_json(line))
        except ValueError:
            cut_lines += 1
    if not results:
        raise HvdtoolsError(f"There is no whole result in {file}: run the suite again.")
    return Reading(tuple(results), cut_lines)


def new_run_id(time_utc: str) -> str:
    """A name for a run that sorts by time: "20260131T120000Z-9f3c"."""
    compact = "".join(character for character in time_utc[:19] if character not in "-:")
    return f"{compact}Z-{os.urandom(2).hex()}"
