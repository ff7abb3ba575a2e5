"""A suite on a Slurm cluster: one job for each number of nodes, gathered into one run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvdtools.bench.results.result_file import FILE_NAME, append, whole_results
from hvdtools.bench.suite.cases import Case, name_of
from hvdtools.bench.suite.suite_file import Suite
from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch import Submission
from hvdtools.launch.schedulers.slurm.request import Slurm


@dataclass(frozen=True)
class Request:
    """What is asked of Slurm for a run.

    Attributes:
        suite_word: The suite's name or file, as `hvdtools bench run` takes it.
        run_id: The run that all jobs belong to.
        folder: Its results; all nodes must see it.
        words: More options for the suite's command inside each job.
        sbatch: More options for sbatch, "--partition=gpu".
    """

    suite_word: str
    run_id: str
    folder: Path
    words: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()

    def part(self, nodes: int) -> Path:
        """The folder of one job's results and log."""
        return self.folder.resolve() / "parts" / self.run_id / f"nodes-{nodes}"


def submissions(request: Request, suite: Suite) -> dict[int, Submission]:
    """Number of nodes -> the job that measures on so many.

    What the suite measures on a part of a node is done by the smallest job. The
    jobs run one after another (Slurm's "singleton"), for two at once would share
    the network that they measure.

    Raises:
        HvdtoolsError: The suite says nothing of nodes.
    """
    if not suite.nodes or suite.ranks_per_node is None:
        raise HvdtoolsError(
            f"The suite {suite.name!r} says nothing of nodes, which Slurm is to allocate: add "
            "--nodes 1,2,4 --ranks-per-node 8."
        )
    made = {}
    for nodes in suite.nodes:
        single = ",".join(map(str, suite.ranks)) if nodes == min(suite.nodes) else ""
        words = (
            *(sys.executable, "-m", "hvdtools", "bench", "run", request.suite_word),
            *("--on", "slurm", "--nodes", str(nodes)),
            *("--ranks-per-node", str(suite.ranks_per_node), "--ranks", single or "none"),
            *("--repeats", str(suite.repeats), "--out", str(request.part(nodes))),
            *("--run", request.run_id, *request.words),
        )
        argv = (
            *("sbatch", "--parsable", f"--job-name=hvdtools-bench-{request.run_id}"),
            *("--dependency=singleton", f"--nodes={nodes}"),
            *(f"--ntasks-per-node={suite.ranks_per_node}", "--open-mode=append"),
            *(f"--output={request.part(nodes) / 'log'}", *request.sbatch),
        )
        document = f"#!/bin/bash\nexec {shlex.join(words)}\n"
        ranks = nodes * suite.ranks_per_node
        made[nodes] = Submission(document, argv, "Slurm's sbatch", "slurm", ranks)
    return made


def jobs_for(cases: Sequence[Case], jobs: dict[int, Submission]) -> dict[int, Submission]:
    """The jobs that these cases need; what runs on a part of a node is for the smallest."""
    wanted = {case.nodes if case.nodes in jobs else min(jobs) for case in cases}
    return {nodes: job for nodes, job in jobs.items() if nodes in wanted}


def run_jobs(jobs: dict[int, Submission], request: Request, say: Callable[[str], None]) -> None:
    """Submit all jobs, follow each to its end, and gather their results, whole or not.

    A job that fails leaves what it measured until then; `say` tells.

    Raises:
        HvdtoolsError: Slurm refuses a job (those before it are cancelled), or the
            user stopped it.
    """
    ids: dict[int, str] = {}
    try:
        for nodes, submission in jobs.items():
            request.part(nodes).mkdir(parents=True, exist_ok=True)
            ids[nodes] = Slurm().submit(submission)
            say(f"nodes {nodes}: submitted as job {ids[nodes]}")
    except HvdtoolsError:
        _cancel(list(ids.values()))
        raise
    for place, (nodes, job_id) in enumerate(ids.items()):
        code = Slurm().follow(job_id, say, say)
        gather(request)
        if code > 128:
            _cancel(list(ids.values())[place:])
            raise HvdtoolsError(
                "The run was stopped: the same command with "
                f"`--resume --run {request.run_id}` goes on where it was."
            )
        if code:
            say(f"nodes {nodes}: job {job_id} ended with exit code {code}")


def _cancel(ids: Sequence[str]) -> None:
    if ids:
        subprocess.run(["scancel", *ids], stdin=subprocess.DEVNULL, check=False)


def gather(request: Request) -> None:
    """Append what the run's jobs have measured to its results, each result once."""
    whole = request.folder / FILE_NAME
    there = [result for result in whole_results(whole) if result.run_id == request.run_id]
    known = {name_of(result) for result in there}
    parts = (request.folder / "parts" / request.run_id).glob(f"*/{FILE_NAME}")
    for part in sorted(parts):
        for result in whole_results(part):
            if name_of(result) not in known:
                append(whole, result)
                known.add(name_of(result))
