"""Names of hvdtools 0.1 that still work, with a warning, until the release after 0.2."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def warn(kind: str, old: str, new: str) -> None:
    """Tell the user once per use; `kind` is the noun in the message ("option", "engine")."""
    print(
        f"hvdtools: warning: the {kind} {old} is now called {new}; the old name will be removed.",
        file=sys.stderr,
    )


def with_new_keys(
    table: Mapping[str, Any], renamed: Mapping[str, str], where: str
) -> dict[str, Any]:
    """The table with its old keys renamed; a key that is there under both names stays twice."""
    found = dict(table)
    for old, new in renamed.items():
        if old in found and new not in found:
            warn(f"key in {where}", old, new)
            found = {new if key == old else key: value for key, value in found.items()}
    return found


def new_name(kind: str, name: str, renamed: Mapping[str, str]) -> str:
    """The new name of an old one; any other as it is."""
    if name in renamed:
        warn(kind, name, renamed[name])
    return renamed.get(name, name)
