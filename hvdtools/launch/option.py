"""One option of `hvdtools launch`: a flag and a key of a job file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option, declared once: flags, help and job files are made from it.

    Attributes:
        name: "ranks-per-node": the flag is --ranks-per-node, the key of a job file the same
            without dashes before it, the field of a `JobSpec` or a scheduler ranks_per_node.
        kind: int, float, str or bool; tuple for a flag that may be repeated.
        help: One line for `--help`.
        panel: Its heading in `--help`.
        metavar: What stands for its value; "" for the kind's name.
        flags: Further spellings ("-n").
    """

    name: str
    kind: type
    help: str
    panel: str
    metavar: str = ""
    flags: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The name as Python spells it."""
        return self.name.replace("-", "_")
