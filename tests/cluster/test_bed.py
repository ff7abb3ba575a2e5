"""That the hosts of a bed are what they promise: separate, joined, breakable."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bed_hosts import HostsBed
from bed_state import BedError


def said(bed: HostsBed, host: str, *argv: str | Path) -> str:
    done = bed.exec(host, argv, timeout_s=30)
    assert done.returncode == 0, done
    return done.stdout.strip()


def reaches(bed: HostsBed, host: str, other: str, within_s: int = 10) -> bool:
    ssh = ["ssh", "-o", f"ConnectTimeout={within_s}", other, "true"]
    return bed.exec(host, ssh, timeout_s=30).returncode == 0


def misses(bed: HostsBed, host: str, other: str) -> bool:
    return not reaches(bed, host, other, within_s=1)


def names_of(bed: HostsBed, host: str, name: str) -> set[str]:
    return {line.split()[0] for line in said(bed, host, "getent", "ahosts", name).split("\n")}


def test_ssh_asks_nothing_and_reaches_every_host(hosts_bed: HostsBed) -> None:
    for here, there in (("login", "host2"), ("host2", "host4"), ("host4", "login")):
        done = hosts_bed.exec(here, ["ssh", there, "hostname"])
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{there}\n", "")


def test_a_host_has_folders_processes_and_nics_of_its_own(
    hosts_bed: HostsBed, tmp_path: Path
) -> None:
    for folder in ("/tmp", "/dev/shm", "/run"):
        said(hosts_bed, "host1", "touch", f"{folder}/mark of a test")
        assert hosts_bed.path("host1", f"{folder}/mark of a test").exists()
        assert "mark" not in said(hosts_bed, "host2", "ls", folder)
        assert not Path(folder, "mark of a test").exists()
    assert said(hosts_bed, "host1", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert said(hosts_bed, "host1", "cat", "/proc/1/comm") == "sshd"
    routes = said(hosts_bed, "host1", "ip", "route").split("\n")
    assert [route.split()[0] for route in routes] == ["10.77.0.0/24"]


def test_some_folders_are_the_same_on_all_hosts(hosts_bed: HostsBed, tmp_path: Path) -> None:
    for folder in (tmp_path, hosts_bed.shared):
        said(hosts_bed, "host1", "sh", "-c", f"echo hello >'{folder}/greeting'")
        assert said(hosts_bed, "host2", "cat", folder / "greeting") == "hello"
        assert (folder / "greeting").read_text() == "hello\n"
    assert said(hosts_bed, "host3", sys.executable, "-c", "import sys; print(sys.prefix)")


def test_what_a_program_gets_and_gives(hosts_bed: HostsBed, tmp_path: Path) -> None:
    done = hosts_bed.exec(
        "host1", ["sh", "-c", 'pwd; echo "$V" >&2; exit 7'], env={"V": "a 'b'"}, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{tmp_path}\n", "a 'b'\n")
    with pytest.raises(BedError, match=r"there is no folder /tmp/no such .* --see"):
        hosts_bed.exec("host1", ["true"], cwd="/tmp/no such")
    with pytest.raises(BedError, match=r"no host 'host9'; there are login, host1, .*host4"):
        hosts_bed.exec("host9", ["true"])


def test_time_is_up_for_a_program_and_its_children(hosts_bed: HostsBed) -> None:
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        hosts_bed.exec("host1", ["sh", "-c", "echo begun; sleep 300; true"], timeout_s=1)
    assert caught.value.output == "begun\n"
    assert hosts_bed.processes() == []


def test_a_signal_reaches_the_program_itself(hosts_bed: HostsBed) -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = hosts_bed.popen("host1", ["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert process.pid in [found.pid for found in hosts_bed.processes("host1")]
    assert process.pid not in [found.pid for found in hosts_bed.processes("host2")]
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "got it\n"
    assert process.returncode == 5


def test_a_cut_host_is_silent_until_it_is_joined(hosts_bed: HostsBed) -> None:
    hosts_bed.cut("host2")
    assert hosts_bed.is_cut("host2") and not hosts_bed.is_cut("host1")
    assert "LOWER_UP" in said(hosts_bed, "host2", "ip", "link", "show", "eth0")
    assert misses(hosts_bed, "login", "host2") and misses(hosts_bed, "host2", "login")
    assert reaches(hosts_bed, "login", "host1")
    hosts_bed.join("host2")
    assert reaches(hosts_bed, "login", "host2")


def test_a_nic_goes_down_and_up(hosts_bed: HostsBed) -> None:
    hosts_bed.nic("host2", False)
    assert misses(hosts_bed, "login", "host2")
    hosts_bed.nic("host2", True)
    assert reaches(hosts_bed, "login", "host2")


def test_a_crash_takes_every_process(hosts_bed: HostsBed) -> None:
    process = hosts_bed.popen("host2", ["sh", "-c", "sleep 300 & sleep 300"])
    over_ssh = hosts_bed.popen(
        "login", ["ssh", "host2", "echo ready; sleep 300"], stdout=subprocess.PIPE
    )
    assert over_ssh.stdout is not None and over_ssh.stdout.readline() == "ready\n"
    hosts_bed.crash("host2")
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert over_ssh.poll() is None  # it was told nothing
    assert not hosts_bed.is_up("host2") and misses(hosts_bed, "login", "host2")
    with pytest.raises(BedError, match=r"host2 is not up"):
        hosts_bed.exec("host2", ["true"])
    hosts_bed.boot("host2")
    assert hosts_bed.processes("host2") == []
    assert reaches(hosts_bed, "login", "host2")


def test_a_second_nic_leads_to_its_own_lan_or_nowhere(hosts_bed: HostsBed) -> None:
    for host in ("host1", "host2"):
        hosts_bed.add_nic(host)
        hosts_bed.add_nic(host, "docker0", "172.17.0.1/16", cabled=False)
    assert "10.77.1.1/24" in said(hosts_bed, "host1", "ip", "addr", "show", "eth1")
    assert reaches(hosts_bed, "host1", "10.77.1.2")
    assert misses(hosts_bed, "login", "10.77.1.2")
    assert said(hosts_bed, "host1", "ssh", "172.17.0.1", "hostname") == "host1"  # itself
    hosts_bed.cut("host2")
    assert misses(hosts_bed, "host1", "10.77.1.2")


def test_a_host_may_take_its_own_name_for_loopback(hosts_bed: HostsBed) -> None:
    hosts_bed.loopback_name("host2")
    assert names_of(hosts_bed, "host2", "host2") == {"127.0.1.1"}
    assert names_of(hosts_bed, "host1", "host2") == {"10.77.0.2"}
    hosts_bed.add_line_to_etc_hosts("host1", "10.77.0.3 storage")
    assert said(hosts_bed, "host1", "ssh", "storage", "hostname") == "host3"


def test_speed_is_limited(hosts_bed: HostsBed) -> None:
    hosts_bed.shape("200mbit")
    for host in hosts_bed.hosts:
        assert "rate 200Mbit" in said(hosts_bed, host, "tc", "qdisc", "show", "dev", "eth0")


def test_healing_undoes_everything(hosts_bed: HostsBed) -> None:
    hosts_bed.shape("200mbit")
    hosts_bed.add_nic("host1")
    hosts_bed.loopback_name("host1")
    hosts_bed.nic("host1", False)
    hosts_bed.cut("host2")
    hosts_bed.crash("host3")
    left = hosts_bed.popen("host4", ["sleep", "300"])
    assert hosts_bed.heal() == ["host3"]
    assert left.wait(timeout=30) == -signal.SIGKILL
    for host in ("host1", "host2", "host3"):
        assert said(hosts_bed, "login", "ssh", host, "hostname") == host
    assert said(hosts_bed, "host1", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    assert names_of(hosts_bed, "host1", "host1") == {"10.77.0.1"}
    assert "tbf" not in said(hosts_bed, "host1", "tc", "qdisc", "show", "dev", "eth0")


def test_mpirun_of_this_environment_starts_ranks_on_hosts(hosts_bed: HostsBed) -> None:
    mpirun = Path(sys.executable).parent / "mpirun"
    if not mpirun.exists():
        pytest.skip("there is no mpirun in this environment")
    done = hosts_bed.exec(
        "login",
        # Open MPI 5.0.11 sometimes hangs after a program that ends at once.
        [mpirun, "-H", "host1:2,host2:2", "--bind-to", "none", "sh", "-c", "sleep 1; hostname"],
        env={"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},
    )
    assert sorted(done.stdout.split()) == ["host1", "host1", "host2", "host2"], done
