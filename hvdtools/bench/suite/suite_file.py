"""A suite: what is measured, read from a TOML file and checked when read."""

from __future__ import annotations

import hashlib
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools.bench.analysis.workloads import without_measurement_options
from hvdtools.bench.suite.engines import FAMILIES, PROGRAMS
from hvdtools.bench.suite.program import Program, read_program
from hvdtools.bench.suite.toml_checks import check_keys, check_listed_once
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.renamed import with_new_keys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITES = PROGRAMS / "suites"


@dataclass(frozen=True)
class Suite:
    """What is measured.

    Attributes:
        name: Names the folder of results.
        ranks: Numbers of ranks on a single node.
        nodes: Numbers of nodes, each with `ranks_per_node` ranks.
        ranks_per_node: Of a full node; None where `nodes` is empty.
        repeats: How often each case is run.
        threads_per_rank: The framework's threads in each rank, for every case.
        timeout_s: The longest that one case may take.
        programs: What is run.

    Raises:
        HvdtoolsError: There would be nothing to run, or more ranks than a node has.
    """

    name: str
    ranks: tuple[int, ...]
    nodes: tuple[int, ...]
    ranks_per_node: int | None
    repeats: int
    threads_per_rank: int
    timeout_s: float
    programs: tuple[Program, ...]

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise HvdtoolsError(f"{self.repeats} repeats measure nothing: ask for at least 1.")
        if not self.ranks and not self.nodes:
            raise HvdtoolsError("No number of ranks is given: add --ranks 1,2 or --nodes 1,2.")
        for number in (*self.ranks, *self.nodes, self.ranks_per_node or 1):
            if number < 1:
                raise HvdtoolsError(f"{number} ranks or nodes measure nothing: give 1 or more.")
        if self.nodes and self.ranks_per_node is None:
            raise HvdtoolsError(
                "How many ranks a node has is not given: add --ranks-per-node, as in "
                "--nodes 1,2 --ranks-per-node 8."
            )

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(ranks, nodes) of the jobs, rising."""
        full = [(nodes * (self.ranks_per_node or 1), nodes) for nodes in self.nodes]
        return tuple(sorted({*((ranks, 1) for ranks in self.ranks), *full}))

    @property
    def digest(self) -> str:
        """Names what the suite measures, but for how often: equal for two that do the same."""
        programs = [(p.file.name, *vars(p).values()) for p in self.programs]
        words = repr((self.name, self.threads_per_rank, [p[:1] + p[2:] for p in programs]))
        return hashlib.sha256(words.encode()).hexdigest()[:12]


def suite_names() -> list[str]:
    """The suites that hvdtools ships."""
    return sorted(file.stem for file in SUITES.glob("*.toml"))


def word_for(name: str) -> str:
    """What `hvdtools bench run` is told to run the suite of that name again."""
    return name if name in suite_names() else f"{name}.toml"


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
        raise HvdtoolsError(f"{file} is not valid TOML ({error}): fix it there.") from None
    return _suite(table, file)


def _suite(table: dict[str, Any], file: Path) -> Suite:
    table = with_new_keys(table, {"rounds": "repeats"}, str(file))
    needed: dict[str, type] = {
        "name": str,
        "repeats": int,
        "threads_per_rank": int,
        "timeout_s": float,
        "program": list,
    }
    check_keys(table, needed, str(file), {"ranks": list, "nodes": list, "ranks_per_node": int})
    name = table["name"]
    if not name or Path(name).name != name or name.startswith("."):
        raise HvdtoolsError(f"The suite's name {name!r} cannot name a folder: use a plain word.")
    for key in ("threads_per_rank", "timeout_s"):
        if table[key] <= 0:
            raise HvdtoolsError(f"{file} has {key} = {table[key]!r}: it must be more than 0.")
    if not table["program"]:
        raise HvdtoolsError(f"{file} has no program to run: add a [[program]] table.")
    programs = tuple(read_program(program, file) for program in table["program"])
    _check_apart(programs, file)
    return Suite(
        name=name,
        ranks=_counts(table, "ranks", file),
        nodes=_counts(table, "nodes", file),
        ranks_per_node=table.get("ranks_per_node"),
        repeats=table["repeats"],
        threads_per_rank=table["threads_per_rank"],
        timeout_s=float(table["timeout_s"]),
        programs=programs,
    )


def _check_apart(programs: tuple[Program, ...], file: Path) -> None:
    """Raise if two programs' numbers would be one; all-reduces are told apart by message."""
    seen: set[object] = set()
    for program in programs:
        if FAMILIES[program.family].kind == "allreduce":
            continue
        for scaling, engine in itertools.product(program.scalings, program.engines):
            workload = without_measurement_options(program.options_under(scaling))
            case = (program.file, scaling, engine, frozenset(workload.items()))
            if case in seen:
                raise HvdtoolsError(
                    f"{file} has {program.file.name} under {engine} twice, and both do the same "
                    "but for how long they measure: leave one out."
                )
            seen.add(case)


def _counts(table: dict[str, Any], key: str, file: Path) -> tuple[int, ...]:
    found = table.get(key)
    if found is None:
        return ()
    if not all(type(count) is int and count >= 1 for count in found):
        raise HvdtoolsError(f"{file} has {key} = {found!r}: give whole numbers from 1.")
    check_listed_once(found, key, str(file))
    return tuple(sorted(found))
