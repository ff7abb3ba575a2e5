"""What each command of `tests/support/cluster/cluster.py` does."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable

from cluster_hosts import ClusterHosts
from cluster_network import LOGIN, address
from cluster_requirements import why_no_cluster
from cluster_slurm import SlurmCluster, is_on
from cluster_state import ClusterError, Place, default_name


def run_command(given: argparse.Namespace) -> int:
    """Run the command on the cluster that HVDTOOLS_TEST_CLUSTER names; returns the exit code."""
    name = default_name()
    if given.command == "up":
        _up(name, given)
    elif given.command == "down":
        Place(name).end()
    elif given.command in ("exec", "run"):
        return _exec(ClusterHosts(name), getattr(given, "host", LOGIN), given.argv)
    else:
        DO[given.command](ClusterHosts(name), given)
    return 0


def _up(name: str, given: argparse.Namespace) -> None:
    reason = why_no_cluster(given.slurm)
    if reason:
        raise ClusterError(reason)
    cluster = ClusterHosts.up(name, given.hosts, given.see)
    if given.slurm:
        try:
            SlurmCluster.up(cluster)
        except BaseException:
            cluster.down()
            raise
    _status(cluster)


def _exec(cluster: ClusterHosts, host: str, argv: list[str]) -> int:
    """Run a command with this process's own streams, and pass on a request to end."""
    argv = argv[1:] if argv[:1] == ["--"] else argv
    if not argv:
        raise ClusterError("which command?")
    process = cluster.popen(host, argv, stdin=None, start_new_session=False)
    # The terminal sends Ctrl-C to the command as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda got, _: process.send_signal(got))
    code = process.wait()
    return code if code >= 0 else 128 - code


def _boot(cluster: ClusterHosts, given: argparse.Namespace) -> None:
    if is_on(cluster):
        SlurmCluster(cluster)  # its daemons boot with the host
    cluster.boot(given.host)


def _heal(cluster: ClusterHosts) -> None:
    cluster.disturbed = True  # by other processes, perhaps
    if is_on(cluster):
        SlurmCluster(cluster).heal()
    else:
        cluster.heal()


def _status(cluster: ClusterHosts) -> None:
    for host in cluster.hosts:
        words = [host, address(host), "up" if cluster.is_up(host) else "down"]
        if cluster.is_up(host) and cluster.is_cut(host):
            words.append("cut")
        print("\t".join(words))
    print(f"shared\t{cluster.shared}")
    if is_on(cluster) and cluster.is_up(LOGIN):
        sys.stdout.write(SlurmCluster(cluster).run(["sinfo"], cwd="/").stdout)


def _processes(cluster: ClusterHosts, host: str) -> None:
    for found in cluster.processes(host):
        print(found.pid, *found.argv)


DO: dict[str, Callable[[ClusterHosts, argparse.Namespace], None]] = {
    "cut": lambda cluster, given: cluster.cut(given.host),
    "join": lambda cluster, given: cluster.join(given.host),
    "crash": lambda cluster, given: cluster.crash(given.host),
    "boot": _boot,
    "nic": lambda cluster, given: cluster.nic(given.host, given.state == "up"),
    "own-name": lambda cluster, given: cluster.loopback_name(given.host, given.is_at == "loopback"),
    "add-nic": lambda cluster, given: cluster.add_nic(
        given.host, given.nic, given.address, cabled=not given.uncabled
    ),
    "shape": lambda cluster, given: cluster.shape(None if given.rate == "off" else given.rate),
    "heal": lambda cluster, given: _heal(cluster),
    "status": lambda cluster, given: _status(cluster),
    "shared": lambda cluster, given: print(cluster.shared),
    "processes": lambda cluster, given: _processes(cluster, given.host),
}
