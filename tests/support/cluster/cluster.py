"""A test cluster: several hosts with ssh between them, and a real Slurm, on one machine.

For the tests, and for anyone who wants to see a launcher on a cluster without having one.
It needs Linux, root, and Debian's packages slurm-wlm, munge, openssh-server and iproute2
(`up` names what is missing), and libpmix2 for srun --mpi=pmix. From a clone:

    cd tests/support/cluster
    python cluster.py up --hosts 4 --slurm      # half a second; `down` removes all of it
    python cluster.py exec login ssh host2 hostname
    python cluster.py exec login bash           # then: ip addr, ssh host1, sinfo
    python cluster.py run srun -N4 hostname     # `run` is `exec login`
    python cluster.py run sbatch -N2 ../../../launch/slurm.sbatch python train.py
    python cluster.py down

Break it, and heal it:

    cut HOST, join HOST       its cables, at the switch: packets vanish and nobody is told
    nic HOST up|down          its own eth0
    crash HOST, boot HOST     its power
    shape 200mbit|off         the speed of every cable, outwards
    own-name HOST loopback|lan    what it takes its own name for (Debian's 127.0.1.1, or eth0)
    add-nic HOST eth1         one more NIC, in a LAN of its own (10.77.1.0/24)
    add-nic HOST docker0 --address 172.17.0.1/16 --uncabled    one that leads nowhere
    heal                      all of the above undone, all jobs and programs ended
    status, processes HOST    what is up; what runs there beside the daemons

What a host is: its own network, process numbers, name, /tmp, /run, /dev/shm, /sys and parts
of /etc, and an sshd that lets root in without a question. All else is the machine's, and so
the same on every host, as a cluster's shared file system is. Where the project or its Python
environment lies below /tmp or another of these, it is seen on the hosts all the same;
`up --see FOLDER` adds others. `shared` prints a folder to keep scripts and results in. As on
a real cluster, a command over ssh does not find the Python environment: give its full path.
Hosts are 10.77.0.1 and so on, login is 10.77.0.100; nothing leads out to another network.

Slurm has a node on each host but login, with 4 CPUs, 4 GPUs (that are /dev/null) and 4000 MB;
the partitions `main` and `short` (one minute at most); no accounting. Debian's 22.05.

Test clusters with different names in HVDTOOLS_TEST_CLUSTER (by default the user's number) do not
see each other.
`down` works from any process, whatever became of the one that called `up`: everything
ends with a few processes that it knows by their command line, and with one folder,
/var/lib/hvdtools-test-cluster.NAME, where the daemons' logs are too.

In Python: `ClusterHosts` and `SlurmCluster`. In tests: the fixtures `cluster_hosts`
and `slurm_cluster` (`cluster_fixtures.py`), which heal after every test.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from cluster_command import run_command
from cluster_state import ClusterError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="bring the test cluster up")
    up.add_argument("--hosts", type=int, default=4, help="how many beside login (default 4)")
    up.add_argument("--slurm", action="store_true", help="with Slurm on them")
    up.add_argument("--see", action="append", default=[], metavar="FOLDER",
                    help="a folder below /tmp that all hosts shall see")  # fmt: skip
    for name in ("down", "heal", "status", "shared"):
        commands.add_parser(name)
    for name in ("cut", "join", "crash", "boot", "processes"):
        commands.add_parser(name).add_argument("host")
    for name, argument, choices in (
        ("nic", "state", ("up", "down")),
        ("own-name", "is_at", ("loopback", "lan")),
    ):
        command = commands.add_parser(name)
        command.add_argument("host")
        command.add_argument(argument, choices=choices)
    commands.add_parser("shape").add_argument("rate", help="such as 1gbit, or off")
    add_nic = commands.add_parser("add-nic")
    add_nic.add_argument("host")
    add_nic.add_argument("nic")
    add_nic.add_argument("--address", help="such as 172.17.0.1/16")
    add_nic.add_argument("--uncabled", action="store_true")
    execute = commands.add_parser("exec", help="run a command on a host")
    execute.add_argument("host")
    for command in (execute, commands.add_parser("run", help="run a command on login")):
        command.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD...")
    return parser


def main() -> int:
    """The exit code of the command given, or 1 with a sentence."""
    try:
        return run_command(_parser().parse_args())
    except (ClusterError, TimeoutError, subprocess.TimeoutExpired) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
