"""The GPU that a rank will take, and the CPUs beside it."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.cpus import read_cpu_list
from hvdtools.core.errors import HvdtoolsError

_PCI = Path("/sys/bus/pci/devices")
_PATIENCE_S = 60


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: What tells it from the others of the node: "1 (NVIDIA H100)", or as
            CUDA_VISIBLE_DEVICES has it.
        near: The CPUs beside it; empty where nobody knows.
    """

    name: str
    near: frozenset[int] = frozenset()


def gpu_of(local_rank: int, environ: Mapping[str, str]) -> Gpu | None:
    """The GPU that `init()` gives to a local rank; None where there is none.

    It is the local rank's among those shown, in turn: a launcher may show each
    rank its own GPU alone.

    Raises:
        HvdtoolsError: nvidia-smi is here and does not work.
    """
    cards = _cards()
    shown = environ.get("CUDA_VISIBLE_DEVICES")
    words = list(cards) if shown is None else [word.strip() for word in shown.split(",") if word]
    if not words:
        return None
    word = words[local_rank % len(words)]
    return cards.get(word, Gpu(word))


@functools.cache
def _cards() -> dict[str, Gpu]:
    """The GPUs that nvidia-smi lists, by number; {} without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    query = [tool, "--query-gpu=index,name,pci.bus_id", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    if answer.returncode != 0:
        raise HvdtoolsError(
            f"nvidia-smi fails ({(answer.stdout + answer.stderr).strip()[:200]}): see "
            "`hvdtools doctor`."
        )
    return read_cards(answer.stdout, _PCI)


def read_cards(listed: str, pci: Path) -> dict[str, Gpu]:
    """Number -> GPU, from nvidia-smi's "0, NVIDIA H100, 00000000:1B:00.0" lines.

    Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci (local_cpulist);
    nvidia-smi writes the domain with eight digits, the kernel with four.
    """
    found = {}
    for line in listed.splitlines():
        number, name, address = (part.strip() for part in line.split(","))
        file = pci / address.lower()[-12:] / "local_cpulist"
        near = read_cpu_list(file.read_text()) if file.exists() else frozenset()
        found[number] = Gpu(f"{number} ({name})", near)
    return found
