"""Plans are pure: these tests start nothing."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.mpi import Mpirun, read_mpirun_version
from hvdtools.launch import JobSpec, make_plan
from hvdtools.launch.hosts import Host
from hvdtools.launch.machine import Machine
from hvdtools.launch.scheduler import Allocation
from hvdtools.launch.schedulers.slurm.request import Slurm
from hvdtools.launch.schedulers.ssh import Hosts

MACHINE = Machine(
    slots=4,
    is_root=False,
    python="/env/bin/python",
    mpirun=Mpirun("/env/bin/mpirun", "Open MPI", (5, 0, 11)),
    horovod="0.28.1",
    controllers=("mpi", "gloo"),
    built_with="Open MPI 5.0.11",
)
NO_MPI = replace(MACHINE, controllers=("gloo",))
HOSTILE = ("./a b.sh", 'say "hi"', "it's", "; echo foo", "$HOME", "new\nline", "", "*", "-n", "--")


def test_mpirun_plan_word_for_word() -> None:
    plan = make_plan(JobSpec(("python", "train.py", "--lr", "0.1"), 2), MACHINE)
    assert plan.text() == (
        "env HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi PYTHONUNBUFFERED=1 "
        "HVDTOOLS_SIZE=2 HVDTOOLS_NODES=1 "
        "/env/bin/mpirun -n 2 --host localhost:2 --map-by slot --bind-to none --output tag "
        "-x HOROVOD_CONTROLLER -x HOROVOD_CPU_OPERATIONS -x PYTHONUNBUFFERED "
        "-x HVDTOOLS_SIZE -x HVDTOOLS_NODES /env/bin/python train.py --lr 0.1"
    )


def test_horovodrun_plan_word_for_word() -> None:
    plan = make_plan(JobSpec(("python3", "train.py", "--lr", "0.1"), 2, "horovodrun"), MACHINE)
    assert plan.text() == (
        "env PYTHONUNBUFFERED= HVDTOOLS_SIZE=2 HVDTOOLS_NODES=1 "
        "/env/bin/python -m hvdtools.launch.launchers.start_horovodrun --gloo -np 2 -H localhost:2 "
        "--network-interfaces lo sh -c 'exec /env/bin/python train.py --lr 0.1'"
    )


TWO_HOSTS = Hosts((Host("a", 2), Host("b", 2)))
OVER_HOSTS = {
    "mpirun": "/env/bin/mpirun -n 3 --host a:2,b:2 --prtemca plm ssh --map-by node --bind-to none "
    "--mca btl_tcp_if_include eth1 --prtemca prte_if_include eth1 --output tag "
    "-x HOROVOD_CONTROLLER -x HOROVOD_CPU_OPERATIONS -x PYTHONUNBUFFERED -x HVDTOOLS_SIZE "
    "-x HVDTOOLS_NODES -x HVDTOOLS_INTERFACE -x HOROVOD_GLOO_IFACE -x GLOO_SOCKET_IFNAME "
    "-x NCCL_SOCKET_IFNAME -x OMP_NUM_THREADS -x A --mca a b "
    "/env/bin/python -m hvdtools.rank_wrapper --watch -- ./run",
    "mpirun of 4": "/env/bin/mpirun -n 3 --host a:2,b:2 --mca plm rsh --map-by node --bind-to none "
    "--mca btl_tcp_if_include eth1 --mca oob_tcp_if_include eth1 --tag-output "
    "-x HOROVOD_CONTROLLER -x HOROVOD_CPU_OPERATIONS -x PYTHONUNBUFFERED -x HVDTOOLS_SIZE "
    "-x HVDTOOLS_NODES -x HVDTOOLS_INTERFACE -x HOROVOD_GLOO_IFACE -x GLOO_SOCKET_IFNAME "
    "-x NCCL_SOCKET_IFNAME -x OMP_NUM_THREADS -x A --mca a b "
    "/env/bin/python -m hvdtools.rank_wrapper --watch -- ./run",
    "MPICH": "/env/bin/mpirun -iface eth1 --mca a b -launcher ssh -hosts a,b -ppn 1 -n 3 "
    "/env/bin/python -m hvdtools.rank_wrapper --watch --tag -- ./run",
    "Intel MPI": "/env/bin/mpirun -iface eth1 --mca a b -launcher ssh -hosts a,b -ppn 1 -n 3 "
    "/env/bin/python -m hvdtools.rank_wrapper --watch --tag -- ./run",
}
MPIRUNS = {
    "mpirun": ("Open MPI", (5, 0, 11), "mpi", ()),
    "mpirun of 4": ("Open MPI", (4, 1, 8), "gloo", ()),
    "MPICH": ("MPICH", (4, 0, 2), "gloo", ()),
    "Intel MPI": ("Intel MPI", (2021, 18, 1), "gloo", (("I_MPI_PIN", "0"),)),
}


@pytest.mark.parametrize("name", OVER_HOSTS)
def test_plans_over_hosts_word_for_word(name: str) -> None:
    flavour, version, controller, own = MPIRUNS[name]
    spec = JobSpec(
        ("./run",), 3, "mpirun", (("A", "1"),), on=TWO_HOSTS, interface="eth1", cpus_per_rank=2,
        distribution="cyclic", pass_on=("--mca", "a", "b"),
    )  # fmt: skip
    machine = replace(MACHINE, mpirun=Mpirun("/env/bin/mpirun", flavour, version))
    plan = make_plan(spec, machine)
    assert shlex.join(plan.argv) == OVER_HOSTS[name]
    assert plan.env == (
        ("HOROVOD_CONTROLLER", controller),
        ("HOROVOD_CPU_OPERATIONS", controller),
        ("PYTHONUNBUFFERED", "1"),
        *own,
        ("HVDTOOLS_SIZE", "3"),
        ("HVDTOOLS_NODES", "2"),
        ("HVDTOOLS_INTERFACE", "eth1"),
        ("HOROVOD_GLOO_IFACE", "eth1"),
        ("GLOO_SOCKET_IFNAME", "eth1"),
        ("NCCL_SOCKET_IFNAME", "=eth1"),
        ("OMP_NUM_THREADS", "2"),
        ("A", "1"),
    )
    assert plan.hosts == ("a", "b")


def test_horovodrun_over_hosts_word_for_word() -> None:
    spec = JobSpec(("./run", "x y"), 3, "horovodrun", on=TWO_HOSTS, interface="eth1")
    assert shlex.join(make_plan(spec, MACHINE).argv) == (
        "/env/bin/python -m hvdtools.launch.launchers.start_horovodrun --gloo -np 3 -H a:2,b:2 "
        "--network-interfaces eth1 sh -c "
        "'exec /env/bin/python -m hvdtools.rank_wrapper --watch -- ./run '\"'\"'x y'\"'\"''"
    )


def test_blocks_over_hosts_as_mpich_and_intel_mpi_have_them() -> None:
    mpich = replace(MACHINE, mpirun=Mpirun("/m", "MPICH", (4, 0, 2)))
    intel = replace(MACHINE, mpirun=Mpirun("/m", "Intel MPI", (2021, 18)))
    uneven = Hosts((Host("a", 3), Host("b", 1)))
    assert (
        "-hosts a:3,b:1 -n 4"
        in make_plan(JobSpec(("./run",), 4, "mpirun", on=uneven), mpich).text()
    )
    assert (
        "-hosts a,b -ppn 2 -n 4"
        in make_plan(JobSpec(("./run",), 4, "mpirun", on=TWO_HOSTS), intel).text()
    )
    for spec, machine, says in (
        (JobSpec(("./run",), 4, "mpirun", on=uneven), intel, "equal slots only"),
        (
            JobSpec(("./run",), 4, "mpirun", on=uneven, distribution="cyclic"),
            mpich,
            "equal slots only",
        ),
        (
            JobSpec(("./run",), 4, "horovodrun", on=uneven, distribution="cyclic"),
            mpich,
            "knows no --distribution cyclic",
        ),
    ):
        with pytest.raises(HvdtoolsError, match=says):
            make_plan(spec, machine)


@pytest.mark.parametrize(
    ("slots", "ranks", "distribution", "nodes"),
    [
        ((2, 2), 2, "block", 1),
        ((2, 2), 3, "block", 2),
        ((3, 1), 4, "block", 2),
        ((2, 2, 2), 2, "cyclic", 2),
        ((1, 1, 1), 3, "block", 3),
    ],
)
def test_the_number_of_nodes_is_promised(
    slots: tuple[int, ...], ranks: int, distribution: str, nodes: int
) -> None:
    hosts = Hosts(tuple(Host(f"h{number}", count) for number, count in enumerate(slots)))
    plan = make_plan(JobSpec(("./run",), ranks, on=hosts, distribution=distribution), MACHINE)
    assert dict(plan.env)["HVDTOOLS_NODES"] == str(nodes)


IN_SLURM = replace(MACHINE, srun="/usr/bin/srun", allocations={"slurm": Allocation("7")})


def test_a_step_of_a_slurm_job_word_for_word() -> None:
    spec = JobSpec(("./run",), 4, on=Slurm(), nodes=2, ranks_per_node=2, cpus_per_rank=3)
    assert make_plan(spec, IN_SLURM).text() == (
        "env PYTHONUNBUFFERED=1 HVDTOOLS_SIZE=4 HVDTOOLS_NODES=2 OMP_NUM_THREADS=3 /usr/bin/srun "
        "--kill-on-bad-exit=1 --label --mpi=pmi2 --cpu-bind=none --nodes=2 --ntasks=4 "
        "--ntasks-per-node=2 --cpus-per-task=3 ./run"
    )
    over_mpi = make_plan(replace(spec, launcher="mpirun"), IN_SLURM).argv
    assert over_mpi[:5] == ("/env/bin/mpirun", "-n", "4", "--map-by", "slot")


@pytest.mark.parametrize(
    ("spec", "machine", "says"),
    [
        (JobSpec(("x",), 1, "horovodrun", on=Slurm()), IN_SLURM, "use --launcher srun"),
        (JobSpec(("x",), 1, on=Slurm(partition="p")), IN_SLURM, "--partition is for a new job"),
        (JobSpec(("x",), 1, on=Slurm()), replace(IN_SLURM, srun=None), "There is no srun"),
    ],
)
def test_what_a_step_of_a_slurm_job_cannot_be(spec: JobSpec, machine: Machine, says: str) -> None:
    with pytest.raises(HvdtoolsError, match=says):
        make_plan(spec, machine)


def test_a_bound_rank_is_bound_in_the_rank() -> None:
    spec = JobSpec(("./run",), 2, bind="cores", cpus_per_rank=2, show_binding=True)
    assert make_plan(spec, MACHINE).argv[-10:] == (
        "/env/bin/python", "-m", "hvdtools.rank_wrapper", "--bind", "cores", "--cpus", "2",
        "--show", "--", "./run",
    )  # fmt: skip


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_hostile_words_survive_the_text(launcher: str) -> None:
    plan = make_plan(JobSpec(HOSTILE, 1, launcher, (("V", "a\n'b';"),)), MACHINE)
    words = shlex.split(plan.text())
    assert "V=a\n'b';" in words
    assert words[-len(plan.argv) :] == list(plan.argv)
    inner = shlex.split(plan.argv[-1])[1:] if launcher == "horovodrun" else plan.argv
    assert tuple(inner[-len(HOSTILE) :]) == HOSTILE


def test_a_lone_colon_goes_to_mpirun_inside_one_word() -> None:
    argv = make_plan(JobSpec(("./run", ":", "a b"), 1), MACHINE).argv
    assert argv[-3:] == ("sh", "-c", "exec ./run : 'a b'")


def test_open_mpi_4_has_its_own_tag_option() -> None:
    mpirun = Mpirun("/usr/bin/mpirun", "Open MPI", (4, 1, 8))
    old = replace(MACHINE, mpirun=mpirun, built_with="Open MPI 4.1.8")
    argv = make_plan(JobSpec(("./run",), 1), old).argv
    assert "--tag-output" in argv and "--output" not in argv


def test_root_is_allowed_only_as_root() -> None:
    as_user = make_plan(JobSpec(("./run",), 1), MACHINE)
    as_root = make_plan(JobSpec(("./run",), 1), replace(MACHINE, is_root=True))
    assert set(as_root.env) - set(as_user.env) == {
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
    }
    assert as_root.argv == as_user.argv


def test_variables_of_the_user_reach_ranks_and_win() -> None:
    plan = make_plan(JobSpec(("./run",), 1, env=(("PYTHONUNBUFFERED", "0"), ("V", "1"))), MACHINE)
    assert dict(plan.env)["PYTHONUNBUFFERED"] == "0"
    assert plan.argv[plan.argv.index("V") - 1] == "-x"


def test_oversubscribe_says_how_many_slots_there_are() -> None:
    plan = make_plan(JobSpec(("./run",), 6, oversubscribe=True), MACHINE)
    assert "slot:OVERSUBSCRIBE" in plan.argv and "localhost:4" in plan.argv
    fits = make_plan(JobSpec(("./run",), 2, oversubscribe=True), MACHINE)
    assert "slot" in fits.argv


def test_auto_prefers_mpi_and_says_why() -> None:
    assert make_plan(JobSpec(("./run",), 2), MACHINE).note == (
        "2 ranks on this machine with mpirun (Open MPI 5.0.11), "
        "because MPI goes through shared memory where Gloo goes through TCP"
    )
    for machine, why in (
        (NO_MPI, "the installed Horovod 0.28.1 was built without MPI"),
        (
            replace(MACHINE, built_with="MPICH 4.1"),
            "it is Open MPI 5.0.11's, and Horovod was built with MPICH 4.1",
        ),
        (replace(MACHINE, mpirun=None), "there is no mpirun beside this Python or on PATH"),
    ):
        plan = make_plan(JobSpec(("./run",), 1), machine)
        assert plan.launcher == "horovodrun"
        assert plan.note.startswith("1 rank on this machine with horovodrun")
        assert plan.note.endswith(f"not with mpirun: {why}")


OLD = read_mpirun_version("/usr/bin/mpirun", "mpirun (Open MPI) 3.1.6\n")
OTHER = read_mpirun_version("/usr/bin/mpirun", "MVAPICH says hello\n")


@pytest.mark.parametrize(
    ("launcher", "machine", "says"),
    [
        ("auto", replace(MACHINE, horovod=None, controllers=()), "hvdtools build"),
        ("auto", replace(MACHINE, mpirun=None, controllers=("mpi",)), "Neither launcher can work"),
        ("mpirun", replace(MACHINE, mpirun=None), r"pip install 'hvdtools\[mpi\]'"),
        ("mpirun", replace(MACHINE, mpirun=OLD), "Open MPI 3.1.6"),
        ("mpirun", replace(MACHINE, mpirun=OTHER), "MVAPICH says hello"),
        (
            "mpirun",
            replace(MACHINE, controllers=("mpi",), built_with="MPICH 4.1"),
            "built with MPICH 4.1 and without Gloo",
        ),
        ("srun", MACHINE, "add --on slurm"),
        ("horovodrun", replace(MACHINE, horovod=None, controllers=()), "hvdtools build"),
        ("horovodrun", replace(MACHINE, controllers=("mpi",)), "built without Gloo"),
    ],
)
def test_a_launcher_that_cannot_work_here(launcher: str, machine: Machine, says: str) -> None:
    with pytest.raises(HvdtoolsError, match=says):
        make_plan(JobSpec(("./run",), 1, launcher), machine)


@pytest.mark.parametrize(
    "spec",
    [
        {"ranks": 0},
        {"ranks": -1},
        {"command": ()},
        {"command": ("",)},
        {"command": ("a\0b",)},
        {"launcher": "rsh"},
        {"nodes": 2},
        {"nodes": 0},
        {"on": TWO_HOSTS, "nodes": 2, "ranks_per_node": 2, "ranks": 3},
        {"on": TWO_HOSTS, "nodes": 4, "ranks": 2},
        {"cpus_per_rank": 0},
        {"gpus_per_node": -1},
        {"timeout_s": 0},
        {"restarts": -1},
        {"bind": "socket"},
        {"distribution": "plane"},
        {"interface": "eth0,eth1"},
        {"interface": "^docker0"},
        {"env": (("A B", "1"),)},
        {"env": (("", "1"),)},
        {"env": (("A", "\0"),)},
    ],
)
def test_a_job_that_cannot_be(spec: dict[str, object]) -> None:
    with pytest.raises(HvdtoolsError):
        JobSpec(**{"command": ("./run",), "ranks": 1, **spec})  # type: ignore[arg-type]
