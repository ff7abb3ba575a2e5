"""The GPUs, their driver and their links, from nvidia-smi."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hvdtools.build.programs import Answer, first_match, query
from hvdtools.doctor.facts import Card, Gpus

_MIB = 2**20
_TOOL = "nvidia-smi"
_QUERY = "--query-gpu=name,memory.total,driver_version"
# The columns of devices; those about CPUs and NUMA follow.
_DEVICE = re.compile(r"(GPU|NIC)\d+|mlx\w+")


def find_gpus(devices: Path = Path("/dev")) -> Gpus:
    """Query nvidia-smi; `Gpus()` if there is none."""
    files = sum(1 for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
    with ThreadPoolExecutor() as pool:
        listed = pool.submit(query, [_TOOL, _QUERY, "--format=csv,noheader,nounits"])
        page = pool.submit(query, [_TOOL])
        matrix = pool.submit(query, [_TOOL, "topo", "-m"])
    return read(listed.result(), page.result(), matrix.result(), files)


def read(
    listed: Answer | None, page: Answer | None, matrix: Answer | None, device_files: int
) -> Gpus:
    """The answers of nvidia-smi as a value: its list of GPUs, its plain page, and `topo -m`."""
    if listed is None:
        return Gpus(device_files=device_files)
    if listed.status != 0:
        said = [line.strip() for line in listed.text.splitlines() if line.strip()]
        return Gpus(complaint=said[0] if said else "it says nothing", device_files=device_files)
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in listed.text.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    return Gpus(
        driver=rows[0][2] if rows else None,
        # "CUDA Version: 12.8"; newer drivers insert a word.
        cuda=first_match(r"CUDA(?: \w+)? Version\s*:\s*(\d+\.\d+)", page.text if page else ""),
        cards=tuple(Card(name, _bytes(mib)) for name, mib, _ in rows),
        links=read_links(matrix.text) if matrix and matrix.status == 0 else (),
        device_files=device_files,
    )


def _bytes(mib: str) -> int:
    # A GPU that shares the memory of the CPU reports "[N/A]".
    return int(mib) * _MIB if mib.isdigit() else 0


def read_links(matrix: str) -> tuple[tuple[str, ...], ...]:
    """The GPUs in the table of ``nvidia-smi topo -m``: [i][j] is how GPU i reaches GPU j."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", matrix).splitlines()
    header = next((line.split() for line in lines if line.split()[:1] == ["GPU0"]), [])
    columns = []
    for name in header:
        if not _DEVICE.fullmatch(name):
            break
        columns.append(name)
    gpus = [position for position, name in enumerate(columns) if name.startswith("GPU")]
    rows = [line.split() for line in lines if re.match(r"\s*GPU\d+\s", line)]
    rows = [row[1:] for row in rows if len(row) > len(columns) and "X" in row]
    return tuple(tuple(row[position] for position in gpus) for row in rows)
