"""The number of threads of a rank."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvdtools.core import cpus
from hvdtools.core.cpus import fair_threads, quota_cpus


def test_threads_of_ranks_that_share_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "quota_cpus", lambda: None)
    eight = frozenset(range(8))
    assert fair_threads(eight, [eight]) == 8
    assert fair_threads(eight, [eight] * 3) == 2
    assert fair_threads(frozenset({0, 1}), [frozenset({0, 1}), frozenset({2, 3})]) == 2
    assert fair_threads(frozenset({0}), [frozenset({0})] * 4) == 1
    monkeypatch.setattr(cpus, "quota_cpus", lambda: 3.0)
    assert fair_threads(eight, [eight]) == 3


def test_a_containers_quota(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    file.write_text("150000 100000\n")
    assert quota_cpus(file) == 1.5
    file.write_text("max 100000\n")
    assert quota_cpus(file) is None
    assert quota_cpus(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("own_cpus", "parents", "ranks", "threads"),
    [
        (range(8), range(8), 4, 2),  # not bound: all ranks of the node share
        (range(2), range(8), 4, 2),  # bound to different cores
        (range(4), range(8), 4, 2),  # bound to a socket that two ranks share
        (range(8), range(8), 1, 8),
        (range(1), range(8), 16, 1),
    ],
)
def test_threads_before_ranks_can_communicate(
    own_cpus: range, parents: range, ranks: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "quota_cpus", lambda: None)
    monkeypatch.setattr(cpus, "usable_cpus", lambda: frozenset(own_cpus))
    monkeypatch.setattr(cpus, "_cpus_of_parent", lambda: frozenset(parents))
    assert cpus.fair_threads_before_init(ranks) == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_parents_cpus_are_read() -> None:
    program = (
        "import os; from hvdtools.core import cpus; parents = cpus._cpus_of_parent()\n"
        "os.sched_setaffinity(0, {min(parents)})\n"
        "print(len(parents), len(cpus.usable_cpus()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [str(len(os.sched_getaffinity(0))), "1"], done.stderr
