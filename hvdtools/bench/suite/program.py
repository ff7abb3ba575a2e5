"""A program of a suite: which file runs in every rank, under which engines, told what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtools.bench.suite.engines import FAMILIES, RENAMED_ENGINES, Family
from hvdtools.bench.suite.options import OPTIONS, check_names, check_options
from hvdtools.bench.suite.toml_checks import check_keys, check_listed_once
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.renamed import new_name, with_new_keys

SCALINGS = ("weak", "strong")
_SHIPPED = {family.program: name for name, family in FAMILIES.items()}


@dataclass(frozen=True)
class Program:
    """One program under some engines.

    Attributes:
        file: Runs in every rank.
        family: A name in `engines.FAMILIES`.
        engines: Names of that family's engines, in the order they take turns.
        interleaved: Engines that one launcher can serve take turns block by block
            in one job; otherwise each has jobs of its own, and the jobs take turns.
        scalings: "weak" (the batch of a rank stays the same), "strong" (that of the
            whole job does), or both; (None,) for all-reduces, where nothing scales.
        strong_batch_size: The whole job's batch under strong scaling.
        options: (option, value) pairs for the program; its batch_size is one rank's.
    """

    file: Path
    family: str
    engines: tuple[str, ...]
    interleaved: bool
    scalings: tuple[str | None, ...]
    strong_batch_size: int | None
    options: tuple[tuple[str, str | int | float], ...]

    def asked(self, option: str) -> Any:
        """The value of an option; None where the suite leaves it to the program."""
        return dict(self.options).get(option)

    def options_under(self, scaling: str | None) -> dict[str, str | int | float]:
        """What a result says that the program was told."""
        if scaling != "strong" or self.strong_batch_size is None:
            return dict(self.options)
        return {**dict(self.options), "strong_batch_size": self.strong_batch_size}

    def batch_per_rank(self, scaling: str | None, ranks: int) -> int | None:
        """Samples a rank and a step.

        Raises:
            HvdtoolsError: Strong scaling cannot share its batch evenly.
        """
        if scaling != "strong":
            batch: int | None = self.asked("batch_size")
            return batch
        assert self.strong_batch_size is not None
        batch, rest = divmod(self.strong_batch_size, ranks)
        if rest or not batch:
            raise HvdtoolsError(
                f"strong_batch_size = {self.strong_batch_size} of {self.file.name} cannot be "
                f"shared by {ranks} ranks: choose a multiple of every number of ranks."
            )
        return batch


def read_program(table: Any, suite_file: Path) -> Program:
    """The program that a [[program]] table of a suite describes.

    Raises:
        HvdtoolsError: A key or a value is unknown, or does not fit the others.
    """
    where = f"[[program]] in {suite_file}"
    if not isinstance(table, dict):
        raise HvdtoolsError(f"{suite_file} lists {table!r} as a program: begin each [[program]].")
    table = with_new_keys(table, {"side_by_side": "interleaved"}, where)
    needed = {"file": str, "engines": list, "options": dict}
    also = {"family": str, "interleaved": bool, "scaling": list, "strong_batch_size": int}
    check_keys(table, needed, where, also)
    name = _family(table, suite_file)
    family = FAMILIES[name]
    # str: TOML may hold a list here
    engines = [new_name("engine", str(name), RENAMED_ENGINES) for name in table["engines"]]
    check_listed_once(engines, "engines", str(suite_file))
    for engine in engines:
        if engine not in family.engines:
            raise unknown_name(f"engine of {family.name}", engine, tuple(family.engines))
    check_options(table["options"], OPTIONS[name], suite_file)
    if table["file"] in _SHIPPED:
        check_names(name, table["options"])
    scalings, options = _scalings(table, family, suite_file), table["options"]
    if "strong" in scalings and "epochs" in options and "lr" not in options:
        raise HvdtoolsError(
            f"{suite_file} scales {table['file']} strongly and tests what it learned: add lr, one "
            "rank's, since the batch stays the same and so must the learning rate of all ranks."
        )
    return Program(
        file=_file(table["file"], suite_file),
        family=name,
        engines=tuple(engines),
        interleaved=_interleaved(table, family),
        scalings=scalings,
        strong_batch_size=table.get("strong_batch_size"),
        options=tuple(table["options"].items()),
    )


def _family(table: dict[str, Any], suite_file: Path) -> str:
    """Whose program it is: known of a shipped one, said of the user's own."""
    file = table["file"]
    name = table.get("family", _SHIPPED.get(file))
    if name is None and "/" not in file:
        raise unknown_name("program", file, tuple(_SHIPPED))
    if name is None:
        raise HvdtoolsError(
            f"{suite_file} does not say what kind of program {file!r} is: add "
            f'family = "torch" (or another of {", ".join(FAMILIES)}).'
        )
    if name not in FAMILIES:
        raise unknown_name("family", name, tuple(FAMILIES))
    if _SHIPPED.get(file, name) != name:
        raise HvdtoolsError(
            f'{suite_file} gives {file} family = "{name}", and it is of '
            f'"{_SHIPPED[file]}": leave family out.'
        )
    return str(name)


def _interleaved(table: dict[str, Any], family: Family) -> bool:
    asked = bool(table.get("interleaved", False))
    if asked and family.package == "tensorflow":
        raise HvdtoolsError(
            f"{family.program} runs one engine a job, since TensorFlow's own strategy and Horovod "
            "cannot share a process: leave interleaved out."
        )
    return asked


def _scalings(table: dict[str, Any], family: Family, file: Path) -> tuple[str | None, ...]:
    if family.kind != "training":
        if "scaling" in table:
            raise HvdtoolsError(
                f"{file} gives {family.program} a scaling, and it trains nothing: leave it out."
            )
        return (None,)
    if "scaling" not in table:
        raise HvdtoolsError(
            f'{file} does not say how {family.program} scales: add scaling = ["weak"] (the batch '
            'of a rank stays the same), ["strong"] (that of the whole job does), or both.'
        )
    check_listed_once(table["scaling"], "scaling", str(file))
    for name in table["scaling"]:
        if name not in SCALINGS:
            raise unknown_name("scaling", str(name), SCALINGS)
    if ("strong" in table["scaling"]) != ("strong_batch_size" in table):
        raise HvdtoolsError(
            f"{file} needs strong_batch_size, the batch of the whole job, with strong scaling and "
            "only there: add it, or leave it out."
        )
    return tuple(table["scaling"])


def _file(name: str, suite_file: Path) -> Path:
    """A shipped program by its plain name, or a path (with a slash) relative to the suite."""
    if "/" not in name:
        if name not in _SHIPPED:
            raise unknown_name("program", name, tuple(_SHIPPED))
        return FAMILIES[_SHIPPED[name]].file
    program = (suite_file.parent / name).resolve()
    if not program.is_file():
        raise HvdtoolsError(f"{suite_file} names the program {name!r}, and {program} is no file.")
    return program
