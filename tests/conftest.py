"""Marks by folder, rank sessions, test hosts, and an environment of each test's own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from jobs import StartJob, start_job
from paths import TESTS

pytest_plugins = ["cluster_fixtures", "rank_sessions"]

# What torchrun sets for each rank.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
KINDS = ("ranks", "cluster", "browser", "unit")
# What takes longest begins first, so that two workers end at about the same time.
FIRST = ("cluster", "tensorflow-3", "tensorflow-2", "torch-3", "torch-2", "tensorflow-1", "torch-1")


def served_together(nodeid: str) -> str:
    """What a test shares with others, all of which one worker runs: a session, hosts, a file."""
    file, _, name = nodeid.partition("::")
    session = re.search(r"\[((?:torch|tensorflow)-\d)-", name)
    if file.startswith("tests/ranks/") and session:
        return session[1]
    return "cluster" if file.startswith("tests/cluster/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ServedTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return served_together(nodeid)

    return ServedTogether(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark a test by its folder unless it is marked; those of `bench` are unit tests then."""
    if not any(mark.name in KINDS for mark in item.iter_markers()):
        folder = Path(item.path).relative_to(TESTS).parts[0]
        item.add_marker(folder if folder in KINDS else "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place_in_order)


def _place_in_order(item: pytest.Item) -> tuple[int, int]:
    group = served_together(item.nodeid)
    (kind,) = (mark.name for mark in item.iter_markers() if mark.name in KINDS)
    return FIRST.index(group) if group in FIRST else len(FIRST), KINDS.index(kind)


@pytest.fixture(scope="session", name="start_job")
def _start_job() -> StartJob:
    return start_job


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Job variables of the caller stay out; what a test sets for itself ends with it."""
    for name in list(os.environ):
        ours = name.startswith(("HOROVOD_", "HVDTOOLS_", "OMPI_COMM_", "SLURM_", "PMI_", "PMIX_"))
        if (ours and name != "HVDTOOLS_TEST_CLUSTER") or name in TORCHRUN:
            monkeypatch.delenv(name)
