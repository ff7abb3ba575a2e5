"""One option of `hvdtools launch`: a flag, a key of a job file, and whom it concerns."""

from __future__ import annotations

from dataclasses import dataclass

TARGETS = ("local", "hosts", "slurm", "kubernetes", "sagemaker")
LAUNCHER_NAMES = ("auto", "mpirun", "horovodrun", "srun")


@dataclass(frozen=True)
class Option:
    """An option, told once: flags, help, job files and refusals are made from it.

    Attributes:
        name: "ranks-per-node": the flag is --ranks-per-node, the key of a job file the same
            without dashes before it, the field of a `JobSpec` or a target ranks_per_node.
        kind: int, float, str or bool; tuple for a flag that may be repeated.
        help: One line for `--help`.
        panel: The heading that it stands under there.
        metavar: What stands for its value; "" for the kind's name.
        on: The targets (`--on`) that know it.
        flags: Further spellings ("-n").
    """

    name: str
    kind: type
    help: str
    panel: str
    metavar: str = ""
    on: tuple[str, ...] = TARGETS
    flags: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The name as Python spells it."""
        return self.name.replace("-", "_")
