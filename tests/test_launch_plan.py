"""Plans are pure: these tests start nothing."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from hvdtools.errors import HvdtoolsError
from hvdtools.launch import JobSpec, make_plan
from hvdtools.launch.machine import Machine, Mpirun, read_mpirun_version

MACHINE = Machine(
    slots=4,
    is_root=False,
    python="/env/bin/python",
    mpirun=Mpirun("/env/bin/mpirun", "Open MPI", (5, 0, 11)),
    horovodrun="/env/bin/horovodrun",
    horovod="0.28.1",
    controllers=("mpi", "gloo"),
)
NO_MPI = replace(MACHINE, controllers=("gloo",))
HOSTILE = ("./a b.sh", 'say "hi"', "it's", "; echo foo", "$HOME", "new\nline", "", "*", "-n", "--")


def test_mpirun_plan_word_for_word() -> None:
    plan = make_plan(JobSpec(("python", "train.py", "--lr", "0.1"), 2), MACHINE)
    assert plan.text() == (
        "env HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi PYTHONUNBUFFERED=1 "
        "/env/bin/mpirun -n 2 --host localhost:2 --bind-to none --map-by slot --output tag "
        "-x HOROVOD_CONTROLLER -x HOROVOD_CPU_OPERATIONS -x PYTHONUNBUFFERED "
        "/env/bin/python train.py --lr 0.1"
    )


def test_horovodrun_plan_word_for_word() -> None:
    plan = make_plan(JobSpec(("python3", "train.py", "--lr", "0.1"), 2, "horovodrun"), MACHINE)
    assert plan.text() == (
        "env PYTHONUNBUFFERED= /env/bin/horovodrun --gloo -np 2 -H localhost:2 "
        "--network-interfaces lo sh -c 'exec /env/bin/python train.py --lr 0.1'"
    )


@pytest.mark.parametrize("starter", ["mpirun", "horovodrun"])
def test_hostile_words_survive_the_text(starter: str) -> None:
    plan = make_plan(JobSpec(HOSTILE, 1, starter, (("V", "a\n'b';"),)), MACHINE)
    words = shlex.split(plan.text())
    assert "V=a\n'b';" in words
    assert words[-len(plan.argv) :] == list(plan.argv)
    inner = shlex.split(plan.argv[-1])[1:] if starter == "horovodrun" else plan.argv
    assert tuple(inner[-len(HOSTILE) :]) == HOSTILE


def test_a_lone_colon_goes_to_mpirun_inside_one_word() -> None:
    argv = make_plan(JobSpec(("./run", ":", "a b"), 1), MACHINE).argv
    assert argv[-3:] == ("sh", "-c", "exec ./run : 'a b'")


def test_open_mpi_4_has_its_own_tag_option() -> None:
    old = replace(MACHINE, mpirun=Mpirun("/usr/bin/mpirun", "Open MPI", (4, 1, 8)))
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
        (replace(MACHINE, mpirun=None), "there is no mpirun beside this Python or on PATH"),
    ):
        plan = make_plan(JobSpec(("./run",), 1), machine)
        assert plan.starter == "horovodrun"
        assert plan.note.startswith("1 rank on this machine with horovodrun")
        assert plan.note.endswith(f"not with mpirun: {why}")


MPICH = read_mpirun_version("/usr/bin/mpirun", "HYDRA build details:\n    Version: 4.0\n")


@pytest.mark.parametrize(
    ("starter", "machine", "says"),
    [
        ("auto", replace(MACHINE, horovod=None, controllers=()), "hvdtools build"),
        ("auto", replace(MACHINE, mpirun=None, controllers=("mpi",)), "Neither starter can work"),
        ("mpirun", replace(MACHINE, mpirun=None), r"pip install 'hvdtools\[mpi\]'"),
        ("mpirun", replace(MACHINE, mpirun=MPICH), "HYDRA build details:"),
        ("mpirun", NO_MPI, "built without MPI"),
        ("horovodrun", replace(MACHINE, horovod=None, controllers=()), "hvdtools build"),
        ("horovodrun", replace(MACHINE, controllers=("mpi",)), "built without Gloo"),
        ("horovodrun", replace(MACHINE, horovodrun=None), "no horovodrun beside"),
    ],
)
def test_a_starter_that_cannot_work_here(starter: str, machine: Machine, says: str) -> None:
    with pytest.raises(HvdtoolsError, match=says):
        make_plan(JobSpec(("./run",), 1, starter), machine)


@pytest.mark.parametrize(
    "spec",
    [
        {"ranks": 0},
        {"ranks": -1},
        {"command": ()},
        {"command": ("",)},
        {"command": ("a\0b",)},
        {"starter": "srun"},
        {"env": (("A B", "1"),)},
        {"env": (("", "1"),)},
        {"env": (("A", "\0"),)},
    ],
)
def test_a_job_that_cannot_be(spec: dict[str, object]) -> None:
    with pytest.raises(HvdtoolsError):
        JobSpec(**{"command": ("./run",), "ranks": 1, **spec})  # type: ignore[arg-type]
