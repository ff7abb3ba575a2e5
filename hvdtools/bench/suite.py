"""A suite: what is measured, read from a TOML file and checked when read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools.bench.engines import FRAMEWORKS
from hvdtools.bench.program import PROGRAMS, Program, read_program
from hvdtools.bench.tables import check_keys, check_listed_once
from hvdtools.errors import HvdtoolsError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITES = PROGRAMS / "suites"
SCALINGS = ("weak",)


@dataclass(frozen=True)
class Suite:
    """What is measured.

    Attributes:
        name: Names the folder of results.
        scaling: "weak": the batch per rank is the same for every number of ranks.
        ranks: Numbers of ranks.
        rounds: How often each case is run.
        threads_per_rank: The framework's threads in each rank, for every case.
        timeout_s: The longest that one case may take.
        programs: What is trained, at most one for each framework.
    """

    name: str
    scaling: str
    ranks: tuple[int, ...]
    rounds: int
    threads_per_rank: int
    timeout_s: float
    programs: tuple[Program, ...]

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise HvdtoolsError(f"{self.rounds} rounds measure nothing: ask for at least 1.")


def suite_names() -> list[str]:
    """The suites that hvdtools ships."""
    return sorted(file.stem for file in SUITES.glob("*.toml"))


def load(name_or_file: str) -> Suite:
    """Read a suite: one that hvdtools ships, by name, or any file that ends in .toml.

    Raises:
        HvdtoolsError: There is no such suite, it is not TOML, or a key or a
            value in it is unknown.
    """
    file = Path(name_or_file)
    if file.suffix != ".toml":
        if name_or_file not in suite_names():
            raise unknown_name("suite", name_or_file, suite_names())
        file = SUITES / f"{name_or_file}.toml"
    if not file.is_file():
        raise HvdtoolsError(f"There is no suite file {str(file)!r}: check the path.")
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HvdtoolsError(f"{file} is not valid TOML ({error}): mend it there.") from None
    return _suite(table, file)


def _suite(table: dict[str, Any], file: Path) -> Suite:
    keys: dict[str, type] = {
        "name": str,
        "scaling": str,
        "ranks": list,
        "rounds": int,
        "threads_per_rank": int,
        "timeout_s": float,
        "program": list,
    }
    check_keys(table, keys, str(file))
    _check_names(table)
    _check_counts(table, file)
    programs = tuple(read_program(program, file) for program in table["program"])
    _check_programs(programs, file)
    return Suite(
        name=table["name"],
        scaling=table["scaling"],
        ranks=tuple(sorted(table["ranks"])),
        rounds=table["rounds"],
        threads_per_rank=table["threads_per_rank"],
        timeout_s=float(table["timeout_s"]),
        programs=programs,
    )


def _check_names(table: dict[str, Any]) -> None:
    name = table["name"]
    if not name or Path(name).name != name or name.startswith("."):
        raise HvdtoolsError(f"The suite's name {name!r} cannot name a folder: use a plain word.")
    if table["scaling"] not in SCALINGS:
        raise unknown_name("scaling", table["scaling"], SCALINGS)


def _check_counts(table: dict[str, Any], file: Path) -> None:
    if not all(type(ranks) is int and ranks >= 1 for ranks in table["ranks"]):
        raise HvdtoolsError(f"{file} has ranks = {table['ranks']!r}: give whole numbers from 1.")
    check_listed_once(table["ranks"], "ranks", str(file))
    for key in ("threads_per_rank", "timeout_s"):
        if table[key] <= 0:
            raise HvdtoolsError(f"{file} has {key} = {table[key]!r}: it must be more than 0.")


def _check_programs(programs: tuple[Program, ...], file: Path) -> None:
    """At least one, and no two that a table of results could not tell apart."""
    if not programs:
        raise HvdtoolsError(f"{file} has no program to run: add a [[program]] table.")
    seen = [program.framework for program in programs]
    for framework in seen:
        if seen.count(framework) > 1:
            raise HvdtoolsError(
                f"{file} has two programs for {FRAMEWORKS[framework].name}, whose figures must "
                "not be compared: give each a suite of its own."
            )
