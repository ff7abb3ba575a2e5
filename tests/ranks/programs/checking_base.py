"""What programs of checks share: each `check_*` runs in every rank, its outcome comes back."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hvdtools.core.errors import HvdtoolsError


def run_checks(namespace: Mapping[str, Any], names: Sequence[str] = ()) -> None:
    """Run the checks named, or all of a program, and print {check: "ok" or its traceback}."""
    outcomes = {}
    for name in names or [name for name in namespace if name.startswith("check_")]:
        try:
            namespace[name]()
            outcomes[name] = "ok"
        except Exception:
            outcomes[name] = traceback.format_exc()
    print(json.dumps(outcomes))


def refused(sentence: str, action: Callable[[], object]) -> str:
    """Check that the action raises the error that holds `sentence`; what it says in full."""
    try:
        action()
    except HvdtoolsError as error:
        assert sentence in str(error), str(error)
        return str(error)
    raise AssertionError(f"nothing was refused; expected: {sentence}")


@contextmanager
def heard() -> Iterator[list[str]]:
    """What this rank's hvdtools logs meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("hvdtools")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
