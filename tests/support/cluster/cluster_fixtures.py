"""Test clusters for the tests: hosts, and Slurm on them, brought up once for all tests that ask.

`cluster_hosts` and `slurm_cluster` heal after each test. A fixture of wider scope takes
`standing_hosts` or `standing_slurm`, the same clusters unhealed. A test that asks for one is
skipped, with the reason, where there can be none. `tmp_path` is seen on every host.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster_grid_engine import GridEngineCluster
from cluster_hosts import ClusterHosts
from cluster_requirements import why_no_cluster
from cluster_slurm import SlurmCluster
from cluster_state import Place, clusters

# One cluster for each process of tests, so that two of them do not meet.
OF_TESTS = "pytest-"
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")


@pytest.fixture(scope="session")
def standing_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterHosts]:
    """`login` and `host1` to `host4`."""
    _skip_unless_possible()
    _take_abandoned_down()
    with _one_group_of_processes():
        cluster = ClusterHosts.up(f"{OF_TESTS}{os.getpid()}", seen=[tmp_path_factory.getbasetemp()])
        yield cluster
        cluster.down()


@contextlib.contextmanager
def _one_group_of_processes() -> Iterator[None]:
    """Let Linux schedule processes one by one, not session by session, for the time.

    Several hosts' ranks on one core wait by yielding it (Open MPI). Where each host's are a
    group of their own (`sched_autogroup`), Linux 6.18 then gave a core to nobody else, kernel
    threads included, for a minute at a time: 9853 samples/s on 2 hosts x 2 ranks became 6.
    """
    before = AUTOGROUP.read_text() if os.access(AUTOGROUP, os.W_OK) else None
    try:
        if before is not None:
            AUTOGROUP.write_text("0\n")
        yield
    finally:
        if before is not None:
            AUTOGROUP.write_text(before)


@pytest.fixture(scope="session")
def standing_slurm(standing_hosts: ClusterHosts) -> SlurmCluster:
    """Slurm on those hosts; it ends with them."""
    _skip_unless_possible(slurm=True)
    return SlurmCluster.up(standing_hosts)


@pytest.fixture(scope="session")
def standing_grid_engine(standing_hosts: ClusterHosts) -> GridEngineCluster:
    """Grid Engine on those hosts; it ends with them."""
    _skip_unless_possible(grid_engine=True)
    return GridEngineCluster.up(standing_hosts)


@pytest.fixture
def grid_engine_cluster(standing_grid_engine: GridEngineCluster) -> Iterator[GridEngineCluster]:
    """Grid Engine and its hosts (`grid_engine_cluster.cluster`), for one test to disturb."""
    yield standing_grid_engine
    standing_grid_engine.heal()


@pytest.fixture
def cluster_hosts(standing_hosts: ClusterHosts) -> Iterator[ClusterHosts]:
    """The hosts, for one test to disturb."""
    yield standing_hosts
    standing_hosts.heal()


@pytest.fixture
def slurm_cluster(standing_slurm: SlurmCluster) -> Iterator[SlurmCluster]:
    """Slurm and its hosts (`slurm_cluster.cluster`), for one test to disturb."""
    yield standing_slurm
    standing_slurm.heal()


def _skip_unless_possible(*, slurm: bool = False, grid_engine: bool = False) -> None:
    reason = why_no_cluster(slurm, grid_engine)
    if reason:
        pytest.skip(reason)


def _take_abandoned_down() -> None:
    """End the test clusters of test processes that died without doing so."""
    for name in clusters():
        pid = name.removeprefix(OF_TESTS)
        if name.startswith(OF_TESTS) and pid.isdigit() and not psutil.pid_exists(int(pid)):
            Place(name).end()
