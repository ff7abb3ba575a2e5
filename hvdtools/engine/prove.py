"""Prove an installed Horovod: real ranks, one all-reduce, the right numbers."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtools.engine.carry_out import end_group, scrubbed, start_group
from hvdtools.engine.environment import Environment, Mpi
from hvdtools.engine.plan import BuildPlan
from hvdtools.errors import HvdtoolsError

if TYPE_CHECKING:
    from rich.console import Console

LIMIT_S = 120
RANK_PROGRAM = Path(__file__).parent / "rank_check.py"

# A proof is a job of its own on this machine, also inside an allocation or another job.
_OTHER_JOBS = ("HOROVOD_", "SLURM_", "PMI", "PRTE_", "OMPI_COMM_", "OMPI_UNIVERSE_")


@dataclass(frozen=True)
class Proof:
    """One job to run. `device` is "cpu" or "gpu"."""

    framework: str
    controller: str
    device: str
    size: int
    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        """In words: "torch over MPI, 2 ranks"."""
        over = {"mpi": "MPI", "gloo": "Gloo"}[self.controller]
        moved = ", NCCL" if self.device == "gpu" else ""
        return f"{self.framework} over {over}{moved}, {self.size} rank{'s' * (self.size > 1)}"


def proofs(plan: BuildPlan, env: Environment) -> Iterator[Proof]:
    """A job for each framework, controller and device that the plan builds for.

    NCCL is proved with two ranks if there are two GPUs, with one rank if
    there is one, and not at all where there is none.
    """
    sizes = {"cpu": 2}
    if plan.gpu.operations == "nccl" and env.gpus:
        sizes["gpu"] = min(2, len(env.gpus))
    for framework in plan.frameworks:
        for controller in plan.controllers:
            for device, size in sizes.items():
                check = (str(RANK_PROGRAM), framework.name, device, controller, str(size))
                start = _start(controller, size, env)
                argv = (*start, str(env.python.executable), *check)
                yield Proof(framework.name, controller, device, size, argv)


def _start(controller: str, size: int, env: Environment) -> tuple[str, ...]:
    if controller == "gloo":
        run = (str(env.python.executable), "-m", "horovod.runner.launch", "--gloo")
        return (*run, "-np", str(size), "-H", f"localhost:{size}")
    assert env.mpi is not None
    return (str(env.mpi.mpirun), "-n", str(size), *_placement(env.mpi))


def _placement(mpi: Mpi) -> tuple[str, ...]:
    # Two ranks must start on one core as well, and not share one of many.
    return ("--oversubscribe", "--bind-to", "none") if mpi.flavour == "Open MPI" else ()


def prove(plan: BuildPlan, env: Environment, console: Console) -> None:
    """Run every proof; print a line for each.

    Raises:
        HvdtoolsError: A job failed, gave wrong sums, or did not end in time.
    """
    log = plan.log.with_name("prove.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    for proof in proofs(plan, env):
        start_s = time.monotonic()
        with console.status(f"Proving {proof.name}"):
            complaint, output = _run(proof)
        elapsed_s = time.monotonic() - start_s
        with log.open("a") as file:
            file.write(f"$ {' '.join(proof.argv)}\n{output}\n")
        if complaint:
            console.print(f"  ✗ {proof.name}: {complaint} ({elapsed_s:.1f} s)", highlight=False)
            for line in _telling(output):
                console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
            raise HvdtoolsError(
                f"The built Horovod fails its check ({proof.name}: {complaint}); see {log}."
            )
        console.print(f"  ✓ {proof.name}: right sums ({elapsed_s:.1f} s)", highlight=False)
    if plan.gpu.operations == "nccl" and len(env.gpus) < 2:
        seen = "on one GPU with one rank" if env.gpus else "not at all: there is no GPU here"
        console.print(f"  NCCL was proved {seen}.", highlight=False)


def _environment() -> dict[str, str]:
    environment = scrubbed(os.environ, _OTHER_JOBS)
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    environment.setdefault("OMP_NUM_THREADS", "1")
    if os.geteuid() == 0:
        environment["OMPI_ALLOW_RUN_AS_ROOT"] = "1"
        environment["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return environment


def _run(proof: Proof) -> tuple[str, str]:
    """(what is wrong or "", the job's output)."""
    process = start_group(proof.argv, _environment())
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        end_group(process)
        return f"no answer in {LIMIT_S} s", process.communicate()[0]
    except BaseException:
        end_group(process)
        raise
    return judge(proof.size, process.returncode, output), output


def judge(size: int, status: int, output: str) -> str:
    """What is wrong with a job that ended, "" if every rank proved its sums."""
    if status != 0:
        return f"exit status {status}"
    ranks = set(re.findall(rf"PROVED rank (\d+) of {size}\b", output))
    expected = {str(rank) for rank in range(size)}
    return "" if ranks == expected else f"{len(ranks)} of {size} ranks gave the right sums"


def _telling(output: str) -> list[str]:
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"Error|error|wrong|not the", line)]
    return (errors or lines)[-4:]
