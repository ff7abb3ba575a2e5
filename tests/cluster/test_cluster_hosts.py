"""That the hosts of a test cluster are what they promise: separate, joined, breakable."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_hosts import ClusterHosts
from cluster_state import ClusterError


def said(cluster: ClusterHosts, host: str, *argv: str | Path) -> str:
    done = cluster.exec(host, argv, timeout_s=30)
    assert done.returncode == 0, done
    return done.stdout.strip()


def reaches(cluster: ClusterHosts, host: str, other: str, within_s: int = 10) -> bool:
    ssh = ["ssh", "-o", f"ConnectTimeout={within_s}", other, "true"]
    return cluster.exec(host, ssh, timeout_s=30).returncode == 0


def misses(cluster: ClusterHosts, host: str, other: str) -> bool:
    return not reaches(cluster, host, other, within_s=1)


def names_of(cluster: ClusterHosts, host: str, name: str) -> set[str]:
    return {line.split()[0] for line in said(cluster, host, "getent", "ahosts", name).split("\n")}


def test_ssh_asks_nothing_and_reaches_every_host(cluster_hosts: ClusterHosts) -> None:
    for here, there in (("login", "host2"), ("host2", "host4"), ("host4", "login")):
        done = cluster_hosts.exec(here, ["ssh", there, "hostname"])
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{there}\n", "")


def test_a_host_has_folders_processes_and_nics_of_its_own(
    cluster_hosts: ClusterHosts, tmp_path: Path
) -> None:
    for folder in ("/tmp", "/dev/shm", "/run"):
        said(cluster_hosts, "host1", "touch", f"{folder}/mark of a test")
        assert cluster_hosts.path("host1", f"{folder}/mark of a test").exists()
        assert "mark" not in said(cluster_hosts, "host2", "ls", folder)
        assert not Path(folder, "mark of a test").exists()
    assert said(cluster_hosts, "host1", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert said(cluster_hosts, "host1", "cat", "/proc/1/comm") == "sshd"
    routes = said(cluster_hosts, "host1", "ip", "route").split("\n")
    assert [route.split()[0] for route in routes] == ["10.77.0.0/24"]


def test_some_folders_are_the_same_on_all_hosts(
    cluster_hosts: ClusterHosts, tmp_path: Path
) -> None:
    for folder in (tmp_path, cluster_hosts.shared):
        said(cluster_hosts, "host1", "sh", "-c", f"echo hello >'{folder}/greeting'")
        assert said(cluster_hosts, "host2", "cat", folder / "greeting") == "hello"
        assert (folder / "greeting").read_text() == "hello\n"
    assert said(cluster_hosts, "host3", sys.executable, "-c", "import sys; print(sys.prefix)")


def test_what_a_program_gets_and_gives(cluster_hosts: ClusterHosts, tmp_path: Path) -> None:
    done = cluster_hosts.exec(
        "host1", ["sh", "-c", 'pwd; echo "$V" >&2; exit 7'], env={"V": "a 'b'"}, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{tmp_path}\n", "a 'b'\n")
    with pytest.raises(ClusterError, match=r"there is no folder /tmp/no such .* --see"):
        cluster_hosts.exec("host1", ["true"], cwd="/tmp/no such")
    with pytest.raises(ClusterError, match=r"no host 'host9'; there are login, host1, .*host4"):
        cluster_hosts.exec("host9", ["true"])


def test_time_is_up_for_a_program_and_its_children(cluster_hosts: ClusterHosts) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        cluster_hosts.exec("host1", ["sh", "-c", "echo begun; sleep 300; true"], timeout_s=1)
    assert caught.value.output == "begun\n"
    assert cluster_hosts.processes() == []


def test_a_signal_reaches_the_program_itself(cluster_hosts: ClusterHosts) -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = cluster_hosts.popen("host1", ["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert process.pid in [found.pid for found in cluster_hosts.processes("host1")]
    assert process.pid not in [found.pid for found in cluster_hosts.processes("host2")]
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "got it\n"
    assert process.returncode == 5


def test_a_cut_host_is_silent_until_it_is_joined(cluster_hosts: ClusterHosts) -> None:
    cluster_hosts.cut("host2")
    assert cluster_hosts.is_cut("host2") and not cluster_hosts.is_cut("host1")
    assert "LOWER_UP" in said(cluster_hosts, "host2", "ip", "link", "show", "eth0")
    assert misses(cluster_hosts, "login", "host2") and misses(cluster_hosts, "host2", "login")
    assert reaches(cluster_hosts, "login", "host1")
    cluster_hosts.join("host2")
    assert reaches(cluster_hosts, "login", "host2")


def test_a_nic_goes_down_and_up(cluster_hosts: ClusterHosts) -> None:
    cluster_hosts.nic("host2", False)
    assert misses(cluster_hosts, "login", "host2")
    cluster_hosts.nic("host2", True)
    assert reaches(cluster_hosts, "login", "host2")


def test_a_crash_takes_every_process(cluster_hosts: ClusterHosts) -> None:
    process = cluster_hosts.popen("host2", ["sh", "-c", "sleep 300 & sleep 300"])
    over_ssh = cluster_hosts.popen(
        "login", ["ssh", "host2", "echo ready; sleep 300"], stdout=subprocess.PIPE
    )
    assert over_ssh.stdout is not None and over_ssh.stdout.readline() == "ready\n"
    cluster_hosts.crash("host2")
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert over_ssh.poll() is None  # it was told nothing
    assert not cluster_hosts.is_up("host2") and misses(cluster_hosts, "login", "host2")
    with pytest.raises(ClusterError, match=r"host2 is not up"):
        cluster_hosts.exec("host2", ["true"])
    cluster_hosts.boot("host2")
    assert cluster_hosts.processes("host2") == []
    assert reaches(cluster_hosts, "login", "host2")


def test_a_second_nic_leads_to_its_own_lan_or_nowhere(cluster_hosts: ClusterHosts) -> None:
    for host in ("host1", "host2"):
        cluster_hosts.add_nic(host)
        cluster_hosts.add_nic(host, "docker0", "172.17.0.1/16", cabled=False)
    assert "10.77.1.1/24" in said(cluster_hosts, "host1", "ip", "addr", "show", "eth1")
    assert reaches(cluster_hosts, "host1", "10.77.1.2")
    assert misses(cluster_hosts, "login", "10.77.1.2")
    assert said(cluster_hosts, "host1", "ssh", "172.17.0.1", "hostname") == "host1"  # itself
    cluster_hosts.cut("host2")
    assert misses(cluster_hosts, "host1", "10.77.1.2")


def test_a_host_may_take_its_own_name_for_loopback(cluster_hosts: ClusterHosts) -> None:
    cluster_hosts.loopback_name("host2")
    assert names_of(cluster_hosts, "host2", "host2") == {"127.0.1.1"}
    assert names_of(cluster_hosts, "host1", "host2") == {"10.77.0.2"}
    cluster_hosts.add_line_to_etc_hosts("host1", "10.77.0.3 storage")
    assert said(cluster_hosts, "host1", "ssh", "storage", "hostname") == "host3"


def test_speed_is_limited(cluster_hosts: ClusterHosts) -> None:
    cluster_hosts.shape("200mbit")
    for host in cluster_hosts.hosts:
        assert "rate 200Mbit" in said(cluster_hosts, host, "tc", "qdisc", "show", "dev", "eth0")


def test_healing_undoes_everything(cluster_hosts: ClusterHosts) -> None:
    cluster_hosts.shape("200mbit")
    cluster_hosts.add_nic("host1")
    cluster_hosts.loopback_name("host1")
    cluster_hosts.nic("host1", False)
    cluster_hosts.cut("host2")
    cluster_hosts.crash("host3")
    left = cluster_hosts.popen("host4", ["sleep", "300"])
    assert cluster_hosts.heal() == ["host3"]
    assert left.wait(timeout=30) == -signal.SIGKILL
    for host in ("host1", "host2", "host3"):
        assert said(cluster_hosts, "login", "ssh", host, "hostname") == host
    assert said(cluster_hosts, "host1", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert names_of(cluster_hosts, "host1", "host1") == {"10.77.0.1"}
    assert "tbf" not in said(cluster_hosts, "host1", "tc", "qdisc", "show", "dev", "eth0")


def test_mpirun_of_this_environment_starts_ranks_on_hosts(cluster_hosts: ClusterHosts) -> None:
    mpirun = Path(sys.executable).parent / "mpirun"
    if not mpirun.exists():
        pytest.skip("there is no mpirun in this environment")
    done = cluster_hosts.exec(
        "login",
        # Open MPI 5.0.11 sometimes hangs after a program that ends at once.
        [mpirun, "-H", "host1:2,host2:2", "--bind-to", "none", "sh", "-c", "sleep 1; hostname"],
        env={"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    )
    assert sorted(done.stdout.split()) == ["host1", "host1", "host2", "host2"], done
