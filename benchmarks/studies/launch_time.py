"""How long it takes from a command to the first step: bare launchers against `hvdtools launch`.

    python benchmarks/studies/launch_time.py [--repeats 7] [--hosts 2] [--ranks-per-host 2]

Needs what tests/support/cluster/cluster.py needs (Linux, root, Slurm, sshd): it brings up hosts
and Slurm on this machine, and takes them down. Every pair starts the same program, which
trains a small model through hvdtools.torch, with the same Python on the same hosts; the two take
turns within each round. The clock begins just before the command is started and ends when rank 0
has done its first step, by the same clock. Prints one line a pair: medians over repeats, smallest
and largest, and the median of the repeats' ratios.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLONE = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

PROGRAM = """
import time
import torch
import hvdtools.torch as hvt

topology = hvt.init()
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
hvt.prepare(model, optimizer)
model(torch.ones(4, 8)).sum().backward()
optimizer.step()
if topology.rank == 0:
    print("first step at", time.time(), "of", topology.size, flush=True)
"""


@dataclass(frozen=True)
class Pair:
    """Two commands that start the same job: the launcher's own, and ours."""

    name: str
    bare: tuple[str, ...]
    ours: tuple[str, ...]


def pairs(program: str, hosts: Sequence[str], ranks_per_host: int) -> list[Pair]:
    """The pairs that are timed."""
    ranks = str(len(hosts) * ranks_per_host)
    slots = ",".join(f"{host}:{ranks_per_host}" for host in hosts)
    python, launch = str(BIN / "python"), (str(BIN / "hvdtools"), "launch")
    size = ("--nodes", str(len(hosts)), "--ranks-per-node", str(ranks_per_host))
    nodes = ("-N", str(len(hosts)), f"--ntasks-per-node={ranks_per_host}")
    srun = ("srun", "--mpi=pmi2", "--kill-on-bad-exit=1", python, program)
    mpirun = (
        *(str(BIN / "mpirun"), "-n", ranks, "--host", slots, "--prtemca", "plm", "ssh"),
        *("--bind-to", "none", python, program),
    )
    return [
        Pair(
            "mpirun over ssh",
            mpirun,
            (*launch, "--hosts", slots, "--launcher", "mpirun", "--", python, program),
        ),
        Pair(
            "srun in an allocation",
            ("salloc", "--quiet", *nodes, *srun),
            ("salloc", "--quiet", *nodes, *launch, "--on", "slurm", *size, "--", python, program),
        ),
        Pair(
            "sbatch of srun",
            ("sbatch", "--wait", *nodes, f"--wrap={' '.join(srun)}", "--output=bare-%j.log"),
            (*launch, "--on", "slurm", *size, "--wait", "--", python, program),
        ),
    ]


def seconds_to_first_step(cluster: Any, command: Sequence[str], folder: Path) -> float:
    """Run the command on the login host and return when rank 0 had done its first step, in s."""
    before = {file: file.stat().st_size for file in folder.glob("*.log")}
    env = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    started_s = time.time()
    done = cluster.exec(
        "login", command, env={**env, "OMP_NUM_THREADS": "1"}, cwd=folder, timeout_s=120
    )
    said = done.stdout + done.stderr
    for file in folder.glob("*.log"):
        said += file.read_text()[before.get(file, 0) :]
    found = re.search(r"first step at ([\d.]+) of (\d+)", said)
    if found is None:
        sys.exit(f"{' '.join(command)} did no step (exit code {done.returncode}):\n{said}")
    return float(found[1]) - started_s


def report(pair: Pair, bare_s: list[float], ours_s: list[float]) -> str:
    """One line: what each took, and the ratio."""
    ratios = [ours / bare for ours, bare in zip(ours_s, bare_s, strict=True)]
    return (
        f"{pair.name:22}  bare {_spread(bare_s)} s   hvdtools {_spread(ours_s)} s   "
        f"ratio {_spread(ratios)}"
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Bring up the test cluster, time the pairs in turns, take it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--ranks-per-host", type=int, default=2)
    asked = parser.parse_args()
    sys.path.insert(0, str(CLONE / "tests" / "support" / "cluster"))
    from cluster_hosts import ClusterHosts
    from cluster_slurm import SlurmCluster

    cluster = ClusterHosts.up(f"launch-time-{os.getpid()}", asked.hosts)
    try:
        SlurmCluster.up(cluster)
        folder = cluster.shared
        program = folder / "first_step.py"
        program.write_text(PROGRAM)
        hosts = [host for host in cluster.hosts if host != "login"]
        todo = pairs(str(program), hosts, asked.ranks_per_host)
        took: dict[str, tuple[list[float], list[float]]] = {each.name: ([], []) for each in todo}
        for number in range(
            asked.repeats + 1
        ):  # the first, which fills the disk's cache, is left out
            for pair in todo:
                both = [(0, pair.bare), (1, pair.ours)]
                for side, command in both if number % 2 else reversed(both):
                    seconds = seconds_to_first_step(cluster, command, folder)
                    if number:
                        took[pair.name][side].append(seconds)
        for pair in todo:
            print(report(pair, *took[pair.name]))
    finally:
        cluster.down()


if __name__ == "__main__":
    main()
