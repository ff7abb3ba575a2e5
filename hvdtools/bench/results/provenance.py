"""Where results come from: machines, versions, variables and commands, and where these differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hvdtools.bench.report.words import listed
from hvdtools.bench.results.result_file import Result
from hvdtools.core.words import counted

_HARDWARE = {
    "cpu": "CPU",
    "cores_usable": "usable cores",
    "memory_gib": "memory, GiB",
    "gpus": "GPUs",
}


@dataclass(frozen=True)
class Fact:
    """One thing that a speed hangs on.

    Attributes:
        name: Of it.
        values: In words, with where each is from if there are several.
    """

    name: str
    values: tuple[str, ...]


def hardware(results: Sequence[Result]) -> list[Fact]:
    """CPU, cores, memory and GPUs of all results."""
    facts = _facts(results, lambda result: _in_words(result.hardware))
    over_ssh = any(" --hosts " in result.command for result in results)
    whose = " of the machine that started the run" if over_ssh else ""
    return [Fact(_HARDWARE.get(fact.name, fact.name) + whose, fact.values) for fact in facts]


def versions(results: Sequence[Result]) -> list[Fact]:
    """What was installed."""
    return _facts(results, lambda result: result.versions)


def environment(results: Sequence[Result]) -> list[Fact]:
    """Variables that change a speed; engines differ in them on purpose."""
    return _facts(results, lambda result: result.environment)


def differences(results: Sequence[Result]) -> str:
    """A warning if not all results are from machines alike with the same versions; else ""."""
    facts = [*hardware(results), *versions(results)]
    names = [fact.name for fact in facts if len(fact.values) > 1]
    if not names:
        return ""
    return (
        f"Not all results of this run were measured alike: they differ in {listed(names)}, as "
        "listed at the end of the page. Numbers from unlike machines or versions do not compare."
    )


def commands(results: Sequence[Result]) -> list[str]:
    """Every command, once: repeats of a case differ in nothing but a port."""
    once = {re.sub(r"\bMASTER_PORT=\d+", "", each.command): each.command for each in results[::-1]}
    return list(once.values())[::-1]


def _in_words(hardware: dict[str, str | int | float | list[str]]) -> dict[str, str]:
    return {name: _words_of(value) for name, value in hardware.items()}


def _words_of(value: str | int | float | list[str]) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(f"{value.count(name)} × {name}" for name in dict.fromkeys(value)) or "none"


def _facts(results: Sequence[Result], told: Callable[[Result], dict[str, str]]) -> list[Fact]:
    names = dict.fromkeys(name for result in results for name in told(result))
    return [Fact(name, _values(results, told, name)) for name in names]


def _values(
    results: Sequence[Result], told: Callable[[Result], dict[str, str]], name: str
) -> tuple[str, ...]:
    by_value: dict[str, list[Result]] = {}
    for result in results:
        by_value.setdefault(told(result).get(name, "not set"), []).append(result)
    if len(by_value) == 1:
        return tuple(by_value)
    return tuple(f"{value} ({_whose(mine, results)})" for value, mine in by_value.items())


def _whose(mine: Sequence[Result], everyone: Sequence[Result]) -> str:
    """What these results have in common, as far as others have not; else how many they are."""
    for kind, key in _KEYS.items():
        here = {key(result) for result in mine}
        others = {key(result) for result in everyone if result not in mine}
        if not here & others:
            return f"{kind} {listed([str(each) for each in sorted(here)])}"
    return counted(len(mine), "result")


_KEYS: dict[str, Callable[[Result], str | int]] = {
    "nodes:": lambda result: result.nodes,
    "ranks:": lambda result: result.ranks,
    "repeat": lambda result: result.repeat,
    "engine": lambda result: result.engine,
    "program": lambda result: result.program,
}
