"""Which hosts the doctor examines, and which options it rejects."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from paths import HVDTOOLS

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import parse_tasks_per_node
from hvdtools.doctor.host_selection import (
    allocated_hosts,
    assign_ranks,
    choose_scope,
    read_frameworks,
)
from hvdtools.launch.hosts import Host, read_hosts

TWO_NODES = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}


def test_an_allocation_of_several_nodes_is_examined_as_a_whole() -> None:
    assert choose_scope(None, None, None, {}) == "local"
    assert choose_scope(None, None, None, TWO_NODES) == "slurm"
    assert choose_scope(None, None, None, {**TWO_NODES, "SLURM_STEP_NUM_TASKS": "1"}) == "slurm"
    # srun hvdtools doctor: each task has its own node to look at
    assert choose_scope(None, None, None, {**TWO_NODES, "SLURM_STEP_NUM_TASKS": "2"}) == "local"
    assert choose_scope(None, None, None, {**TWO_NODES, "SLURM_JOB_NUM_NODES": "1"}) == "local"
    assert choose_scope("local", None, None, TWO_NODES) == "local"
    assert choose_scope("slurm", None, None, {"SLURM_JOB_ID": "7"}) == "slurm"
    assert choose_scope(None, "a", None, TWO_NODES) == "hosts"


@pytest.mark.parametrize(("text", "tasks"), [("2(x3),1", [2, 2, 2, 1]), ("4", [4]), ("", [])])
def test_slurm_s_tasks_are_counted(text: str, tasks: list[int]) -> None:
    assert parse_tasks_per_node(text) == tasks


def test_nodes_have_the_tasks_that_were_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scontrol").write_text("#!/bin/sh\ntest $3 = 'n[1-2]' && printf 'n1\\nn2\\n'\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # Without SLURM_NTASKS the number is that of the cores.
    nodes = {**TWO_NODES, "SLURM_TASKS_PER_NODE": "64(x2)"}
    assert allocated_hosts(nodes) == (Host("n1", 1), Host("n2", 1))
    asked = {**nodes, "SLURM_NTASKS": "5", "SLURM_TASKS_PER_NODE": "3,2"}
    assert allocated_hosts(asked) == (Host("n1", 3), Host("n2", 2))
    with pytest.raises(HvdtoolsError, match="does not name the nodes"):
        allocated_hosts({"SLURM_JOB_NODELIST": "m1"})


def test_every_host_gets_at_least_one_rank() -> None:
    hosts = read_hosts("a:4,b:1,c:2")
    assert assign_ranks(hosts, None) == hosts
    assert assign_ranks(hosts, 3) == read_hosts("a:1,b:1,c:1")
    assert assign_ranks(hosts, 6) == read_hosts("a:3,b:1,c:2")


def test_unknown_frameworks_are_rejected() -> None:
    assert read_frameworks("") == ("torch", "tensorflow")
    assert read_frameworks(" torch") == ("torch",)
    with pytest.raises(HvdtoolsError, match="Unknown framework 'jax'"):
        read_frameworks("torch,jax")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--hosts", "a:2,b:2", "--np", "5"), "--np 5 is more than the 4 slots of a:2,b:2"),
        (("--hosts", "a:2,b:2", "--np", "1"), "leaves some of the 2 hosts without a rank"),
        (("--hosts", "a:2,a:2"), "Host a is named twice"),
        (("--hosts", "a:two"), "'two' is no number of slots"),
        (("--hostfile", "FILE"), "FILE, line 2 ('b slot=2'): 'slot=2' is not known"),
        (("--hosts", "a", "--hostfile", "FILE"), "use one of them"),
        (("--hosts", "a", "--on", "slurm"), "contradict each other"),
        (("--hosts", "no-such-host.invalid"), "ssh does not reach no-such-host.invalid"),
        (("--hosts", "a", "--frameworks", "jax"), "Unknown framework 'jax'"),
        (("--on", "slurm"), "--on slurm needs a Slurm allocation"),
        (("--on", "hosts"), "--on hosts needs hosts"),
        (("--on", "mars"), "Unknown place 'mars'"),
        (("--interface", "eth0"), "--interface is for several hosts"),
        (("--no-ranks",), "--no-ranks is for several hosts"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    (tmp_path / "FILE").write_text("a slots=2\nb slot=2\n")
    command = [HVDTOOLS, "doctor", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr and done.stderr.count("\n") == 1
