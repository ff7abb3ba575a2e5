"""`hvdtools doctor` on real hosts and in a real Slurm job, with and without faults."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_hosts import ClusterHosts
from cluster_slurm import SlurmCluster
from paths import HVDTOOLS

from hvdtools.build.smoke_test import RANK_PROGRAM
from hvdtools.core import installed

ENV = {"OMP_NUM_THREADS": "1"}
THREE = ("--hosts", "host1,host2,host3")

pytestmark = pytest.mark.skipif(
    not {"mpi", "gloo"} <= set(getattr(installed.find(), "controllers", ()))
    or installed.framework_version("torch") is None,
    reason="Horovod with MPI and Gloo for torch is not installed here",
)


def doctor(cluster: ClusterHosts, *words: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """The report of a call on `login`; its exit code must agree with the report."""
    command = [*before, HVDTOOLS, "doctor", "--json", "--frameworks", "torch", *words]
    done = cluster.exec("login", command, env=ENV, timeout_s=400)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if report["level"] == "error" else 0), done.stderr
    return report


def said(report: dict[str, Any], level: str) -> str:
    found = [each for each in report["findings"] if each["level"] == level]
    return "\n".join(f"{each['subject']}: {each['message']}" for each in found)


@pytest.fixture
def replace_file(cluster_hosts: ClusterHosts, tmp_path: Path) -> Iterator[Any]:
    """Give one host another text for a file that all hosts share."""
    mounted = []

    def mount(host: str, file: Path, text: str) -> None:
        other = tmp_path / f"{host}-{file.name}"
        other.write_text(text)
        done = cluster_hosts.exec(host, ["mount", "--bind", str(other), str(file)])
        assert done.returncode == 0, done.stderr
        mounted.append((host, file))

    yield mount
    for host, file in mounted:
        cluster_hosts.exec(host, ["umount", str(file)])


def test_sound_hosts_pass_over_mpi_and_gloo(cluster_hosts: ClusterHosts) -> None:
    report = doctor(cluster_hosts, *THREE, "--np", "3")
    assert report["level"] != "error", said(report, "error")
    assert [host["problem"] for host in report["hosts"]] == [None] * 3
    assert [(check["name"], check["complaint"]) for check in report["checks"]] == [
        ("torch over MPI, 3 ranks on 3 hosts", ""),
        ("torch over Gloo, 3 ranks on 3 hosts", ""),
    ]
    for host in report["hosts"]:
        names = [each["name"] for each in host["facts"]["network"]["interfaces"] if each["up"]]
        assert names == ["eth0", "lo"] and abs(host["ahead_s"]) < 30


def test_differences_of_one_host_are_named(cluster_hosts: ClusterHosts, replace_file: Any) -> None:
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    version = Path(spec.origin).with_name("version.py")
    here = installed.framework_version("torch")
    replace_file("host3", version, version.read_text().replace(str(here), "1.9.9"))
    cluster_hosts.loopback_name("host2")
    for host in ("host1", "host2", "host3"):
        cluster_hosts.add_nic(host, "eth1")
    cluster_hosts.exec("host1", ["ip", "link", "set", "eth1", "down"])
    cluster_hosts.cut("host4")
    report = doctor(cluster_hosts, "--hosts", "host1,host2,host3,host4", "--no-ranks")
    errors, warnings = said(report, "error"), said(report, "warning")
    assert f"torch: host3 has torch 1.9.9, the 2 others {here}" in errors
    assert "hosts: ssh does not reach host4" in errors
    assert "host3: Horovod was built for torch" in errors and errors.count("\n") == 2
    assert "on host2 the host's own name resolves to 127.0.1.1 (loopback)" in warnings
    assert "eth1 is down on host1, and up on the 2 others" in warnings


def test_a_named_interface_that_is_down_is_an_error(cluster_hosts: ClusterHosts) -> None:
    for host in ("host1", "host2"):
        cluster_hosts.add_nic(host, "eth1")
    cluster_hosts.nic("host3", False)
    cluster_hosts.exec("host2", ["ip", "link", "set", "eth1", "down"])
    report = doctor(cluster_hosts, *THREE, "--no-ranks", "--interface", "eth1")
    errors = said(report, "error")
    assert "network: --interface eth1: it is down on host2" in errors
    assert "hosts: ssh does not reach host3" in errors and errors.count("\n") == 1


def test_the_host_with_failing_ranks_is_found(
    cluster_hosts: ClusterHosts, replace_file: Any
) -> None:
    replace_file("host3", RANK_PROGRAM, "import sys; sys.exit('OSError: I will not')")
    report = doctor(cluster_hosts, *THREE)
    assert [check["isolation"]["hosts"] for check in report["checks"]] == [["host3"]] * 2
    errors = said(report, "error").splitlines()
    assert len(errors) == 2
    for sentence in errors:
        assert sentence.endswith(
            "host3 breaks it: the others work without, and it fails alone, too"
        )
    assert not cluster_hosts.processes()


def test_all_nodes_of_an_allocation_without_ssh(slurm_cluster: SlurmCluster) -> None:
    cluster = slurm_cluster.cluster
    cluster.loopback_name("host2")
    report = doctor(cluster, before=("salloc", "--quiet", "--nodes=2", "--nodelist=host[1-2]"))
    assert report["level"] != "error", said(report, "error")
    assert [host["name"] for host in report["hosts"]] == ["host1", "host2"]
    assert [check["complaint"] for check in report["checks"]] == ["", ""]
    assert "on host2 the host's own name resolves to 127.0.1.1" in said(report, "warning")
