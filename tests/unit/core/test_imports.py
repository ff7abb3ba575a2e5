"""The house's walls, read from the import statements."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hvdtools

HOUSE = Path(hvdtools.__file__).parent
FRAMEWORKS = {"torch", "tensorflow", "keras"}
ADAPTERS_MAY = {
    *(
        "errors",
        "topology",
        "installed",
        "log",
        "sharding",
        "divergence",
        "lr_scaling",
        "job_start",
        "agreement",
        "preemption",
    ),
}
# room -> the rooms and modules of the house that it may import
MAY_IMPORT = {
    "errors": set(),
    "topology": {"errors"},
    "cpus": set(),
    "installed": {"errors"},
    "log": set(),
    "sharding": {"errors"},
    "divergence": {"log"},
    "lr_scaling": {"errors"},
    "rendezvous": {"errors", "topology"},
    "job_start": {"errors", "topology", "cpus", "rendezvous"},
    "agreement": {"errors"},
    "preemption": {"errors"},
    "torch": {*ADAPTERS_MAY, "cpus"},
    "tensorflow": {*ADAPTERS_MAY, "cpus"},
    "keras": {*ADAPTERS_MAY, "tensorflow"},
    "mpi": set(),
    "renamed": set(),
    "words": set(),
    "in_rank": set(),
    "rank_wrapper": {"errors", "topology", "cpus"},
    "launch": {
        *(
            "errors",
            "topology",
            "cpus",
            "installed",
            "log",
            "mpi",
            "rank_wrapper",
            "renamed",
            "words",
        ),
    },
    "build": {"errors", "installed", "cpus", "mpi", "renamed"},
    "doctor": {
        *("errors", "installed", "cpus", "topology", "build", "launch", "mpi", "rendezvous"),
        "words",
    },
    "bench": {"errors", "topology", "cpus", "installed", "launch", "renamed", "words"},
}
# the same within an adapter's room; what is not listed there may import all of it
MAY_IMPORT_WITHIN = {
    "torch": {
        "waiting": set(),
        "weighting": set(),
        "stall": {"waiting"},
        "session": {"stall"},
        "checksum": {"waiting"},
        "replicate": set(),
        "collect": {"replicate", "session", "waiting"},
        "gradients": {"checksum", "waiting", "weighting"},
        "preemption": {"session", "waiting"},
        "data": {"collect", "replicate", "session", "waiting", "weighting"},
        "norm": {"waiting", "weighting"},
    },
    "tensorflow": {
        "session": set(),
        "named": set(),
        "collect": {"named", "session"},
        "variables": {"collect", "named", "session"},
        "preemption": {"named", "session"},
        "gradients": {"named"},
        "tape": {"gradients", "session"},
    },
    "keras": {
        "averaging": set(),
        "batch_norm": set(),
        "xla": set(),
        "data": set(),
        "replicated": {"averaging"},
        "prepare": {"averaging", "batch_norm", "xla"},
        "saving": {"prepare", "replicated"},
        "in_sync": {"replicated"},
        "callbacks": {"averaging", "replicated", "xla"},
        "evaluate": {"callbacks"},
    },
}
PARTS = [(room, part) for room, parts in MAY_IMPORT_WITHIN.items() for part in parts]


def imports_of(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(room: str) -> list[Path]:
    folder = HOUSE / room
    if folder.is_dir():
        return [f for f in folder.rglob("*.py") if "programs" not in f.relative_to(HOUSE).parts]
    return [HOUSE / f"{room}.py"]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    for file in files_of(room):
        for name in imports_of(file):
            parts = name.split(".")
            if parts[0] == "hvdtools" and len(parts) > 1 and parts[1] != "__version__":
                assert parts[1] in MAY_IMPORT[room] | {room}, f"{file.name} imports {name}"


@pytest.mark.parametrize(("room", "part"), PARTS)
def test_imports_point_one_way_within_an_adapter(room: str, part: str) -> None:
    for file in files_of(f"{room}/{part}"):
        for name in imports_of(file):
            parts = name.split(".")
            if parts[:2] == ["hvdtools", room]:
                assert parts[2] in MAY_IMPORT_WITHIN[room][part] | {part}, f"{file.name}: {name}"


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if room not in FRAMEWORKS])
def test_only_an_adapter_imports_its_framework(room: str) -> None:
    for file in files_of(room):
        if file.name == "rank_check.py":
            continue  # the smoke test runs in ranks of its own, never in the command
        # Horovod's store and launcher have no part of a framework.
        names = {name for name in imports_of(file) if not name.startswith("horovod.runner.")}
        frameworks = {name.split(".")[0] for name in names} & (FRAMEWORKS | {"horovod"})
        assert not frameworks, f"{file} imports {frameworks}"


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("hvdtools.cli", ("torch", "tensorflow", "horovod", "matplotlib")),
        ("hvdtools.torch", ("tensorflow", "keras")),
        ("hvdtools.tensorflow", ("torch",)),
        ("hvdtools.keras", ("torch",)),
    ],
)
def test_what_an_import_brings_along(module: str, others: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {others} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
