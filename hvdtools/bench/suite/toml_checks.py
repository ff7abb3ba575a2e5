"""The tables of a suite's file: keys known, none missing, values of the right kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hvdtools.core.errors import HvdtoolsError, unknown_name

_IN_WORDS: dict[type, str] = {
    str: "a text in quotes",
    int: "a whole number",
    float: "a number",
    list: "a list in [ ]",
    dict: "a table",
    bool: "true or false",
}


def check_keys(
    table: Mapping[str, Any],
    keys: Mapping[str, type],
    where: str,
    also: Mapping[str, type] | None = None,
) -> None:
    """Check that `table` has all of `keys` and no other but `also`, each value of its kind.

    Raises:
        HvdtoolsError: It has not; `where` names the table in the message.
    """
    known = {**keys, **(also or {})}
    for key in table:
        if key not in known:
            raise unknown_name(f"key of {where}", key, tuple(known))
    for key in keys:
        if key not in table:
            raise HvdtoolsError(f"{where} lacks {key!r}: add it (it needs {', '.join(keys)}).")
    for key, value in table.items():
        check_kind(key, value, known[key], where)


def check_kind(key: str, value: Any, kind: type, where: str) -> None:
    """Raise HvdtoolsError if `value` is not of its kind."""
    # A whole number is a fine float; True is an int to Python, but not to a reader.
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise HvdtoolsError(f"{where} has {key} = {value!r}: give it {_IN_WORDS[kind]}.")


def check_listed_once(names: list[Any], key: str, where: str) -> None:
    """Raise if the list is empty or names something twice."""
    if not names or len(set(map(str, names))) != len(names):
        raise HvdtoolsError(f"{where} has {key} = {names!r}: list each once, at least one.")
