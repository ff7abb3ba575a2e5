"""Jobs over several hosts, with every launcher: trained right, failed and stopped right."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cluster_hosts import ClusterHosts
from paths import HVDTOOLS, PROGRAMS

TRAINS = str(PROGRAMS / "rank_cluster.py")
TELLS_ITS_PLACE = str(PROGRAMS / "rank_place.py")
BYTES_SENT = str(PROGRAMS / "rank_bytes_sent.py")
ENV = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
LAUNCHERS = {
    "Open MPI 5": ("--launcher", "mpirun"),
    "Open MPI 4": ("--launcher", "mpirun", "--mpirun", "mpirun.openmpi"),
    "MPICH": ("--launcher", "mpirun", "--mpirun", "mpirun.mpich"),
    "horovodrun": ("--launcher", "horovodrun"),
}
SHAPES = {
    "2x2": (("--hosts", "host1:2,host2:2"), ["host1", "host1", "host2", "host2"]),
    "3+1": (("--hosts", "host1:3,host2:1"), ["host1", "host1", "host1", "host2"]),
    "cyclic": (
        ("--hosts", "host1:2,host2:2", "--distribution", "cyclic"),
        ["host1", "host2", "host1", "host2"],
    ),
}


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> tuple[str, ...]:
    words = LAUNCHERS[request.param]
    program = words[-1] if "--mpirun" in words else None
    if program and shutil.which(program) is None:
        pytest.skip(f"there is no {program} here: apt-get install openmpi-bin mpich")
    return words


def launch(cluster: ClusterHosts, *words: str, timeout_s: float = 120) -> Any:
    command = [HVDTOOLS, "launch", "--env", "OMP_NUM_THREADS=1", *words]
    return cluster.exec("login", command, env=ENV, timeout_s=timeout_s)


def found_by_rank(printed: str) -> list[dict[str, Any]]:
    lines = re.findall(r"^\[\d+\] (\{.*\})$", printed, re.MULTILINE)
    return sorted((json.loads(line) for line in lines), key=lambda found: found["rank"])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_rank_is_where_its_layout_says(
    cluster_hosts: ClusterHosts, launcher: tuple[str, ...], shape: str
) -> None:
    where, hosts = SHAPES[shape]
    done = launch(cluster_hosts, *where, *launcher, "--", "python", TELLS_ITS_PLACE)
    if launcher[-1] == "horovodrun" and shape == "cyclic":
        assert done.returncode == 2 and "knows no --distribution cyclic" in done.stderr
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert_places(found_by_rank(done.stdout), hosts)


def assert_places(ranks: list[dict[str, Any]], hosts: list[str]) -> None:
    assert [rank["host"] for rank in ranks] == hosts
    assert [rank["size"] for rank in ranks] == [len(hosts)] * len(hosts)
    assert [rank["local_rank"] for rank in ranks] == [
        hosts[:r].count(h) for r, h in enumerate(hosts)
    ]
    assert [rank["local_size"] for rank in ranks] == [hosts.count(host) for host in hosts]


# In each of the launchers one layout trains; all of them do in the slow tests.
@pytest.mark.parametrize(
    "shape",
    ["3+1", *(pytest.param(name, marks=pytest.mark.slow) for name in SHAPES if name != "3+1")],
)
def test_a_training_over_hosts_equals_one_process(
    cluster_hosts: ClusterHosts, launcher: tuple[str, ...], shape: str
) -> None:
    if launcher[-1] == "horovodrun" and shape == "cyclic":
        pytest.skip("horovodrun knows no --distribution cyclic")
    where, hosts = SHAPES[shape]
    done = launch(cluster_hosts, *where, *launcher, "--", "python", TRAINS)
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = found_by_rank(done.stdout)
    assert_places(ranks, hosts)
    assert [rank["node"] for rank in ranks] == [int(host[-1]) - 1 for host in hosts]
    assert max(rank["error"] for rank in ranks) < 1e-12
    assert re.search(r"first step \d+\.\d s after the start", done.stderr)


def assert_bytes_of_a_ring(cluster: ClusterHosts, launcher: tuple[str, ...], hosts: int) -> None:
    where = ("--hosts", ",".join(f"host{number}" for number in range(1, hosts + 1)))
    done = launch(cluster, *where, *launcher, "--", "python", BYTES_SENT)
    assert done.returncode == 0, done.stdout + done.stderr
    ranks = found_by_rank(done.stdout)
    assert len(ranks) == hosts and all(rank["right"] for rank in ranks)
    ring = 2 * (hosts - 1) / hosts
    for rank in ranks:  # with what TCP adds
        assert 0.99 * ring < rank["sent"] < 1.1 * ring, ranks


def test_three_hosts_with_a_rank_each_send_no_more_than_a_ring(cluster_hosts: ClusterHosts) -> None:
    """Without a rule from us, Open MPI 5 sends nearly twice as much from one of them."""
    assert_bytes_of_a_ring(cluster_hosts, LAUNCHERS["Open MPI 5"], 3)


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [2, 3, 4])
def test_hosts_with_a_rank_each_send_no_more_than_a_ring(
    cluster_hosts: ClusterHosts, launcher: tuple[str, ...], hosts: int
) -> None:
    assert_bytes_of_a_ring(cluster_hosts, launcher, hosts)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(TELLS_ITS_PLACE, id="places"),
        pytest.param(TRAINS, id="training", marks=pytest.mark.slow),
    ],
)
def test_the_first_failing_rank_s_code_and_words(
    cluster_hosts: ClusterHosts, launcher: tuple[str, ...], program: str
) -> None:
    words = ("--hosts", "host1:2,host2:2", *launcher, "--", "python", program, "3", "7")
    done = launch(cluster_hosts, *words)
    assert done.returncode == 7, done.stdout + done.stderr
    end = done.stderr[done.stderr.rindex("rank 3 failed first with exit code 7") :]
    assert "these are my last words" in end
    nothing_is_left(cluster_hosts)


def nothing_is_left(cluster: ClusterHosts, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while True:
        left = {host: cluster.processes(host) for host in cluster.hosts if cluster.processes(host)}
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert not left


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_rank_on_every_host(
    cluster_hosts: ClusterHosts, launcher: tuple[str, ...], signum: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "sleep.py").write_text(
        # In one piece: without a buffer print() writes the line's end by itself, and Open MPI 4
        # may then tag the two as two lines.
        "import signal, sys, time\nsignal.signal(2, signal.SIG_IGN)\nsys.stdout.write('here\\n')\n"
        "sys.stdout.flush()\ntime.sleep(300)\n"
    )
    words = ("--hosts", "host1:2,host2:2", *launcher, "--", "python", str(tmp_path / "sleep.py"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    job = cluster_hosts.popen("login", [HVDTOOLS, "launch", *words], env=ENV, **pipes)
    assert job.stdout is not None and job.stderr is not None
    assert [job.stdout.readline()[4:] for _ in range(4)] == ["here\n"] * 4
    launchers = [
        found.pid for found in cluster_hosts.processes("login") if HVDTOOLS in found.argv[:2]
    ]
    assert len(launchers) == 1
    os.kill(launchers[0], signum)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 128 + signum
    assert said.endswith("interrupted: every rank is stopped.\n")
    nothing_is_left(cluster_hosts)


def test_hosts_that_cannot_be_used_are_named_and_nothing_starts(
    cluster_hosts: ClusterHosts, tmp_path: Path
) -> None:
    cluster_hosts.cut("host2")
    private = cluster_hosts.exec("login", ["mktemp", "-d", "-p", "/tmp"]).stdout.strip()
    for hosts, folder, says in (
        ("host1:1,hots2:1", None, "ssh does not reach hots2"),
        ("host1:1,host2:1", None, "ssh does not reach host2"),
        ("host1:1", private, f"host1 has no folder {private}"),
    ):
        command = [HVDTOOLS, "launch", "--hosts", hosts, "--", "touch", str(tmp_path / "made")]
        done = cluster_hosts.exec("login", command, env=ENV, timeout_s=60, cwd=folder)
        assert done.returncode == 2, done.stdout + done.stderr
        assert says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_the_interface_is_the_one_that_was_named(cluster_hosts: ClusterHosts) -> None:
    """Each host has a second NIC, which leads nowhere and comes first by name."""
    for host in ("host1", "host2"):
        cluster_hosts.add_nic(host, "docker0", cidr="172.17.0.1/16", cabled=False)
        cluster_hosts.loopback_name(host)
    for launcher in (LAUNCHERS["Open MPI 5"], LAUNCHERS["horovodrun"]):
        words = ("--hosts", "host1:1,host2:1", "--interface", "eth0", *launcher)
        done = launch(cluster_hosts, *words, "--", "python", TRAINS)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [rank["size"] for rank in found_by_rank(done.stdout)] == [2, 2]


def test_a_file_for_each_rank_and_a_restart(cluster_hosts: ClusterHosts, tmp_path: Path) -> None:
    once = tmp_path / "once.sh"
    once.write_text(
        f"echo rank $OMPI_COMM_WORLD_RANK; test -e {tmp_path}/failed && exit\n"
        f"test $OMPI_COMM_WORLD_RANK = 1 && sleep 2 && touch {tmp_path}/failed && exit 4\n"
        "sleep 60\n"
    )
    logs = tmp_path / "logs"
    words = ("--hosts", "host1:1,host2:1", "--launcher", "mpirun", "--restarts", "2")
    command = (*words, "--log-dir", str(logs), "--", "sh", str(once))
    done = launch(cluster_hosts, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "restart 1 of 2" in done.stderr and "restart 2 of 2" not in done.stderr
    texts = {file.name: file.read_text() for file in logs.iterdir()}
    assert texts == {
        "rank-0.log": "rank 0\n",
        "rank-1.log": "rank 1\n",
        "rank-0.restart-1.log": "rank 0\n",
        "rank-1.restart-1.log": "rank 1\n",
    }
    again = launch(cluster_hosts, *command)
    assert again.returncode == 2 and "holds the output of an earlier job" in again.stderr
    assert {file.name: file.read_text() for file in logs.iterdir()} == texts
