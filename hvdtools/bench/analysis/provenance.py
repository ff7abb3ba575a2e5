"""Where results come from: machines, versions, variables and commands, and where these differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hvdtools.bench.formatting import format_list
from hvdtools.bench.results.result_file import Result
from hvdtools.core.text import count_noun

_HARDWARE = {
    "cpu": "CPU",
    "cores_usable": "usable cores",
    "memory_gib": "memory, GiB",
    "gpus": "GPUs",
}


@dataclass(frozen=True)
class Property:
    """One property of machine or software that a speed depends on.

    Attributes:
        name: What it is.
        values: As text; several if the results differ, each with the results that have it.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """What the results of a run were measured on and with.

    Attributes:
        hardware: CPU, cores, memory and GPUs.
        versions: Of the installed packages.
        environment: Variables that change a speed; engines differ in them on purpose.
        commands: Every command once: repeats of a case differ only in a port.
    """

    hardware: tuple[Property, ...]
    versions: tuple[Property, ...]
    environment: tuple[Property, ...]
    commands: tuple[str, ...]

    @property
    def differing(self) -> list[str]:
        """Names of the hardware and versions in which the results differ; they do not compare."""
        return [each.name for each in (*self.hardware, *self.versions) if len(each.values) > 1]


def provenance_of(results: Sequence[Result]) -> Provenance:
    """What all results of a run have in common, and in what they differ."""
    over_ssh = any(" --hosts " in result.command for result in results)
    where = " of the machine that started the run" if over_ssh else ""
    return Provenance(
        hardware=tuple(
            Property(_HARDWARE.get(each.name, each.name) + where, each.values)
            for each in _properties(results, _hardware_texts)
        ),
        versions=_properties(results, lambda result: result.versions),
        environment=_properties(results, lambda result: result.environment),
        commands=_commands(results),
    )


def _commands(results: Sequence[Result]) -> tuple[str, ...]:
    once = {re.sub(r"\bMASTER_PORT=\d+", "", each.command): each.command for each in results[::-1]}
    return tuple(once.values())[::-1]


def _hardware_texts(result: Result) -> dict[str, str]:
    return {name: _hardware_text(value) for name, value in result.hardware.items()}


def _hardware_text(value: str | int | float | list[str]) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(f"{value.count(name)} × {name}" for name in dict.fromkeys(value)) or "none"


def _properties(
    results: Sequence[Result], texts: Callable[[Result], dict[str, str]]
) -> tuple[Property, ...]:
    names = dict.fromkeys(name for result in results for name in texts(result))
    return tuple(Property(name, _values(results, texts, name)) for name in names)


def _values(
    results: Sequence[Result], texts: Callable[[Result], dict[str, str]], name: str
) -> tuple[str, ...]:
    by_value: dict[str, list[Result]] = {}
    for result in results:
        by_value.setdefault(texts(result).get(name, "not set"), []).append(result)
    if len(by_value) == 1:
        return tuple(by_value)
    return tuple(f"{value} ({_which(mine, results)})" for value, mine in by_value.items())


def _which(mine: Sequence[Result], all_results: Sequence[Result]) -> str:
    """What only these results have in common, or else how many they are."""
    for name, key in _KEYS.items():
        here = {key(result) for result in mine}
        others = {key(result) for result in all_results if result not in mine}
        if not here & others:
            return f"{name} {format_list([str(each) for each in sorted(here)])}"
    return count_noun(len(mine), "result")


_KEYS: dict[str, Callable[[Result], str | int]] = {
    "nodes:": lambda result: result.nodes,
    "ranks:": lambda result: result.ranks,
    "repeat": lambda result: result.repeat,
    "engine": lambda result: result.engine,
    "program": lambda result: result.program,
}
