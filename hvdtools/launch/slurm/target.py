"""What is asked of Slurm."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.launch.option import Option

_ON = ("slurm",)


@dataclass(frozen=True)
class Slurm:
    """A job that Slurm allocates nodes for. Field by field as in `OPTIONS`; None leaves it out."""

    partition: str | None = None


OPTIONS = (Option("partition", str, "The partition to run in.", "Slurm", "NAME", _ON),)
