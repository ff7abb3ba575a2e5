"""How much memory a rank may still take."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_CGROUP_V2 = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device, local_ranks: int) -> int:
    """Bytes that this rank may still take, if all ranks of its node take as many."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What PyTorch holds for later is free to it.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free) + kept
    free = int(psutil.virtual_memory().available)
    left = _left_in_container()
    return (free if left is None else min(free, left)) // local_ranks


def _left_in_container(folder: Path = _CGROUP_V2) -> int | None:
    """Bytes up to the container's limit; None without one.

    Source: cgroup v2's ``memory.max`` and ``memory.stat``. What the kernel keeps
    of files counts in ``memory.current`` but gives way; "anon" and "shmem" do not.
    """
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    return max(0, int(limit) - int(used.get("anon", 0)) - int(used.get("shmem", 0)))
