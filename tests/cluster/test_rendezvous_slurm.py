"""`srun python train.py` on a real Slurm, and an mpirun over ssh, on several hosts.

No ssh in the first case, and no MPI in either.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster_hosts import ClusterHosts
from cluster_pmix import libpmix
from cluster_slurm import SlurmCluster
from paths import PROGRAMS

TRAIN = (sys.executable, str(PROGRAMS / "rank_rendezvous.py"))
RENDEZVOUS_ONLY = (sys.executable, str(PROGRAMS / "rank_rendezvous_only.py"))
BESIDE_PYTHON = Path(sys.executable).with_name("mpirun")
ENV = {
    "OMP_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
TIMEOUT_S = 150
# Else a second srun finds these still busy with ending the first, and takes others.
BOTH = ("-N2", "-w", "host1,host2")


def srun(slurm: SlurmCluster, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return slurm.run(["srun", *argv], timeout_s=TIMEOUT_S, env={**ENV, **env})


def read(text: str) -> list[dict[str, Any]]:
    """What the ranks printed, in the order of ranks."""
    lines = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("SEEN ")]
    return sorted(lines, key=lambda line: int(line.get("rank", line.get("HOROVOD_RANK", 0))))


def seen(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return read(ended.stdout)


def hosts_of(lines: list[dict[str, Any]]) -> list[str]:
    return [line["HOROVOD_HOSTNAME"] for line in lines]


def assert_trained(lines: list[dict[str, Any]], hosts: list[str]) -> None:
    """Ranks 0, 1, ... ran on these hosts, and trained what one process trains."""
    assert [line["rank"] for line in lines] == list(range(len(hosts)))
    assert hosts_of(lines) == hosts
    names = list(dict.fromkeys(hosts))
    for rank, line in enumerate(lines):
        assert (line["node"], line["nodes"]) == (names.index(hosts[rank]), len(names))
        assert line["local_rank"] == hosts[:rank].count(hosts[rank])
        assert line["local_size"] == hosts.count(hosts[rank])
        assert line["HOROVOD_GLOO_IFACE"] == ("lo" if len(names) == 1 else "eth0")
        assert line["difference"] < 1e-12


def require_pmix() -> None:
    if libpmix() is None:
        pytest.skip("srun --mpi=pmix is missing here: apt-get install libpmix2")


def test_srun_trains_with_torch(slurm_cluster: SlurmCluster) -> None:
    ended = srun(slurm_cluster, "-N2", "--ntasks-per-node=2", *TRAIN)
    assert_trained(seen(ended), ["host1", "host1", "host2", "host2"])
    words = "4 ranks on 2 hosts (host1: 0-1, host2: 2-3), started by srun, over Gloo"
    assert words in ended.stderr


def test_srun_trains_with_tensorflow(slurm_cluster: SlurmCluster) -> None:
    ended = srun(slurm_cluster, "-N2", "--ntasks-per-node=1", *TRAIN, "tensorflow")
    assert_trained(seen(ended), ["host1", "host2"])


def test_three_and_one(slurm_cluster: SlurmCluster) -> None:
    """Local rank 0 has a cross group of two hosts, 1 and 2 of one."""
    lines = seen(srun(slurm_cluster, "-N2", "-n4", *TRAIN))
    assert_trained(lines, ["host1", "host1", "host1", "host2"])
    assert [line["HOROVOD_CROSS_SIZE"] for line in lines] == ["2", "1", "1", "2"]


def test_ranks_dealt_out_to_hosts(slurm_cluster: SlurmCluster) -> None:
    argv = ("-N2", "--ntasks-per-node=2", "-m", "cyclic", *TRAIN)
    assert_trained(seen(srun(slurm_cluster, *argv)), ["host1", "host2", "host1", "host2"])


@pytest.mark.parametrize("mpi", ["none", "pmi2", "pmix"])
@pytest.mark.parametrize("layout", ["block", "cyclic", "one host", "one task"])
def test_every_plugin_and_layout(slurm_cluster: SlurmCluster, mpi: str, layout: str) -> None:
    if mpi == "pmix":
        require_pmix()
    argv, hosts = {
        "block": (("-N2", "-n4"), ["host1"] * 3 + ["host2"]),
        "cyclic": (("-N3", "-n4", "-m", "cyclic"), ["host1", "host2", "host3", "host1"]),
        "one host": (("-N1", "-n3"), ["host1"] * 3),
        "one task": (("-N1", "-n1"), []),
    }[layout]
    lines = seen(srun(slurm_cluster, f"--mpi={mpi}", *argv, *RENDEZVOUS_ONLY))
    assert {line["launcher"] for line in lines} == {"srun"}
    if hosts:
        assert hosts_of(lines) == hosts
    else:  # rank 0 of 1 has nobody to meet
        assert [line.get("HOROVOD_RANK") for line in lines] == [None]


def test_rank_0_on_a_later_node(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    """Slurm's list of nodes is sorted, whatever the user's file says."""
    file = tmp_path / "hosts"
    file.write_text("host3\nhost1\nhost3\nhost2\n")
    ended = srun(
        slurm_cluster, "-n4", "-m", "arbitrary", *RENDEZVOUS_ONLY, SLURM_HOSTFILE=str(file)
    )
    assert hosts_of(seen(ended)) == ["host3", "host1", "host3", "host2"]


def test_ports_that_slurm_reserved(slurm_cluster: SlurmCluster) -> None:
    lines = seen(srun(slurm_cluster, "-N2", "-n2", "--resv-ports=2", *RENDEZVOUS_ONLY))
    assert {12000 <= int(line["HOROVOD_GLOO_RENDEZVOUS_PORT"]) < 13000 for line in lines} == {True}


def test_hosts_that_know_themselves_by_loopback(slurm_cluster: SlurmCluster) -> None:
    """Debian's 127.0.1.1 for the own name, and a docker0 with one address on every host."""
    for host in ("host1", "host2"):
        slurm_cluster.cluster.loopback_name(host)
        slurm_cluster.cluster.add_nic(host, "docker0", "172.17.0.1/16", cabled=False)
    for mpi in ("none", "pmi2"):
        lines = seen(
            srun(slurm_cluster, f"--mpi={mpi}", *BOTH, "--ntasks-per-node=2", *RENDEZVOUS_ONLY)
        )
        assert {line["HOROVOD_GLOO_IFACE"] for line in lines} == {"eth0"}
        addresses = {line["HOROVOD_GLOO_RENDEZVOUS_ADDR"] for line in lines[2:]}
        assert addresses == {"10.77.0.1"}
    ended = srun(slurm_cluster, *BOTH, "--ntasks-per-node=2", *TRAIN)
    assert_trained(seen(ended), ["host1"] * 2 + ["host2"] * 2)


def test_the_user_names_the_network(slurm_cluster: SlurmCluster) -> None:
    for host in ("host1", "host2"):
        slurm_cluster.cluster.add_nic(host, "eth1")
    named = {"HVDTOOLS_INTERFACE": "eth1"}
    lines = seen(
        srun(
            slurm_cluster,
            "--mpi=pmi2",
            "-N2",
            "-n2",
            "--ntasks-per-node=1",
            *RENDEZVOUS_ONLY,
            **named,
        )
    )
    assert {line["HOROVOD_GLOO_IFACE"] for line in lines} == {"eth1"}
    assert lines[1]["HOROVOD_GLOO_RENDEZVOUS_ADDR"].startswith("10.77.1.")
    ended = srun(slurm_cluster, *BOTH, "-n2", *RENDEZVOUS_ONLY, HVDTOOLS_INTERFACE="eth7")
    assert "'eth7': choose one of eth0, eth1, lo" in ended.stdout
    assert ended.returncode != 0


def test_steps_of_a_batch_job(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    """Smaller than the job, elsewhere than on its first node, two programs in one, and none."""
    program = shlex.join(RENDEZVOUS_ONLY)
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/bin/sh\n"
        f"srun -N2 -n2 --ntasks-per-node=1 {program}\n"
        f"srun -N1 -n2 -w host2 sh -c {shlex.quote(f'{program} && {program}')}\n"
        f"{program}\n"
    )
    argv = ["-N4", "--ntasks-per-node=2", f"--output={tmp_path}/out.txt", script]
    job = slurm_cluster.submit(argv, env=ENV, cwd=tmp_path)
    assert slurm_cluster.wait(job, TIMEOUT_S).state == "COMPLETED"
    lines = read((tmp_path / "out.txt").read_text())
    sizes = sorted(str(line.get("HOROVOD_SIZE")) for line in lines)
    assert sizes == ["2"] * 6 + ["None"]
    assert sorted(line.get("HOROVOD_HOSTNAME", "") for line in lines) == [
        "", "host1", *["host2"] * 5,
    ]  # fmt: skip


@pytest.mark.parametrize("mpi", ["pmi2", "pmix"])
def test_two_programs_in_one_step(slurm_cluster: SlurmCluster, mpi: str) -> None:
    if mpi == "pmix":
        require_pmix()
    twice = f"{shlex.join(RENDEZVOUS_ONLY)} && {shlex.join(RENDEZVOUS_ONLY)}"
    ended = srun(slurm_cluster, f"--mpi={mpi}", "-N2", "-n2", "sh", "-c", twice)
    assert hosts_of(seen(ended)) == ["host1", "host1", "host2", "host2"]


def test_two_steps_at_once(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    step = f"srun --exact -N2 -n2 --ntasks-per-node=1 {shlex.join(RENDEZVOUS_ONLY)} &\n"
    script.write_text(f"#!/bin/sh\n{step}{step}wait\n")
    job = slurm_cluster.submit(["-N2", "-n4", "--output=out.txt", script], env=ENV, cwd=tmp_path)
    assert slurm_cluster.wait(job, TIMEOUT_S).state == "COMPLETED"
    lines = read((tmp_path / "out.txt").read_text())
    assert hosts_of(lines) == ["host1", "host1", "host2", "host2"]
    assert len({line["HOROVOD_GLOO_RENDEZVOUS_PORT"] for line in lines}) == 2


def test_one_torchrun_on_each_node(slurm_cluster: SlurmCluster) -> None:
    torchrun = f"{sys.executable} -m torch.distributed.run --nnodes 2 --nproc-per-node 2"
    meeting = "--rdzv-backend static --master-addr host1 --master-port 29511"
    command = f"{torchrun} {meeting} --node-rank $SLURM_NODEID {TRAIN[1]}"
    ended = srun(slurm_cluster, "-N2", "--ntasks-per-node=1", "sh", "-c", command)
    assert_trained(seen(ended), ["host1", "host1", "host2", "host2"])
    assert "started by torchrun, over Gloo" in ended.stderr


def test_a_rank_that_never_comes_is_named(slurm_cluster: SlurmCluster) -> None:
    late = f"test $SLURM_PROCID = 2 && exec sleep 4; exec {shlex.join(RENDEZVOUS_ONLY)}"
    limit = {"HVDTOOLS_RENDEZVOUS_TIMEOUT_S": "2"}
    ended = srun(slurm_cluster, "-N3", "-n3", "sh", "-c", late, **limit)
    assert ended.stdout.count("Rank 2 of 3 did not reach init() within 2 s") == 2
    assert ended.returncode != 0


def test_a_host_that_is_cut_off(slurm_cluster: SlurmCluster) -> None:
    """A firewall between the hosts looks like this: packets to rank 0's port vanish."""
    drop = "ip route add blackhole 10.77.0.1/32"
    blind = f"test $SLURM_PROCID = 1 && {drop}; exec {shlex.join(RENDEZVOUS_ONLY)}"
    limit = {"HVDTOOLS_RENDEZVOUS_TIMEOUT_S": "2"}
    ended = srun(slurm_cluster, "-N2", "-n2", "sh", "-c", blind, **limit)
    slurm_cluster.cluster.exec("host2", ["ip", "route", "del", "blackhole", "10.77.0.1/32"])
    assert "Rank 1 of 2 did not reach init()" in ended.stdout
    assert "Rank 0 did not answer within 2 s; tried host1:" in ended.stdout
    assert "HVDTOOLS_INTERFACE" in ended.stdout and "firewall" in ended.stdout


def test_mpi_without_pmix_is_refused(slurm_cluster: SlurmCluster) -> None:
    """Open MPI under --mpi=pmi2 is N times rank 0 of 1, and says nothing."""
    mpi = {"HOROVOD_CONTROLLER": "mpi"}
    ended = srun(slurm_cluster, "--mpi=pmi2", "-N1", "-n2", *TRAIN, **mpi)
    assert "srun started rank 1 of 2, but Horovod sees rank 0 of 1" in ended.stderr
    assert "use `srun --mpi=pmix`, or unset HOROVOD_CONTROLLER" in ended.stderr
    assert ended.returncode != 0
    require_pmix()
    ended = srun(slurm_cluster, "--mpi=pmix", "-N1", "-n2", *TRAIN, **mpi)
    assert [line["difference"] < 1e-12 for line in seen(ended)] == [True, True]
    assert "started by srun, over MPI" in ended.stderr


MPIRUNS = {
    "mpich": ["mpirun.mpich", "-launcher", "ssh", "-hosts", "host1,host2", "-ppn", "2", "-n", "3"],
    "open_mpi_4": [
        "mpirun.openmpi", "-H", "host1:2,host2:1", "-x", "HOROVOD_CONTROLLER", "-n", "3",
    ],
    "open_mpi_5": [
        *(str(BESIDE_PYTHON), "--prtemca", "plm", "ssh", "--bind-to", "none"),
        *("-H", "host1:2,host2:1", "-x", "HOROVOD_CONTROLLER", "-n", "3"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("mpirun", MPIRUNS)
def test_mpirun_over_ssh_without_mpi(cluster_hosts: ClusterHosts, mpirun: str) -> None:
    argv = MPIRUNS[mpirun]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"there is no {argv[0]}")
    for host in ("host1", "host2"):
        cluster_hosts.loopback_name(host)
    env = {**ENV, "HOROVOD_CONTROLLER": "gloo"}
    ended = cluster_hosts.exec("login", [*argv, *RENDEZVOUS_ONLY], timeout_s=60, env=env)
    lines = seen(ended)
    assert hosts_of(lines) == ["host1", "host1", "host2"]
    assert {line["HOROVOD_GLOO_IFACE"] for line in lines} == {"eth0"}
