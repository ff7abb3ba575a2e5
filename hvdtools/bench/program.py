"""A program of a suite: which file runs in every rank, under which engines, told what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools.bench.engines import ENGINES, FRAMEWORKS, Framework, engines_of
from hvdtools.bench.tables import check_keys, check_listed_once
from hvdtools.errors import HvdtoolsError, unknown_name

PROGRAMS = Path(__file__).parent / "programs"
# The shipped programs and whose they are; a program of the user's goes by its engines.
SHIPPED = {"train_torch.py": "torch", "train_keras.py": "keras"}
# What [program.train] may hold; options of both programs, held equal by a test.
TRAIN_KEYS: dict[str, type] = {
    "model": str,
    "data": str,
    "batch_size": int,
    "epochs": int,
    "warmup_epochs": int,
    "lr": float,
    "seed": int,
}


@dataclass(frozen=True)
class Program:
    """One training program under some engines.

    Attributes:
        file: Runs in every rank.
        framework: A name in `engines.FRAMEWORKS`.
        engines: Names from `engines.ENGINES`, in the order they take turns.
        train: (option, value) pairs for the program; its --batch-size is one rank's.
    """

    file: Path
    framework: str
    engines: tuple[str, ...]
    train: tuple[tuple[str, str | int | float], ...]

    def asked(self, option: str) -> Any:
        """The value of an option in `train`."""
        return dict(self.train)[option]


def read_program(table: Any, suite_file: Path) -> Program:
    """The program that a [[program]] table of a suite describes.

    Raises:
        HvdtoolsError: A key or a value is unknown, or does not fit the others.
    """
    where = f"[[program]] in {suite_file}"
    if not isinstance(table, dict):
        raise HvdtoolsError(f"{suite_file} lists {table!r} as a program: begin each [[program]].")
    check_keys(table, {"file": str, "engines": list, "train": dict}, where)
    check_listed_once(table["engines"], "engines", str(suite_file))
    for engine in table["engines"]:
        if str(engine) not in ENGINES:  # str: TOML may hold a list here
            raise unknown_name("engine", str(engine), tuple(ENGINES))
    framework = _framework(table["file"], table["engines"])
    _check_train(table["train"], FRAMEWORKS[framework], suite_file)
    return Program(
        file=_file(table["file"], suite_file),
        framework=framework,
        engines=tuple(table["engines"]),
        train=tuple(table["train"].items()),
    )


def _framework(file: str, engines: list[str]) -> str:
    """Whose program it is; all engines must be of that framework."""
    framework = SHIPPED.get(file, ENGINES[engines[0]].framework)
    for engine in engines:
        if ENGINES[engine].framework != framework:
            fitting = ", ".join(engines_of(framework))
            raise HvdtoolsError(
                f"The engine {engine!r} does not train with {FRAMEWORKS[framework].name}: give "
                f"{file!r} engines of {fitting}, and {engine!r} a [[program]] of its own."
            )
    return framework


def _check_train(train: dict[str, Any], framework: Framework, file: Path) -> None:
    check_keys(train, TRAIN_KEYS, f"[program.train] in {file}")
    if train["model"] not in framework.models:
        raise unknown_name("model", train["model"], framework.models)
    is_folder = framework.reads_folders and Path(train["data"]).is_dir()
    if train["data"] not in framework.data and not is_folder:
        also = ("the path of a folder",) if framework.reads_folders else ()
        raise unknown_name("data", train["data"], (*framework.data, *also))
    if train["batch_size"] < 1:
        raise HvdtoolsError(f"{file} has batch_size = {train['batch_size']}: give at least 1.")
    if not 0 <= train["warmup_epochs"] < train["epochs"]:
        raise HvdtoolsError(
            f"{file} has warmup_epochs = {train['warmup_epochs']} of epochs = {train['epochs']}, "
            "which leaves none to count: give more epochs."
        )


def _file(name: str, suite_file: Path) -> Path:
    """A shipped program by its plain name, or a path (with a slash) relative to the suite."""
    if "/" not in name:
        if name not in SHIPPED:
            raise unknown_name("program", name, tuple(SHIPPED))
        return PROGRAMS / name
    program = (suite_file.parent / name).resolve()
    if not program.is_file():
        raise HvdtoolsError(f"{suite_file} names the program {name!r}, and {program} is no file.")
    return program
