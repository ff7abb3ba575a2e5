"""That a test cluster goes as it came, and where there can be none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cluster_requirements
import psutil
import pytest
from cluster_hosts import ClusterHosts
from cluster_state import ClusterError, Place, clusters, is_alive
from paths import TESTS

SUPPORT = TESTS / "support" / "cluster"


def test_down_leaves_nothing_after_the_maker_was_killed(cluster_hosts: ClusterHosts) -> None:
    name = f"test-{os.getpid()}"
    maker = (
        f"import os, cluster_hosts; cluster = cluster_hosts.ClusterHosts.up({name!r}, hosts=1)\n"
        "cluster.popen('host1', ['sleep', '300']); cluster.crash('login'); os.kill(os.getpid(), 9)"
    )
    try:
        made = subprocess.run([sys.executable, "-c", maker], cwd=SUPPORT, timeout=60)
        assert made.returncode == -signal.SIGKILL
        cluster = ClusterHosts(name)
        inside = [psutil.Process(pid) for pid in (cluster.init("host1"), cluster.init("switch"))]
        inside += [psutil.Process(found.pid) for found in cluster.processes("host1")]
        assert len(inside) == 3
        with pytest.raises(ClusterError, match=r"is up or has fallen over"):
            ClusterHosts.up(name)
    finally:
        done = subprocess.run(
            [sys.executable, SUPPORT / "cluster.py", "down"],
            env={**os.environ, "HVDTOOLS_TEST_CLUSTER": name},
            timeout=60,
        )
    assert done.returncode == 0
    assert not any(map(is_alive, inside))
    assert Place(name).holders() == {} and name not in clusters()
    assert name not in Path("/proc/self/mounts").read_text()
    # The other cluster goes on.
    assert cluster_hosts.exec("login", ["ssh", "host1", "hostname"]).stdout == "host1\n"


def test_why_there_can_be_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    why = cluster_requirements.why_no_cluster.__wrapped__
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why() == "several hosts on one machine need root."
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setitem(cluster_requirements.FOR_HOSTS, "a-missing-program", "a-package")
    assert why() == "a-missing-program is missing here: apt-get install a-package"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert why() == "several hosts on one machine need Linux's namespaces."


def test_a_bed_has_a_plain_name() -> None:
    for name in ("", "../x", "A", "x" * 33):
        with pytest.raises(ClusterError, match=r"a test cluster's name is"):
            Place(name)
