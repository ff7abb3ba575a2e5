"""MPIJobs that run: the pods' own command lines, on hosts with ssh between them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import kubernetes_operator
import pytest
import yaml
from cluster_hosts import ClusterHosts
from cluster_requirements import why_no_cluster
from kubernetes_operator import Operator
from paths import SCRIPTS

from hvdtools.launch.schedulers.kubernetes.manifest import submission
from hvdtools.launch.schedulers.kubernetes.request import Kubernetes
from hvdtools.launch.spec import JobSpec

REPORT = """
import os, socket, sys, torch, horovod.torch as hvd
hvd.init()
total = hvd.allreduce(torch.tensor([hvd.rank() + 1.0]), op=hvd.Sum).item()
expected = os.environ["HVDTOOLS_SIZE"], os.environ["HVDTOOLS_NODES"]
place = hvd.rank(), socket.gethostname(), os.getuid(), hvd.local_rank()
print(*place, total, *expected, *sys.argv[1:])
"""
INIT = "import hvdtools.torch as hvt; hvt.init(); print('trained')"


@pytest.fixture
def cluster() -> Iterator[ClusterHosts]:
    """Its own, because pods have names and users of their own."""
    reason = why_no_cluster()
    if reason:
        pytest.skip(reason)
    cluster = ClusterHosts.up(f"pods-{os.getpid()}", hosts=2)
    yield cluster
    cluster.down()


def job(program: str, *words: str, **fields: Any) -> dict[str, Any]:
    spec = JobSpec(
        ("python", "-c", program, *words),
        ranks=3,
        nodes=2,
        env=(("OMP_NUM_THREADS", "1"),),
        on=Kubernetes(image="made-here", **fields),
    )
    tree: dict[str, Any] = yaml.safe_load(submission(spec).document)
    return tree


@pytest.mark.parametrize(("as_root", "uid"), [(False, 1000), (True, 0)])
def test_ranks_train_on_the_workers(cluster: ClusterHosts, as_root: bool, uid: int) -> None:
    pods = Operator(cluster, job(REPORT, "$(HOME) 'x'", run_as_root=as_root), "train")
    with pods.workers_running():
        done = pods.launch()
    assert done.returncode == 0, done.stderr
    lines = sorted(line.partition(">: ")[2] for line in done.stdout.splitlines() if ">: " in line)
    assert lines == [
        f"0 train-worker-0 {uid} 0 6.0 3 2 $(HOME) 'x'",
        f"1 train-worker-0 {uid} 1 6.0 3 2 $(HOME) 'x'",
        f"2 train-worker-1 {uid} 0 6.0 3 2 $(HOME) 'x'",
    ]


def as_in_an_image_with_mpich(cluster: ClusterHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """MPICH first on PATH, and what launch/Dockerfile tells ssh, which Hydra cannot be told."""
    programs = cluster.shared / "mpich"
    programs.mkdir()
    for program in ("mpirun.mpich", "hydra_pmi_proxy"):
        path = shutil.which(program)
        if path is None:
            pytest.skip("MPICH is not installed here.")
        (programs / program.removesuffix(".mpich")).symlink_to(path)
    monkeypatch.setattr(kubernetes_operator, "PATH", f"{programs}:{kubernetes_operator.PATH}")
    dockerfile = (SCRIPTS / "Dockerfile").read_text()
    (written,) = re.findall(r"RUN printf '%s\\n' (.*?) > /etc/ssh", dockerfile, re.DOTALL)
    lines = shlex.split(written.replace("\\\n", " "))
    for host in cluster.hosts:
        file = cluster.path(host, "/etc/ssh/ssh_config")
        # The hosts of the test cluster know one another's keys; those of a cluster do not.
        file.write_text("\n".join([*lines, "GlobalKnownHostsFile /dev/null", ""]))
        file.chmod(0o644)


def test_mpich_starts_ranks_that_meet_over_gloo(
    cluster: ClusterHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_in_an_image_with_mpich(cluster, monkeypatch)
    pods = Operator(cluster, job(INIT, mpi="MPICH"), "train")
    with pods.workers_running():
        done = pods.launch()
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"[{n}]<stdout>:trained" for n in range(3)]


def test_ranks_that_all_landed_on_the_launcher_end_the_job(cluster: ClusterHosts) -> None:
    """What Open MPI 5 does with the operator's own variables alone."""
    tree = job(INIT)
    container = tree["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]
    container["env"] = [
        each for each in container["env"] if each["name"] != "PRTE_MCA_prte_default_hostfile"
    ]
    at = container["args"].index("--map-by")
    container["args"][at + 1] = "slot:OVERSUBSCRIBE"  # fewer cores here than ranks
    pods = Operator(cluster, tree, "train")
    with pods.workers_running():
        done = pods.launch()
    assert done.returncode != 0 and "trained" not in done.stdout
    assert "HVDTOOLS_NODES" in done.stdout + done.stderr
