"""A suite: what is measured, read from a TOML file and checked when read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools.bench.engines import ENGINES
from hvdtools.errors import HvdtoolsError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROGRAMS = Path(__file__).parent / "programs"
SUITES = PROGRAMS / "suites"
SCALINGS = ("weak",)
# What the [train] table may hold; names are train_torch.py's own, held equal by a test.
TRAIN_KEYS: dict[str, type] = {
    "model": str,
    "data": str,
    "batch_size": int,
    "epochs": int,
    "warmup_epochs": int,
    "lr": float,
    "seed": int,
}
_IN_WORDS: dict[type, str] = {
    str: "a text in quotes",
    int: "a whole number",
    float: "a number",
    list: "a list in [ ]",
    dict: "a table",
}
CHOICES = {"model": ("cnn",), "data": ("digits", "synthetic")}


@dataclass(frozen=True)
class Suite:
    """What is measured.

    Attributes:
        name: Names the folder of results.
        program: The file that runs in every rank.
        scaling: "weak": the batch per rank is the same for every number of ranks.
        engines: Names from `engines.ENGINES`, in the order they take turns.
        ranks: Numbers of ranks.
        rounds: How often each case is run.
        threads_per_rank: PyTorch's threads in each rank, for every case.
        timeout_s: The longest that one case may take.
        train: (option, value) pairs for the program; its --batch-size is one rank's.
    """

    name: str
    program: Path
    scaling: str
    engines: tuple[str, ...]
    ranks: tuple[int, ...]
    rounds: int
    threads_per_rank: int
    timeout_s: float
    train: tuple[tuple[str, str | int | float], ...]

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
        "program": str,
        "scaling": str,
        "engines": list,
        "ranks": list,
        "rounds": int,
        "threads_per_rank": int,
        "timeout_s": float,
        "train": dict,
    }
    _check_keys(table, keys, str(file))
    train = table["train"]
    _check_keys(train, TRAIN_KEYS, f"[train] in {file}")
    _check_names(table, train)
    _check_counts(table, train, file)
    return Suite(
        name=table["name"],
        program=_program(table["program"], file),
        scaling=table["scaling"],
        engines=tuple(table["engines"]),
        ranks=tuple(sorted(table["ranks"])),
        rounds=table["rounds"],
        threads_per_rank=table["threads_per_rank"],
        timeout_s=float(table["timeout_s"]),
        train=tuple(train.items()),
    )


def _check_keys(table: dict[str, Any], keys: dict[str, type], where: str) -> None:
    """Every key known, none missing, each value of the right kind."""
    for key in table:
        if key not in keys:
            raise unknown_name(f"key of {where}", key, tuple(keys))
    for key, kind in keys.items():
        if key not in table:
            raise HvdtoolsError(f"{where} lacks {key!r}: add it (it needs {', '.join(keys)}).")
        value = table[key]
        # A whole number is a fine float; True is an int to Python, but not to a reader.
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or isinstance(value, bool):
            raise HvdtoolsError(f"{where} has {key} = {value!r}: give it {_IN_WORDS[kind]}.")


def _check_names(table: dict[str, Any], train: dict[str, Any]) -> None:
    name = table["name"]
    if not name or Path(name).name != name or name.startswith("."):
        raise HvdtoolsError(f"The suite's name {name!r} cannot name a folder: use a plain word.")
    if table["scaling"] not in SCALINGS:
        raise unknown_name("scaling", table["scaling"], SCALINGS)
    for engine in table["engines"]:
        if str(engine) not in ENGINES:  # str: TOML may hold a list here
            raise unknown_name("engine", str(engine), tuple(ENGINES))
    for key, known in CHOICES.items():
        if train[key] not in known:
            raise unknown_name(key, train[key], known)


def _check_counts(table: dict[str, Any], train: dict[str, Any], file: Path) -> None:
    if not all(type(ranks) is int and ranks >= 1 for ranks in table["ranks"]):
        raise HvdtoolsError(f"{file} has ranks = {table['ranks']!r}: give whole numbers from 1.")
    for key in ("engines", "ranks"):
        if not table[key] or len(set(table[key])) != len(table[key]):
            raise HvdtoolsError(f"{file} has {key} = {table[key]!r}: list each once, at least one.")
    for key in ("threads_per_rank", "timeout_s"):
        if table[key] <= 0:
            raise HvdtoolsError(f"{file} has {key} = {table[key]!r}: it must be more than 0.")
    if train["batch_size"] < 1:
        raise HvdtoolsError(f"{file} has batch_size = {train['batch_size']}: give at least 1.")
    if not 0 <= train["warmup_epochs"] < train["epochs"]:
        raise HvdtoolsError(
            f"{file} has warmup_epochs = {train['warmup_epochs']} of epochs = {train['epochs']}, "
            "which leaves none to count: give more epochs."
        )


def _program(name: str, file: Path) -> Path:
    """A shipped program by its plain name, or a path (with a slash) relative to the suite."""
    if "/" in name:
        program = (file.parent / name).resolve()
        if not program.is_file():
            raise HvdtoolsError(f"{file} names the program {name!r}, and {program} is not a file.")
        return program
    shipped = tuple(path.name for path in PROGRAMS.glob("train_*.py"))
    if name not in shipped:
        raise unknown_name("program", name, shipped)
    return PROGRAMS / name
