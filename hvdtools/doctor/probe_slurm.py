"""Slurm: srun's version, the kinds of MPI it can start, and the allocation around us."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hvdtools.build.query import first_match, query
from hvdtools.doctor.facts_host import Slurm


def find_slurm(environ: Mapping[str, str]) -> Slurm | None:
    """srun's own words and the allocation's variables; None where there is no srun."""
    version = query(["srun", "--version"])
    if version is None:
        return None
    kinds = query(["srun", "--mpi=list"])
    job = environ.get("SLURM_JOB_ID")
    return Slurm(
        version=first_match(r"(\d+(?:\.\d+)+\S*)", version.text) or "of an unknown version",
        mpi_kinds=read_kinds(kinds.text if kinds and kinds.status == 0 else ""),
        job=job,
        nodes=_number(environ, "SLURM_JOB_NUM_NODES") if job else 0,
        tasks=_number(environ, "SLURM_NTASKS") if job else 0,
        gpus_per_task="SLURM_GPUS_PER_TASK" in environ,
    )


def read_kinds(listed: str) -> tuple[str, ...]:
    """The kinds that ``srun --mpi=list`` names, one a line below its heading.

    Older versions put "srun: " before each line.
    """
    lines = [re.sub(r"^srun:\s*", "", line).strip() for line in listed.splitlines()]
    return tuple(sorted({line for line in lines if re.fullmatch(r"\w+", line) and line != "none"}))


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdigit() else 0
