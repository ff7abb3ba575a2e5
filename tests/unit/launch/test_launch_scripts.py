"""launch/*.sh are the saved form of the plans: held equal by running them with a fake launcher."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from paths import SCRIPTS

from hvdtools.core.mpi import Mpirun
from hvdtools.launch import JobSpec, detect_host, make_plan
from hvdtools.launch.hosts import Host
from hvdtools.launch.machine import Machine
from hvdtools.launch.schedulers.ssh import Hosts
from hvdtools.rank_wrapper import words as rank_wrapper

OURS = (
    "HOROVOD_CONTROLLER",
    "HOROVOD_CPU_OPERATIONS",
    "PYTHONUNBUFFERED",
    "OMPI_ALLOW_RUN_AS_ROOT",
    "HVDTOOLS_",
    "HOROVOD_GLOO_IFACE",
    "GLOO_SOCKET_IFNAME",
    "NCCL_SOCKET_IFNAME",
)
HOSTILE = ("./run", 'say "hi"', "it's", "; echo foo", "$HOME", "new\nline\n", "", "*", "-n", "é")


def asked_for(folder: Path, script: str, version: str, *words: str) -> tuple[list[str], list[str]]:
    """The words and the variables that the script's launcher is called with."""
    fake = folder / script.removesuffix(".sh")
    fake.write_text(
        "#!/bin/bash\n"
        f'if [[ $* == --version ]]; then echo "mpirun (Open MPI) {version}"; exit; fi\n'
        "printf '%s\\0' \"$@\"; printf '\\0\\0'; env -0\n"
    )
    fake.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [SCRIPTS / script, *words],
        env={**clean, "PATH": f"{folder}:{clean['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    argv, _, env = done.stdout.partition("\0\0\0")
    return argv.split("\0"), [pair for pair in env.split("\0") if pair.startswith(OURS)]


def machine_with(version: tuple[int, ...]) -> Machine:
    here = detect_host()
    mpirun = Mpirun("mpirun", "Open MPI", version)
    return Machine(here.slots, here.is_root, "python", mpirun, "0.28.1", ("mpi", "gloo"))


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
@pytest.mark.parametrize("version", [(5, 0, 11), (4, 1, 8)])
@pytest.mark.parametrize("extra_ranks", [0, 3])
def test_script_equals_plan(
    tmp_path: Path, launcher: str, version: tuple[int, ...], extra_ranks: int
) -> None:
    machine = machine_with(version)
    ranks = machine.slots + extra_ranks
    plan = make_plan(JobSpec(HOSTILE, ranks, launcher, oversubscribe=bool(extra_ranks)), machine)
    crowd = ["--oversubscribe"] if extra_ranks else []
    argv, env = asked_for(
        tmp_path,
        f"{launcher}.sh",
        ".".join(map(str, version)),
        *("-n", str(ranks)),
        *crowd,
        "--",
        *HOSTILE,
    )
    started_by = {"mpirun": 1, "horovodrun": 3}[launcher]  # words: horovodrun's search is left out
    assert argv == list(plan.argv[started_by:])
    assert sorted(env) == sorted(f"{name}={value}" for name, value in plan.env)


@pytest.mark.parametrize("version", [(5, 0, 11), (4, 1, 8)])
@pytest.mark.parametrize(("ranks", "options"), [(4, []), (2, ["-n", "2"]), (3, ["-n", "3"])])
def test_mpirun_sh_over_hosts_equals_the_plan(
    tmp_path: Path, version: tuple[int, ...], ranks: int, options: list[str]
) -> None:
    spec = JobSpec(
        HOSTILE, ranks, "mpirun", on=Hosts((Host("a", 2), Host("u@b.c", 2))), interface="eth1"
    )
    plan = make_plan(spec, machine_with(version))
    where = ["--hosts", "a:2,u@b.c:2", "--interface", "eth1"]
    words = (*options, *where, "--", *HOSTILE)
    argv, env = asked_for(tmp_path, "mpirun.sh", ".".join(map(str, version)), *words)
    # The script puts no watch over its ranks, for which hvdtools must be installed.
    watch = rank_wrapper.watched("python", ())
    end = len(plan.argv) - len(HOSTILE)
    assert plan.argv[end - len(watch) : end] == watch
    assert argv == [*plan.argv[1 : end - len(watch)], *HOSTILE]
    assert sorted(env) == sorted(f"{name}={value}" for name, value in plan.env)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--hosts", "a", "true"], "not a list of hosts"),
        (["--hosts", "a:1;reboot:1", "true"], "not a list of hosts"),
        (["--hosts", "a:1", "-n", "2", "true"], "more than the 1 slots of a:1"),
    ],
)
def test_mpirun_sh_refuses_hosts_in_one_line(words: list[str], says: str) -> None:
    command = [SCRIPTS / "mpirun.sh", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", ["mpirun.sh", "horovodrun.sh"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "how many ranks"),
        (["-n"], "how many ranks"),
        (["-n", "0", "true"], "how many ranks"),
        (["-n", "x", "true"], "how many ranks"),
        (["-n", "1"], "no program"),
        (["-n", "100000", "true"], "more than the"),
        (["--what", "true"], "unknown option --what"),
    ],
)
def test_script_refuses_in_one_line(script: str, words: list[str], says: str) -> None:
    done = subprocess.run([SCRIPTS / script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


def test_scripts_ship_inside_the_package() -> None:
    import hvdtools.launch

    link = Path(hvdtools.launch.__file__).parent / "scripts"
    assert {path.name for path in link.iterdir()} >= {"mpirun.sh", "horovodrun.sh"}
    assert all(os.access(path, os.X_OK) for path in link.glob("*.sh"))
