"""Marks by folder, rank sessions, test hosts, and an environment of each test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jobs import StartJob, start_job
from paths import TESTS

pytest_plugins = ["bed_fixtures", "rank_sessions"]

# What torchrun sets for each rank.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
KINDS = ("unit", "ranks", "cluster", "browser")
# What takes longest begins first, so that two workers end at about the same time.
FIRST = ("cluster", "tensorflow-3", "tensorflow-2", "torch-3", "torch-2", "tensorflow-1", "torch-1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, unless it has one of the marks; `bench` tests are unit tests.

    What one set-up serves runs in one process: a rank session, the test hosts, the browser.
    """
    for item in items:
        if not any(mark.name in KINDS for mark in item.iter_markers()):
            folder = Path(item.path).relative_to(TESTS).parts[0]
            item.add_marker(folder if folder in KINDS else "unit")
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_served_together(item)))
    items.sort(key=_place_in_order)


def _place_in_order(item: pytest.Item) -> tuple[int, int]:
    group = item.get_closest_marker("xdist_group").args[0]
    place = FIRST.index(group) if group in FIRST else len(FIRST)
    return place, ["ranks", "cluster", "browser", "unit"].index(
        next(mark.name for mark in item.iter_markers() if mark.name in KINDS)
    )


def _served_together(item: pytest.Item) -> str:
    check = getattr(item, "callspec", None) and item.callspec.params.get("rank_check")
    if check:
        return "-".join(map(str, check.session))
    shared = item.get_closest_marker("cluster") or item.get_closest_marker("browser")
    return shared.name if shared else item.path.stem


@pytest.fixture(scope="session", name="start_job")
def _start_job() -> StartJob:
    return start_job


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Job variables of the caller stay out; what a test sets for itself ends with it."""
    for name in list(os.environ):
        ours = name.startswith(("HOROVOD_", "HVDTOOLS_", "OMPI_COMM_", "SLURM_", "PMI_", "PMIX_"))
        if (ours and name != "HVDTOOLS_BED") or name in TORCHRUN:
            monkeypatch.delenv(name)
