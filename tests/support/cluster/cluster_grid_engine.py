"""A real Grid Engine over the hosts of a test cluster: qmaster on `login`, execd on each host."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster_hosts import ClusterHosts
from cluster_network import LOGIN
from cluster_processes import NO_VARIABLES
from cluster_state import ClusterError, wait_for

PROGRAMS = Path("/usr/lib/gridengine")  # Debian's
DEFAULTS = Path("/usr/share/gridengine")
SLOTS = 4
# Parallel environments: how many slots of each node they take ("ranks2" two), or fill one first.
ENVIRONMENTS = {"ranks1": "1", "ranks2": "2", "fill": "$fill_up"}
NOTIFY_S = 5

BOOTSTRAP = """\
admin_user none
default_domain none
ignore_fqdn true
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {root}/spooldb
binary_path {programs}
qmaster_spool_dir {root}/default/spool/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
# Options: sge_conf(5), sched_conf(5), sge_pe(5), queue_conf(5).
CHANGED = {
    "execd_spool_dir": "{root}/spool",
    "mailer": "/bin/true",
    "min_uid": "0",
    "min_gid": "0",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false",
}
SCHEDULER = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
ENVIRONMENT = """\
pe_name {name}
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule {rule}
control_slaves TRUE
job_is_first_task FALSE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


class GridEngineCluster:
    """Grid Engine on the hosts of `cluster`, which `up` has started."""

    def __init__(self, cluster: ClusterHosts) -> None:
        self.cluster = cluster
        self.root = cluster.place.folder / "gridengine"
        self.nodes = tuple(host for host in cluster.hosts if host != LOGIN)
        self.variables = {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": "6444",
            "SGE_EXECD_PORT": "6445",
        }

    @classmethod
    def up(cls, cluster: ClusterHosts) -> GridEngineCluster:
        """Start Grid Engine on hosts that have none, and wait until every node takes jobs."""
        made = cls(cluster)
        made._write()
        made._start_master()
        for host in made.nodes:
            made.start(host)
        cluster.on_boot.append(made.start)
        wait_for(made._all_answer, "all nodes of Grid Engine", 60)
        return made

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float = 60,
        env: Mapping[str, str] = NO_VARIABLES,
        cwd: str | Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command where a user would, on `login`, as `ClusterHosts.exec` does."""
        variables = {**self.variables, **env}
        return self.cluster.exec(LOGIN, argv, timeout_s=timeout_s, env=variables, cwd=cwd)

    def start(self, host: str) -> None:
        """Start the daemon of a host."""
        self._do(host, "mkdir", "-p", "/run/gridengine")
        self._do(host, "/usr/sbin/sge_qmaster" if host == LOGIN else "/usr/sbin/sge_execd")

    def heal(self) -> None:
        """End all jobs, undo what was disturbed, and put nodes to work again."""
        self.run(["qdel", "-u", "*"], cwd="/")
        wait_for(lambda: not self.run(["qstat", "-u", "*"], cwd="/").stdout, "no jobs", 30)
        self.cluster.heal()
        self.run(["qmod", "-cq", "*"], cwd="/")

    def _write(self) -> None:
        common = self.root / "default" / "common"
        for folder in (common, self.root / "default/spool/qmaster/job_scripts"):
            folder.mkdir(parents=True)
        for name in ("spooldb", "spool"):
            (self.root / name).mkdir()
        for name in ("bin", "utilbin", "lib"):
            (self.root / name).mkdir()
            (self.root / name / "lx-amd64").symlink_to(PROGRAMS)
        (self.root / "util").symlink_to(DEFAULTS / "util")
        (common / "bootstrap").write_text(BOOTSTRAP.format(root=self.root, programs=PROGRAMS))
        (common / "act_qmaster").write_text(f"{LOGIN}\n")

    def _start_master(self) -> None:
        configuration = _changed((DEFAULTS / "default-configuration").read_text(), CHANGED)
        file = self._file("configuration", configuration.format(root=self.root))
        resources = DEFAULTS / "util" / "resources"
        self._do(LOGIN, PROGRAMS / "spoolinit", *("berkeleydb", "libspoolb"),
                 self.root / "spooldb", "init")  # fmt: skip
        for what, value in (
            ("configuration", file),
            ("complexes", resources / "centry"),
            ("usersets", resources / "usersets"),
            ("managers", "root"),
            ("operators", "root"),
        ):
            self._do(LOGIN, PROGRAMS / "spooldefaults", what, value)
        self.start(LOGIN)
        wait_for(lambda: self.run(["qconf", "-sconf"], cwd="/").returncode == 0, "qmaster", 30)
        for host in self.nodes:
            self._do(LOGIN, "qconf", "-ah", host)
        for host in self.cluster.hosts:
            self._do(LOGIN, "qconf", "-as", host)
        nodes = f"group_name @allhosts\nhostlist {' '.join(self.nodes)}\n"
        self._do(LOGIN, "qconf", "-Ahgrp", self._file("nodes", nodes))
        for name, rule in ENVIRONMENTS.items():
            text = ENVIRONMENT.format(name=name, rule=rule)
            self._do(LOGIN, "qconf", "-Ap", self._file(name, text))
        # `-sq` without a queue prints the template of one.
        template = self._do(LOGIN, "qconf", "-sq")
        queue = {
            "qname": "main",
            "hostlist": "@allhosts",
            "load_thresholds": "NONE",
            "pe_list": " ".join(ENVIRONMENTS),
            "rerun": "TRUE",
            "slots": str(SLOTS),
            "shell_start_mode": "unix_behavior",
            "notify": f"00:00:{NOTIFY_S:02}",
        }
        self._do(LOGIN, "qconf", "-Aq", self._file("queue", _changed(template, queue)))
        scheduler = _changed(self._do(LOGIN, "qconf", "-ssconf"), SCHEDULER)
        self._do(LOGIN, "qconf", "-Msconf", self._file("scheduler", scheduler))

    def _all_answer(self) -> bool:
        # A node whose execd has not answered yet has no architecture.
        lines = self.run(["qhost"], cwd="/").stdout.splitlines()
        return sum("lx-amd64" in line for line in lines) == len(self.nodes)

    def _file(self, name: str, text: str) -> Path:
        file = self.root / f"{name}.txt"
        file.write_text(text)
        return file

    def _do(self, host: str, *argv: str | Path) -> str:
        done = self.cluster.exec(host, argv, env=self.variables, cwd="/")
        if done.returncode:
            raise ClusterError(f"{argv[0]} on {host} failed: {done.stdout} {done.stderr}")
        return done.stdout


def _changed(text: str, changes: Mapping[str, str]) -> str:
    """The settings, one on a line, with these values."""
    lines = []
    for line in text.splitlines():
        name = line.split()[0] if line.split() else ""
        lines.append(f"{name} {changes[name]}" if name in changes else line)
    return "\n".join(lines) + "\n"
