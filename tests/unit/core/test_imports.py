"""The allowed imports between packages, and within some of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hvdtools

PACKAGE_ROOT = Path(hvdtools.__file__).parent
FRAMEWORKS = {"torch", "tensorflow", "keras"}
# package -> the packages that it may import; all may use hvdtools itself
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "rendezvous": {"core"},
    "torch": {"core", "rendezvous"},
    "tensorflow": {"core", "rendezvous"},
    "keras": {"core", "tensorflow"},
    "in_rank": set(),
    "rank_wrapper": {"core"},
    "launch": {"core", "rank_wrapper"},
    "build": {"core"},
    "doctor": {"core", "build", "launch", "rendezvous"},
    "bench": {"core", "launch"},
}
# The same within a package; modules that are not listed may import all of it.
MAY_IMPORT_WITHIN = {
    "core": {
        **{name: set() for name in ("cpus", "errors", "log", "mpi", "renamed", "text")},
        **{name: {"errors"} for name in ("installed", "preemption", "sharding")},
        **{name: {"errors", "text"} for name in ("agreement", "learning_rate", "topology")},
    },
    "rendezvous": {
        "protocol": set(),
        "membership": set(),
        "network": {"protocol"},
        "client": {"membership", "protocol"},
        "server": {"client", "membership", "protocol"},
        "static": {"network", "protocol"},
        "pmi": {"protocol"},
        "pmix": {"protocol"},
    },
    "rank_wrapper": {"binding": set()},
    "torch": {
        "waiting": set(),
        "loss_weights": set(),
        "stall": {"waiting"},
        "session": {"stall", "waiting"},
        "checksum": {"waiting"},
        "replicate": set(),
        "collect": {"replicate", "session", "waiting"},
        "gradients": {"loss_weights", "checksum", "waiting"},
        "data": {"loss_weights", "collect", "replicate", "session", "waiting"},
        "norm": {"loss_weights", "waiting"},
    },
    "tensorflow": {
        "session": set(),
        "named_collectives": set(),
        "collectives": {"named_collectives", "session"},
        "variables": {"collectives", "named_collectives", "session"},
        "gradients": {"named_collectives", "session"},
    },
    "keras": {
        "batch_norm": set(),
        "data": set(),
        "optimizer": {"batch_norm"},
        "replicas": {"optimizer"},
        "saving": {"optimizer", "replicas"},
        "callbacks": {"optimizer", "replicas"},
    },
    "bench": {
        "results": {"suite"},
        "analysis": {"formatting", "results", "suite"},
        "predict": {"analysis", "formatting", "results", "suite"},
        "report": {"analysis", "formatting", "predict", "results", "suite"},
    },
}
PARTS = [(package, part) for package, parts in MAY_IMPORT_WITHIN.items() for part in parts]


def imports_of(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(package: str) -> list[Path]:
    folder = PACKAGE_ROOT / package
    if folder.is_dir():
        return [
            f for f in folder.rglob("*.py") if "programs" not in f.relative_to(PACKAGE_ROOT).parts
        ]
    return [PACKAGE_ROOT / f"{package}.py"]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    for file in files_of(package):
        for name in imports_of(file):
            parts = name.split(".")
            if parts[0] == "hvdtools" and len(parts) > 1 and parts[1] != "__version__":
                assert parts[1] in MAY_IMPORT[package] | {package}, f"{file.name} imports {name}"


@pytest.mark.parametrize(("package", "part"), PARTS)
def test_imports_point_one_way_within_a_package(package: str, part: str) -> None:
    for file in files_of(f"{package}/{part}"):
        for name in imports_of(file):
            parts = name.split(".")
            if parts[:2] == ["hvdtools", package]:
                assert parts[2] in MAY_IMPORT_WITHIN[package][part] | {part}, f"{file.name}: {name}"


@pytest.mark.parametrize(
    "package", [package for package in MAY_IMPORT if package not in FRAMEWORKS]
)
def test_only_an_adapter_imports_its_framework(package: str) -> None:
    for file in files_of(package):
        if file.name == "rank_check.py":
            continue  # the smoke test runs in separate ranks, never in the command
        # Horovod's store and launcher use no framework.
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
def test_an_import_does_not_import_other_frameworks(module: str, others: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([m for m in {others} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
