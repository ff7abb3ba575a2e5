"""Names and what they stand for, imported when it is wanted; other packages can add their own."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from hvdtools.core.errors import HvdtoolsError, unknown_name


class Registry:
    """Looks names up in a table and among the entry points of installed packages.

    Args:
        kind: What is registered, for error messages ("scheduler").
        group: The group of entry points through which other packages add to it.
        known: Name -> "module:attribute", or "module" for the module itself.
    """

    def __init__(self, kind: str, group: str, known: Mapping[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._known = dict(known)

    @cached_property
    def _all(self) -> dict[str, str]:
        found = {
            each.name: each.value for each in importlib.metadata.entry_points(group=self.group)
        }
        return {
            **self._known,
            **{name: value for name, value in found.items() if name not in self._known},
        }

    def names(self) -> tuple[str, ...]:
        """Every name: ours first, then those of other packages."""
        return tuple(self._all)

    def load(self, name: str) -> Any:
        """What the name stands for.

        Raises:
            HvdtoolsError: The name is unknown, or its module cannot be imported.
        """
        if name not in self._all:
            raise unknown_name(self.kind, name, self.names())
        module, _, attribute = self._all[name].partition(":")
        try:
            found = importlib.import_module(module)
            return getattr(found, attribute) if attribute else found
        except (ImportError, AttributeError) as error:
            if name in self._known:
                raise
            raise HvdtoolsError(
                f"The {self.kind} {name!r} is registered as {self._all[name]}, which cannot be "
                f"imported ({error}): reinstall the package that adds it, or remove it."
            ) from None
