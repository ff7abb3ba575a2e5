"""Beds for the tests: hosts, and Slurm on them, brought up once for all tests that ask.

`hosts_bed` and `slurm_bed` heal after each test. A fixture of wider scope takes
`standing_hosts` or `standing_slurm`, the same beds unhealed. A test that asks for one is
skipped, with the reason, where there can be none. `tmp_path` is seen on every host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest
from bed_hosts import HostsBed
from bed_slurm import SlurmBed
from bed_state import Place, beds
from bed_why import why_no_bed

# One bed for each process of tests, so that two of them do not meet.
OF_TESTS = "pytest-"


@pytest.fixture(scope="session")
def standing_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsBed]:
    """`login` and `host1` to `host4`."""
    _skip_unless_possible(slurm=False)
    _take_abandoned_down()
    bed = HostsBed.up(f"{OF_TESTS}{os.getpid()}", seen=[tmp_path_factory.getbasetemp()])
    yield bed
    bed.down()


@pytest.fixture(scope="session")
def standing_slurm(standing_hosts: HostsBed) -> SlurmBed:
    """Slurm on those hosts; it ends with them."""
    _skip_unless_possible(slurm=True)
    return SlurmBed.up(standing_hosts)


@pytest.fixture
def hosts_bed(standing_hosts: HostsBed) -> Iterator[HostsBed]:
    """The hosts, for one test to disturb."""
    yield standing_hosts
    standing_hosts.heal()


@pytest.fixture
def slurm_bed(standing_slurm: SlurmBed) -> Iterator[SlurmBed]:
    """Slurm and its hosts (`slurm_bed.bed`), for one test to disturb."""
    yield standing_slurm
    standing_slurm.heal()


def _skip_unless_possible(*, slurm: bool) -> None:
    reason = why_no_bed(slurm)
    if reason:
        pytest.skip(reason)


def _take_abandoned_down() -> None:
    """End the beds of test processes that died without doing so."""
    for name in beds():
        pid = name.removeprefix(OF_TESTS)
        if name.startswith(OF_TESTS) and pid.isdigit() and not psutil.pid_exists(int(pid)):
            Place(name).end()
