"""The MPI operator and the kubelet, emulated on a test cluster: an MPIJob becomes processes.

What each does was read in kubeflow/mpi-operator (pkg/controller/mpi_job_controller.go). The
launcher is `login`, worker N is `host<N+1>`; names are known by DNS, here /etc/hosts, as the
operator's Service makes them. A container's image is this machine.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster_hosts import ClusterHosts
from cluster_network import LOGIN, address

NAMESPACE = "ml"
# What an image brings: the programs, and one user beside root.
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin"
PASSWD = "root:x:0:0::/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/bin/sh\n"
MPIUSER = "mpiuser:x:1000:1000::/home/mpiuser:/bin/sh\n"
READY_S = 20.0


def expand(text: str, variables: Mapping[str, str]) -> str:
    """What Kubernetes makes of $(NAME) and $$ (third_party/forked/golang/expansion/expand.go)."""

    def replaced(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replaced, text)


def _as_user(uid: int) -> list[str]:
    if uid == 0:
        return []
    # The image is this machine, whose Python may lie where only root may look, access(2) too.
    look = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    ids = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return ["setpriv", *ids, *look, "--securebits", "+no_setuid_fixup"]


class Operator:
    """Plays one MPIJob on `cluster`."""

    def __init__(self, cluster: ClusterHosts, job: dict[str, Any], name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.spec = job["spec"]
        replicas = self.spec["mpiReplicaSpecs"]
        self.workers = [f"{name}-worker-{n}" for n in range(replicas["Worker"]["replicas"])]
        self.hosts = [f"host{n + 1}" for n in range(len(self.workers))]
        self.container = {
            role: replicas[role]["template"]["spec"]["containers"][0] for role in replicas
        }
        self.user = {
            role: replicas[role]["template"]["spec"]["securityContext"]["runAsUser"]
            for role in replicas
        }
        self.config = cluster.shared / "etc-mpi"  # stands for /etc/mpi, which is no folder here
        self._daemons: list[subprocess.Popen[str]] = []

    @contextmanager
    def workers_running(self) -> Iterator[None]:
        """Make every pod's surroundings, start the workers, wait until each is ready."""
        try:
            self._start_workers()
            yield
        finally:
            for daemon in self._daemons:
                daemon.terminate()
                daemon.communicate(timeout=READY_S)

    def _start_workers(self) -> None:
        self.config.mkdir()
        slots = self.spec["slotsPerWorker"]
        separator = " slots=" if self.spec["mpiImplementation"] == "OpenMPI" else ":"
        lines = [f"{self._full(worker)}{separator}{slots}\n" for worker in self.workers]
        (self.config / "hostfile").write_text("".join(lines))
        keys = self.cluster.shared / "keys"
        keys.mkdir()
        key = keys / "id_rsa"
        make = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-N", "", "-f", str(key)]
        subprocess.run(make, check=True, timeout=30)
        (keys / "authorized_keys").write_text((keys / "id_rsa.pub").read_text())
        (self.cluster.shared / "passwd").write_text(PASSWD + MPIUSER)
        names = [f"{self.name}-launcher", *self.workers]
        for host, name in zip((LOGIN, *self.hosts), names, strict=True):
            self._furnish(host, name)
        for host in self.hosts:
            self._daemons.append(self._start(host, "Worker", {}))
        for host in self.hosts:
            self._wait_for(host)

    def launch(self, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the launcher to its end."""
        mpi = {
            "OpenMPI": {
                "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
                "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
                "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
                "OMPI_MCA_orte_set_default_slots": str(self.spec["slotsPerWorker"]),
            },
            "MPICH": {
                "HYDRA_HOST_FILE": str(self.config / "hostfile"),
                "HYDRA_LAUNCH_EXTRA_ARGS": "-o ConnectionAttempts=10",
            },
        }[self.spec["mpiImplementation"]]
        process = self._start(LOGIN, "Launcher", {"K_MPI_JOB_ROLE": "launcher", **mpi})
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(process.communicate()) from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def _full(self, pod: str) -> str:
        return f"{pod}.{self.name}.{NAMESPACE}.svc"

    def _furnish(self, host: str, pod: str) -> None:
        """The pod's name, its user, and the secret with the job's keys."""
        home = Path(self.spec["sshAuthMountPath"])
        is_root = home == Path("/root/.ssh")
        script = f"""
            hostname {pod}
            mount --bind {self.cluster.shared}/passwd /etc/passwd
            mount -t tmpfs tmpfs /home; mkdir /home/mpiuser; chown 1000:1000 /home/mpiuser
            mkdir -p {home}; {"mount -t tmpfs tmpfs /root/.ssh" if is_root else ":"}
            cp {self.cluster.shared}/keys/* {home}
            chown root:{0 if is_root else 1000} {home}/*; chmod {600 if is_root else 640} {home}/*
            chmod 1777 {home}
        """
        done = self.cluster.exec(host, ["sh", "-ec", script])
        assert done.returncode == 0, done.stderr
        for worker, at in zip(self.workers, self.hosts, strict=True):
            # A pod finds its own short name too.
            short = f" {worker}" if at == host else ""
            line = f"{address(at)} {self._full(worker)}{short}"
            self.cluster.add_line_to_etc_hosts(host, line)

    def _start(self, host: str, role: str, of_operator: dict[str, str]) -> subprocess.Popen[str]:
        container = self.container[role]
        variables: dict[str, str] = {}
        for each in container.get("env", []):
            value = expand(each["value"], variables) if "value" in each else address(host)
            variables[each["name"]] = value.replace("/etc/mpi", str(self.config))
        variables |= of_operator
        words = [*container["command"], *container.get("args", [])]
        become = _as_user(self.user[role])
        home = str(Path(self.spec["sshAuthMountPath"]).parent)
        own = [f"{name}={value}" for name, value in variables.items()]
        clean = ["env", "-i", f"PATH={PATH}", f"HOME={home}", *own]
        argv = [*become, *clean, *(expand(word, variables) for word in words)]
        pipe = subprocess.PIPE
        return self.cluster.popen(host, argv, cwd=home, stdout=pipe, stderr=pipe)

    def _wait_for(self, host: str) -> None:
        port = self.container["Worker"]["startupProbe"]["tcpSocket"]["port"]
        deadline = time.monotonic() + READY_S
        probe = f"exec 3<>/dev/tcp/{address(host)}/{port}"
        while self.cluster.exec(LOGIN, ["bash", "-c", probe]).returncode != 0:
            assert time.monotonic() < deadline, [d.poll() for d in self._daemons]
            time.sleep(0.2)
