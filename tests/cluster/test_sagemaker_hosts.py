"""A training job on two hosts of their own: entry, init() and Horovod, as on SageMaker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_hosts import ClusterHosts
from cluster_requirements import why_no_cluster

HOSTS = ("host1", "host2")
# 127.0.1.1 for a host's own name is what Gloo alone would stumble over.
TRAIN = """
import sys, torch, hvdtools.torch as hvt
topology = hvt.init()
if topology.rank == 3 and sys.argv[1:]:
    sys.exit(int(sys.argv[1]))
total = hvt.average(float(topology.rank)) * topology.size
print(topology.rank, topology.local_rank, topology.node, topology.nodes, total)
"""
MAIN = """
import sys
from pathlib import Path
from hvdtools.launch.schedulers.sagemaker.entry import main
sys.exit(main(sys.argv[2:], Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterHosts]:
    reason = why_no_cluster()
    if reason:
        pytest.skip(reason)
    cluster = ClusterHosts.up(f"sagemaker-{os.getpid()}", hosts=len(HOSTS))
    for host in HOSTS:
        cluster.loopback_name(host)
    yield cluster
    cluster.down()


def start(cluster: ClusterHosts, folder: Path, host: str, *words: str) -> subprocess.Popen[str]:
    ml = folder / host
    (ml / "input" / "config").mkdir(parents=True)
    said = {"current_host": host, "hosts": list(HOSTS), "network_interface_name": "eth0"}
    (ml / "input" / "config" / "resourceconfig.json").write_text(json.dumps(said))
    train = ["--ranks-per-node", "2", "--", sys.executable, "-c", TRAIN, *words]
    return cluster.popen(
        host,
        [sys.executable, "-c", MAIN, str(ml), *train],
        {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ranks_of_both_hosts_train_together(cluster: ClusterHosts) -> None:
    started = [start(cluster, cluster.shared / "good", host) for host in HOSTS]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    lines = sorted(
        line for output, _ in said for line in output.splitlines() if "hvdtools" not in line
    )
    assert lines == [f"[{n}] {n} {n % 2} {n // 2} 2 6.0" for n in range(4)]


def test_a_rank_that_fails_ends_both_hosts(cluster: ClusterHosts) -> None:
    started = [start(cluster, cluster.shared / "bad", host, "5") for host in HOSTS]
    said = [process.communicate(timeout=120) for process in started]
    first, second = (process.returncode for process in started)
    assert (first != 0, second) == (True, 5), said
    reasons = [(cluster.shared / "bad" / host / "output" / "failure").read_text() for host in HOSTS]
    assert "HorovodInternalError" in reasons[0]
    assert reasons[1].startswith("rank 3 ended with exit code 5")
    assert not cluster.processes("host1") and not cluster.processes("host2")
