"""Names of hvdtools 0.1 that still work, with a warning, until the release after 0.2."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

ValueT = TypeVar("ValueT")


def _warn(kind: str, old: str, new: str) -> None:
    """Print the warning; `kind` is its noun, "option" or "engine"."""
    print(
        f"hvdtools: warning: the {kind} {old} is now called {new}; the old name will be removed.",
        file=sys.stderr,
    )


def new_value(old: str, old_value: ValueT, new: str, value: ValueT) -> ValueT:
    """The value of the option `new`, which may be given as `old`; None means not given."""
    if old_value is not None:
        _warn("option", old, new)
    return old_value if value is None else value


def with_new_keys(
    table: Mapping[str, Any], renamed: Mapping[str, str], where: str
) -> dict[str, Any]:
    """The table with its old keys renamed; a key given under both names stays twice."""
    found = dict(table)
    for old, new in renamed.items():
        if old in found and new not in found:
            _warn(f"key in {where}", old, new)
            found = {new if key == old else key: value for key, value in found.items()}
    return found


def new_name(kind: str, name: str, renamed: Mapping[str, str]) -> str:
    """The new name of an old one; any other name unchanged."""
    if name in renamed:
        _warn(kind, name, renamed[name])
    return renamed.get(name, name)
