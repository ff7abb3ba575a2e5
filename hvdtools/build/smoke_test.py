"""Smoke tests of an installed Horovod: an all-reduce on real ranks, with known sums."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtools.build.environment import Environment
from hvdtools.build.plan import BuildPlan
from hvdtools.build.programs import end_group, scrubbed, start_group
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.mpi import Mpirun
from hvdtools.core.text import count_noun

if TYPE_CHECKING:
    from rich.console import Console

LIMIT_S = 120
RANK_PROGRAM = Path(__file__).parent / "rank_check.py"
CONTROLLER_NAMES = {"mpi": "MPI", "gloo": "Gloo"}
RANK_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}

_SHOWN = 4  # lines of a failed job
_NOISE = re.compile(r"warnings\.warn|Warning\b")
_ERROR = re.compile(
    r"\b\w*(Error|Exception)\b: |\berror\b|Unable to|refused|timed out|No route|the job has"
    r"|coordinates the ranks, not|sums are wrong|built without NCCL"
)

# Inside an allocation or another job, a smoke test still starts a separate job on this machine.
_OTHER_JOBS = ("HOROVOD_", "SLURM_", "PMI", "PRTE_", "HVDTOOLS_", "OMPI_COMM_", "OMPI_UNIVERSE_")


@dataclass(frozen=True)
class SmokeTest:
    """One job to run. `device` is "cpu" or "gpu"."""

    framework: str
    controller: str
    device: str
    size: int
    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        """As a text, "torch over MPI, 2 ranks"."""
        over = CONTROLLER_NAMES[self.controller] + (", NCCL" if self.device == "gpu" else "")
        return f"{self.framework} over {over}, {count_noun(self.size, 'rank')}"


def smoke_tests(plan: BuildPlan, env: Environment) -> Iterator[SmokeTest]:
    """A job for each framework, controller and device that the plan builds for.

    NCCL is tested with two ranks if there are two GPUs, with one rank if there is one, and not at
    all if there is none.
    """
    sizes = {"cpu": 2}
    if plan.gpu.operations == "nccl" and env.gpus:
        sizes["gpu"] = min(2, len(env.gpus))
    names = [framework.name for framework in plan.frameworks]
    mpirun = Mpirun(str(env.mpi.mpirun), env.mpi.flavour) if env.mpi else None
    yield from jobs(names, plan.controllers, sizes, env.python.executable, mpirun)


def jobs(
    frameworks: Iterable[str],
    controllers: Iterable[str],
    sizes: Mapping[str, int],
    python: Path,
    mpirun: Mpirun | None,
) -> Iterator[SmokeTest]:
    """A job for each framework, controller and device; `sizes` is device -> ranks.

    Needs `mpirun` if the controllers include "mpi".
    """
    for framework, controller in itertools.product(frameworks, controllers):
        for device, size in sizes.items():
            check = (str(RANK_PROGRAM), framework, device, controller, str(size))
            argv = (*_start(controller, size, python, mpirun), str(python), *check)
            yield SmokeTest(framework, controller, device, size, argv)


def _start(controller: str, size: int, python: Path, mpirun: Mpirun | None) -> tuple[str, ...]:
    if controller == "gloo":
        run = (str(python), "-m", "horovod.runner.launch", "--gloo")
        return (*run, "-np", str(size), "-H", f"localhost:{size}")
    assert mpirun is not None
    # More ranks than cores must start too, and all cores must be used.
    placement = ("--oversubscribe", "--bind-to", "none") if mpirun.flavour == "Open MPI" else ()
    return (mpirun.path, "-n", str(size), *placement)


def run_smoke_tests(plan: BuildPlan, env: Environment, console: Console) -> None:
    """Run every smoke test, and print a line for each.

    Raises:
        HvdtoolsError: A job failed, gave wrong sums, or did not end in time.
    """
    log = plan.log.with_name("smoke-test.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    for test in smoke_tests(plan, env):
        with console.status(f"Testing {test.name}"):
            tried = attempt(test)
        with log.open("a") as file:
            file.write(f"$ {' '.join(test.argv)}\n{tried.output}\n")
        took = f"({tried.elapsed_s:.1f} s)"
        if tried.complaint:
            console.print(f"  ✗ {test.name}: {tried.complaint} {took}", highlight=False)
            for line in error_lines(tried.output):
                console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
            raise HvdtoolsError(
                f"The built Horovod fails a smoke test ({test.name}: {tried.complaint}); see {log}."
            )
        console.print(f"  ✓ {test.name}: right sums {took}", highlight=False)
    if plan.gpu.operations == "nccl" and len(env.gpus) < 2:
        extent = "on one GPU with one rank only" if env.gpus else "not at all: there is no GPU here"
        console.print(f"  NCCL was tested {extent}.", highlight=False)


@dataclass(frozen=True)
class Attempt:
    """How a smoke test ended: what is wrong ("" if nothing), its output and its duration."""

    complaint: str
    output: str
    elapsed_s: float


def attempt(test: SmokeTest, ranks_per_core: float = 1) -> Attempt:
    """Run a smoke test to its end; none of its processes is left on return.

    The limit is `LIMIT_S`, and more if several ranks share a core.
    """
    limit_s = LIMIT_S * max(1, ranks_per_core)
    start_s = time.monotonic()
    process = start_group(test.argv, _environment())
    try:
        output, _ = process.communicate(timeout=limit_s)
        complaint = judge(test.size, process.returncode, output)
    except subprocess.TimeoutExpired:
        end_group(process)
        complaint, output = f"no answer in {limit_s:g} s", process.communicate()[0]
    except BaseException:
        end_group(process)
        raise
    return Attempt(complaint, output, time.monotonic() - start_s)


def _environment() -> dict[str, str]:
    environment = {**scrubbed(os.environ, _OTHER_JOBS), **RANK_ENVIRONMENT}
    environment.setdefault("OMP_NUM_THREADS", "1")
    if os.geteuid() == 0:
        environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
        environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return environment


def judge(size: int, status: int, output: str) -> str:
    """What is wrong with a job that ended, "" if every rank had the right sums."""
    if status != 0:
        return f"exit status {status}"
    ranks = set(re.findall(rf"PASSED rank (\d+) of {size}\b", output))
    expected = {str(rank) for rank in range(size)}
    return "" if ranks == expected else f"{len(ranks)} of {size} ranks gave the right sums"


def error_lines(output: str) -> tuple[str, ...]:
    """The lines of a failed job that say why: the first that name an error, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.search(line)]
    return tuple([line for line in lines if _ERROR.search(line)][:_SHOWN] or lines[-_SHOWN:])
