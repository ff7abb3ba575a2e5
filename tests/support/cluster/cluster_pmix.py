"""srun --mpi=pmix as Debian's Slurm has it, where the package libpmix-dev is not installed.

Slurm's plugin opens `libpmix.so`, but that name is only in libpmix-dev; Slurm itself needs
no more than libpmix2, and then refuses --mpi=pmix. So the hosts see a copy of libpmix2's
folder in which the name exists too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

NAME = "libpmix.so"


def libpmix() -> Path | None:
    """Debian's libpmix2, or None: it comes with openmpi-bin, but not with slurm-wlm."""
    return next(Path("/usr/lib").glob(f"*/pmix2/lib/{NAME}.2"), None)


def libpmix_mount(folder: Path) -> list[str]:
    """Copy libpmix2 below `folder`, with the name. Returns the `mount` for a host, or []."""
    library = libpmix()
    if library is None or (library.parent / NAME).exists():
        return []
    copy = folder / "pmix"
    if not copy.exists():
        shutil.copytree(library.parent, copy, symlinks=True)
        (copy / NAME).symlink_to(library.name)
    return ["mount", "--bind", str(copy), str(library.parent)]
