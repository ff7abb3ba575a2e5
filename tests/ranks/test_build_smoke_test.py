"""Smoke tests with real ranks: they pass on a working Horovod and reject wrong jobs."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtools.build import smoke_test
from hvdtools.build.detect import detect
from hvdtools.build.environment import Environment, Gpu
from hvdtools.build.plan import BuildPlan, Options, make_plan
from hvdtools.build.sdist import Sdist
from hvdtools.build.smoke_test import Attempt, SmokeTest, attempt, judge, smoke_tests
from hvdtools.core import installed

SDIST = Sdist(Path("/s/horovod-0.28.1.tar.gz"), "0.28.1", "ab" * 32, present=True)


@pytest.fixture(scope="module")
def env() -> Environment:
    found = detect()
    horovod = installed.find()
    if horovod is None or "torch" not in horovod.built_for or shutil.which("g++") is None:
        pytest.skip("no Horovod with torch is installed")
    return found


@pytest.fixture
def plan(env: Environment, tmp_path: Path) -> BuildPlan:
    options = Options(cache=tmp_path, frameworks=("torch",), gpu="none")
    return make_plan(options, env, SDIST)


def only(plan: BuildPlan, env: Environment, controller: str) -> SmokeTest:
    found = [test for test in smoke_tests(plan, env) if test.controller == controller]
    if not found:
        pytest.skip(f"no {controller} here")
    return found[0]


@pytest.mark.parametrize("controller", ["gloo", "mpi"])
def test_two_ranks_pass(plan: BuildPlan, env: Environment, controller: str) -> None:
    tried = attempt(only(plan, env, controller))
    assert tried.complaint == "", tried.output
    assert tried.output.count("PASSED rank") == 2


def alone(env: Environment, controller: str, size: str) -> Attempt:
    """A rank without a launcher: it is rank 0 of 1."""
    program = (str(env.python.executable), str(smoke_test.RANK_PROGRAM))
    return attempt(
        SmokeTest("torch", controller, "cpu", 1, (*program, "torch", "cpu", controller, size))
    )


def test_a_rank_rejects_a_job_of_another_size(env: Environment) -> None:
    tried = alone(env, "gloo", "2")
    assert tried.complaint == "exit status 1"
    assert "the job has 1 ranks, not the 2 that were started" in tried.output


def test_a_rank_rejects_another_controller(env: Environment) -> None:
    ends = {name: alone(env, name, "1") for name in ("mpi", "gloo")}
    rejected = [tried.output for tried in ends.values() if tried.complaint]
    assert len(rejected) == 1
    assert "coordinates the ranks, not" in rejected[0]


def test_a_job_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_test, "LIMIT_S", 0.5)
    start_s = time.monotonic()
    argv = ("sh", "-c", "echo before; sleep 60 & wait")
    tried = attempt(SmokeTest("torch", "gloo", "cpu", 2, argv))
    assert tried.complaint == "no answer in 0.5 s"
    assert "before" in tried.output
    assert time.monotonic() - start_s < 10


def test_every_rank_must_pass() -> None:
    both = "[1,0]<stdout>: PASSED rank 0 of 2\n[1,1]<stdout>: PASSED rank 1 of 2\n"
    assert judge(2, 0, both) == ""
    assert judge(2, 0, "PASSED rank 0 of 2\nPASSED rank 0 of 2\n") == (
        "1 of 2 ranks gave the right sums"
    )
    assert judge(2, 0, "PASSED rank 0 of 1\nPASSED rank 0 of 1\n").startswith("0 of 2")
    assert judge(2, 1, both) == "exit status 1"


def test_nccl_is_tested_on_up_to_two_gpus(plan: BuildPlan, env: Environment) -> None:
    nccl = replace(plan, gpu=replace(plan.gpu, operations="nccl"))

    def sizes(count: int) -> set[int]:
        machine = replace(env, gpus=(Gpu("H100", "90"),) * count)
        return {test.size for test in smoke_tests(nccl, machine) if test.device == "gpu"}

    assert [sizes(count) for count in (0, 1, 2, 8)] == [set(), {1}, {2}, {2}]
