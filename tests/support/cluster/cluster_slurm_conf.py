"""slurm.conf and its companions for a test cluster whose nodes have 4 CPUs and 4 GPUs on paper.

Options: https://slurm.schedmd.com/archive/slurm-22.05.8/slurm.conf.html
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from cluster_network import LOGIN
from cluster_state import Place

CPUS = 4
GPUS = 4
MEMORY_MB = 4000
SHORT_MINUTES = 1

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={login}
SlurmUser=root
# How long a requeued job waits before it may start again, too (120 s by default).
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={log}/slurmctld
SlurmdLogFile={log}/slurmd.%n
# No cgroups and no binding: a few real cores play those of all nodes.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
MpiDefault=none
# What srun --resv-ports hands out.
MpiParams=ports=12000-12999
JobRequeue=1
MinJobAge=300
# A job that no partition can ever run is refused at once, not left waiting.
EnforcePartLimits=ALL
PreemptType=preempt/none
# Quick reactions.
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmdTimeout=10
KillWait=3
ReturnToService=2
NodeName={nodes} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus}
PartitionName=main Nodes=ALL Default=YES State=UP MaxTime=INFINITE
PartitionName=short Nodes=ALL State=UP MaxTime={short}
"""
# slurmd loads a cgroup plugin in any case, and its choice needs a systemd that is not on
# the hosts; this one, named outright, loads and is not used.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"
# A folder of the node's own, since its names hold nothing of the node.
MPI_CONF = "PMIxCliTmpDirBase=/tmp\n"


def write_slurm(place: Place, hosts: Sequence[str]) -> None:
    """Write the configuration into every host's /etc/slurm, and a new key for munge."""
    folder = place.folder / "slurm"
    nodes = [host for host in hosts if host != LOGIN]
    names = ",".join(nodes)
    (folder / "state").mkdir(parents=True)
    for node in nodes:
        (folder / "spool" / node).mkdir(parents=True)
    for n in range(GPUS):
        # gres.conf wants character devices; these are as /dev/null is.
        os.mknod(folder / f"gpu{n}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    conf = SLURM_CONF.format(
        login=LOGIN,
        folder=folder,
        log=place.log,
        nodes=names,
        cpus=CPUS,
        memory=MEMORY_MB,
        gpus=GPUS,
        short=SHORT_MINUTES,
    )
    gres = f"NodeName={names} Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n"
    for host in hosts:
        etc = place.of(host) / "etc" / "slurm"
        for name, text in {
            "slurm.conf": conf,
            "gres.conf": gres,
            "cgroup.conf": CGROUP_CONF,
            "mpi.conf": MPI_CONF,
        }.items():
            (etc / name).write_text(text)
