"""A real Slurm on the hosts of a test cluster: slurmctld on `login`, slurmd on each host."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster_hosts import ClusterHosts
from cluster_network import LOGIN
from cluster_pmix import libpmix_mount
from cluster_processes import NO_VARIABLES
from cluster_slurm_conf import write_slurm
from cluster_state import ClusterError, wait_for

OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
}  # fmt: skip
POLL_S = 0.2


@dataclass(frozen=True)
class JobEnd:
    """How a job ended: Slurm's word for it, its exit code, the signal that ended it (0: none)."""

    state: str
    exit_code: int
    signal: int


class SlurmCluster:
    """Slurm on the hosts of `cluster`, which `up` has started. Nodes have their hosts' names."""

    def __init__(self, cluster: ClusterHosts) -> None:
        self.cluster = cluster
        self.nodes = tuple(host for host in cluster.hosts if host != LOGIN)
        if not is_on(cluster):
            raise ClusterError(f"there is no Slurm on the test cluster {cluster.place.name!r}.")
        cluster.on_boot.append(self.start)

    @classmethod
    def up(cls, cluster: ClusterHosts) -> SlurmCluster:
        """Start Slurm on hosts that have none, and wait until every node is idle."""
        if is_on(cluster):
            raise ClusterError(f"Slurm is on the test cluster {cluster.place.name!r} already.")
        write_slurm(cluster.place, cluster.hosts)
        slurm = cls(cluster)
        for host in cluster.hosts:
            slurm.start(host)
        slurm.wait_idle()
        return slurm

    def start(self, host: str) -> None:
        """Start the daemons of `host`, after a boot for instance."""
        place = self.cluster.place
        munged = [
            "/usr/sbin/munged",
            f"--key-file={place.folder}/slurm/munge.key",
            f"--log-file={place.log}/munged.{host}",
            f"--seed-file={place.folder}/slurm/munge.{host}.seed",
        ]
        slurm = ["/usr/sbin/slurmctld"] if host == LOGIN else ["/usr/sbin/slurmd", "-N", host]
        for argv in filter(None, (libpmix_mount(place.folder / "slurm"), munged, slurm)):
            done = self.cluster.exec(host, argv, cwd="/")
            if done.returncode:
                raise ClusterError(f"{argv[0]} on {host} failed: {done.stderr} (logs: {place.log})")

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float = 60,
        env: Mapping[str, str] = NO_VARIABLES,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where a user would, on `login`, as `ClusterHosts.exec` does."""
        return self.cluster.exec(LOGIN, argv, timeout_s=timeout_s, env=env, cwd=cwd)

    def submit(
        self, argv: Sequence[str | Path], *, env: Mapping[str, str] = NO_VARIABLES,
        cwd: str | Path | None = None,
    ) -> str:  # fmt: skip
        """`sbatch` with these arguments. Returns the job's id. Raises ClusterError if refused."""
        done = self.run(["sbatch", "--parsable", *argv], env=env, cwd=cwd)
        if done.returncode:
            raise ClusterError(done.stderr.strip())
        return done.stdout.strip().split(";")[0]

    def show(self, job_id: str | int) -> dict[str, str]:
        """What `scontrol show job` says of one job: field -> value."""
        done = self.run(["scontrol", "--oneliner", "show", "job", str(job_id)])
        if done.returncode:
            raise ClusterError(f"job {job_id}: {done.stderr.strip()}")
        # A value may hold spaces; it ends where the next field begins.
        fields = re.split(r"(?:^|\s)(?=[A-Z]\S*?=)", done.stdout.split("\n")[0])
        return dict(field.split("=", 1) for field in fields if "=" in field)

    def state(self, job_id: str | int) -> str:
        return self.show(job_id)["JobState"]

    def wait(self, job_id: str | int, timeout_s: float = 60) -> JobEnd:
        """Wait until a job is over. Raises TimeoutError, with what Slurm says of the job."""
        job = self._wait_for(job_id, OVER, timeout_s)
        code, signal = job["ExitCode"].split(":")
        return JobEnd(job["JobState"], int(code), int(signal))

    def wait_for(self, job_id: str | int, state: str, timeout_s: float = 60) -> None:
        """Wait until a job is in this state, RUNNING for instance. Raises TimeoutError."""
        self._wait_for(job_id, {state}, timeout_s)

    def cancel_all(self, timeout_s: float = 30) -> None:
        """End all jobs and wait until the nodes are rid of them."""
        if self._says("squeue", "--noheader"):
            self.run(["scancel", "--user=root"])
            self.run(["scancel", "--user=root", "--signal=KILL"])
        wait_for(lambda: not self._says("squeue", "--noheader"), "an empty queue", timeout_s)

    def wait_idle(self, timeout_s: float = 60) -> None:
        """Wait until every node is idle. Raises ClusterError."""
        argv = ("sinfo", "--noheader", "--partition=main", "--states=idle", "--format=%D %t")
        all_idle = f"{len(self.nodes)} idle"
        wait_for(lambda: self._says(*argv) == all_idle, "idle state of all nodes", timeout_s)

    def heal(self) -> None:
        """Undo what was disturbed, end all jobs, and put nodes to work again."""
        self.cluster.heal()
        self.cancel_all()
        drained = self._says("sinfo", "--noheader", "--states=drain", "--Node", "--format=%N")
        for node in set(drained.split()):
            self.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], cwd="/")
        self.wait_idle()

    def _says(self, *argv: str) -> str:
        done = self.run(argv, cwd="/")
        return done.stdout.strip() if done.returncode == 0 else f"{done.stderr.strip()}?"

    def _wait_for(self, job_id: str | int, states: set[str], timeout_s: float) -> dict[str, str]:
        until = time.monotonic() + timeout_s
        while (job := self.show(job_id))["JobState"] not in states:
            if time.monotonic() > until:
                raise TimeoutError(f"job {job_id} is not {' or '.join(sorted(states))}: {job}")
            time.sleep(POLL_S)
        return job


def is_on(cluster: ClusterHosts) -> bool:
    return (cluster.place.folder / "slurm").is_dir()
