"""Jobs on a real Slurm: every launcher, and what becomes of a job that stops, fails or is lost."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from cluster_slurm import JobEnd, SlurmCluster
from paths import PROGRAMS, SCRIPTS

BIN = Path(sys.executable).parent
SCRIPT = SCRIPTS / "slurm.sbatch"
SWEEP = SCRIPTS / "sweep.sbatch"
LAUNCHERS = ("srun", "mpirun", "horovodrun")
HOSTILE = ("it's", 'say "hi"', "; echo foo", "$HOME", "`id`", "new\nline", "", "*", "\\", "--log")
NOTHING: Mapping[str, str] = MappingProxyType({})
# Slurm sends a time limit's signal up to a minute late, and a requeued job waits for its node.
PATIENCE_S = 240


@dataclass(frozen=True)
class Ended:
    """A job that is over: its number, how it ended, what it and its ranks left."""

    number: str
    end: JobEnd
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def found(self) -> list[dict[str, Any]]:
        """What the ranks wrote, by rank."""
        files = sorted(self.folder.glob("*.json"), key=lambda file: int(file.stem))
        return [json.loads(file.read_text()) for file in files]


class Jobs:
    """Submits jobs as a user would, with the script, and waits for their ends."""

    def __init__(self, slurm: SlurmCluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder

    def submit(
        self, name: str, launcher: str, size: str, program: str, *words: str,
        script: Path = SCRIPT, env: Mapping[str, str] = NOTHING,
    ) -> tuple[str, Path]:  # fmt: skip
        """The job's number and its folder, which stands for FOLDER among the words."""
        folder = self.folder / name
        folder.mkdir()
        settings = {
            "HVDTOOLS_LAUNCHER": launcher,
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
            **env,
        }
        command = [
            "python",
            PROGRAMS / program,
            *(str(folder) if w == "FOLDER" else w for w in words),
        ]
        options = [*size.split(), f"--output={folder}/log"] if script == SCRIPT else size.split()
        number = self.slurm.submit([*options, script, *command], env=settings, cwd=folder)
        return number, folder

    def ended(self, number: str, folder: Path) -> Ended:
        return Ended(number, self.slurm.wait(number, PATIENCE_S), folder)

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, f"waited for {what}"
            time.sleep(0.2)


@pytest.fixture
def jobs(slurm_cluster: SlurmCluster, tmp_path: Path) -> Jobs:
    return Jobs(slurm_cluster, tmp_path)


def test_every_rank_is_there_and_sees_its_words_and_gpus(jobs: Jobs) -> None:
    # Holds two GPUs of host1, so that a job's numbers there and on host2 differ.
    jobs.slurm.submit(["-w", "host1", "--gpus-per-node=2", "-o", "/dev/null", "--wrap", "sleep 60"])
    even = "--nodelist=host1,host2 -N2 --ntasks-per-node=2 --gpus-per-node=2"
    # All GPUs, so that these jobs run one by one: another would change who has how many ranks.
    uneven = "--nodelist=host3,host4 -N2 -n4 --gpus-per-node=4"
    cases = [
        *((launcher, even, ["host1", "host1", "host2", "host2"]) for launcher in LAUNCHERS),
        *((launcher, uneven, ["host3", "host3", "host3", "host4"]) for launcher in LAUNCHERS),
        *((s, f"{uneven} -m cyclic", ["host3", "host4", "host3", "host3"]) for s in LAUNCHERS[:2]),
    ]
    env = {"HOSTILE": "a \"b\" 'c'\n; $HOME \\", "HVDTOOLS_LOG_DIR": "logs"}
    running = [
        jobs.submit(str(n), s, size, "rank_slurm_ends.py", "words", "FOLDER", *HOSTILE, env=env)
        for n, (s, size, _) in enumerate(cases)
    ]
    for (launcher, size, hosts), job in zip(cases, running, strict=True):
        done = jobs.ended(*job)
        assert done.end == JobEnd("COMPLETED", 0, 0), (launcher, size, done.log)
        ranks = done.found()
        assert [rank["host"] for rank in ranks] == hosts, (launcher, size)
        for number, rank in enumerate(ranks):
            assert tuple(rank["words"]) == HOSTILE and rank["HOSTILE"] == env["HOSTILE"]
            seen = (rank["HVDTOOLS_SIZE"], rank["HVDTOOLS_NODES"], rank["HVDTOOLS_SIGNAL"])
            assert seen == ("4", "2", "USR1")
            gpus = {"host1": "2,3", "host2": "0,1"}.get(rank["host"], "0,1,2,3")
            assert rank["CUDA_VISIBLE_DEVICES"] == gpus, (launcher, rank)
            own = (done.folder / "logs" / f"rank-{number}.log").read_text().splitlines()
            assert sorted(own) == [f"rank {number} complains", f"rank {number} is here"]
            assert re.search(rf"^\S*{number}\S* ?rank {number} is here$", done.log, re.MULTILINE)


def test_gradients_are_averaged_over_all_ranks_wherever_they_are(jobs: Jobs) -> None:
    even, uneven = "-w host1,host2 -N2 --ntasks-per-node=2", "-w host3,host4 -N2 -n4"
    uneven += " --gpus-per-node=4"  # all of them, as above
    cases = {"srun": f"{uneven} -m cyclic", "mpirun": even, "horovodrun": uneven}
    running = {s: jobs.submit(s, s, size, "rank_cluster.py") for s, size in cases.items()}
    local_sizes = {"srun": [1, 3, 3, 3], "mpirun": [2, 2, 2, 2], "horovodrun": [1, 3, 3, 3]}
    for launcher, job in running.items():
        done = jobs.ended(*job)
        assert done.end == JobEnd("COMPLETED", 0, 0), (launcher, done.log)
        ranks = [json.loads(text) for text in re.findall(r"\{.*\}", done.log)]
        assert {rank["rank"] for rank in ranks} == {0, 1, 2, 3}
        assert {(rank["size"], rank["nodes"]) for rank in ranks} == {(4, 2)}
        assert sorted(rank["local_size"] for rank in ranks) == local_sizes[launcher]
        assert max(rank["error"] for rank in ranks) < 1e-12


def test_the_exit_code_is_that_of_the_rank_that_failed_first(jobs: Jobs) -> None:
    cases = [(launcher, code) for launcher in LAUNCHERS for code in (3, 137)]
    running = [
        jobs.submit(f"{s}-{code}", s, "-N2 -n4", "rank_slurm_ends.py", "fails", "2", str(code))
        for s, code in cases
    ]
    for (launcher, code), job in zip(cases, running, strict=True):
        done = jobs.ended(*job)
        assert done.end == JobEnd("FAILED", code, 0), (launcher, done.log)
        assert done.log.count(f"hvdtools: this rank ended with exit code {code}\n") == 1


def test_a_training_that_saves_when_told_goes_on_and_equals_one_process(jobs: Jobs) -> None:
    running = {
        s: jobs.submit(s, s, "-N2 --ntasks-per-node=1", "rank_slurm_training.py", "FOLDER")
        for s in ("srun", "mpirun")  # one over Gloo, one over MPI
    }
    for launcher, (number, folder) in running.items():
        jobs.until((folder / "runs").exists, f"{launcher}'s training")
        jobs.slurm.run(["scancel", "--batch", "--signal=USR1", number])
    for launcher, job in running.items():
        done = jobs.ended(*job)
        assert done.end == JobEnd("COMPLETED", 0, 0), (launcher, done.log)
        assert jobs.slurm.show(done.number)["Restarts"] == "1"
        saved = re.findall(r"saved at step (\d+), child None$", done.log, re.MULTILINE)
        assert len(saved) == 2 and saved[0] == saved[1], (launcher, done.log)
        ranks = [json.loads(text) for text in re.findall(r"\{.*\}", done.log)]
        assert {rank["rank"] for rank in ranks} == {0, 1}
        for rank in ranks:
            assert (rank["size"], rank["first"]) == (2, int(saved[0]))
            assert rank["error"] < 1e-12


def test_what_goes_back_into_the_queue(jobs: Jobs) -> None:
    words = ("rank_slurm_ends.py", "in-turn")
    saves, restarts = "-n1 --comment=mine", {"HVDTOOLS_RESTARTS": "1"}
    dying = {
        launcher: jobs.submit(
            f"dies-{launcher}", launcher, "-N2 -n2", "rank_slurm_ends.py", "dies", "FOLDER"
        )
        for launcher in LAUNCHERS
    }
    finishing = jobs.submit("finishing", "srun", saves, *words, "75", "4", "0", env=restarts)
    failing = jobs.submit("failing", "srun", saves, *words, "4", "5", env=restarts)
    for launcher, (number, folder) in dying.items():
        jobs.until(lambda: len(list(folder.glob("*.started"))) == 2, launcher)  # noqa: B023
        jobs.slurm.run(["scancel", "--batch", "--signal=USR1", number])
    for launcher, job in dying.items():
        done = jobs.ended(*job)
        assert done.end == JobEnd("COMPLETED", 0, 0), (launcher, done.log)
        assert "ended with exit code 138" in done.log
    # A failure uses a restart up; having saved does not. The count is in the comment.
    done = jobs.ended(*finishing)
    assert done.end == JobEnd("COMPLETED", 0, 0), done.log
    shown = jobs.slurm.show(done.number)
    assert (shown["Restarts"], shown["Comment"].strip()) == ("2", "mine hvdtools-restarts=1")
    done = jobs.ended(*failing)
    assert done.end == JobEnd("FAILED", 5, 0) and jobs.slurm.show(done.number)["Restarts"] == "1"


@pytest.mark.slow
def test_the_time_limits_own_signal_lets_the_ranks_save(jobs: Jobs) -> None:
    """A minute is the shortest limit that Slurm knows."""
    late = jobs.submit(
        "late", "srun", "-n1 -t1 --signal=B:USR1@58", "rank_slurm_ends.py", "dies", "FOLDER"
    )
    done = jobs.ended(*late)
    assert done.end == JobEnd("COMPLETED", 0, 0), done.log
    assert "telling the ranks to save" in done.log


def test_a_cancelled_job_leaves_no_process_on_any_node(jobs: Jobs) -> None:
    running = [jobs.submit(s, s, "-N2 -n4", "rank_slurm_ends.py", "stays") for s in LAUNCHERS]
    for _, folder in running:
        log = folder / "log"
        jobs.until(lambda: log.exists() and log.read_text().count("stays") == 4, "ranks")  # noqa: B023
    jobs.slurm.run(["scancel", *(number for number, _ in running)])
    for job in running:
        assert jobs.ended(*job).end.state == "CANCELLED"
    jobs.until(
        lambda: not jobs.slurm.cluster.processes(*jobs.slurm.nodes), "the end of all processes"
    )


def test_a_job_whose_node_dies_runs_elsewhere(jobs: Jobs) -> None:
    size = "-N2 -n2 --nodelist=host2 --exclude=host4"
    number, folder = jobs.submit("dies", "srun", size, "rank_slurm_ends.py", "dies", "FOLDER")
    jobs.until(lambda: len(list(folder.glob("*.started"))) == 2, "the ranks")
    first = jobs.slurm.show(number)["NodeList"]
    lost = "host1" if "1" in first else "host3"
    jobs.slurm.cluster.crash(lost)
    # Slurm would see for itself that the node is silent, later.
    jobs.slurm.run(["scontrol", "update", f"NodeName={lost}", "State=DOWN", "Reason=crashed"])
    done = jobs.ended(number, folder)
    assert done.end == JobEnd("COMPLETED", 0, 0), done.log
    shown = jobs.slurm.show(number)
    assert shown["Restarts"] == "1" and lost[-1] not in shown["NodeList"].removeprefix("host")


def test_a_sweep_gives_nodes_back_and_each_element_is_requeued_by_itself(jobs: Jobs) -> None:
    size = "--array=1,2,3 -N4 --ntasks-per-node=2"
    env = {"HVDTOOLS_LOG_DIR": "logs"}
    program = ("rank_slurm_ends.py", "in-turn", "75", "0")
    number, folder = jobs.submit("sweep", "srun", size, *program, script=SWEEP, env=env)
    for nodes in (1, 2, 3):
        element = f"{number}_{nodes}"
        end = jobs.slurm.wait(element, PATIENCE_S)
        log = (folder / f"slurm-{number}-nodes-{nodes}.out").read_text()
        assert end == JobEnd("COMPLETED", 0, 0), log
        shown = jobs.slurm.show(element)
        assert (shown["NumNodes"], shown["Restarts"]) == (str(nodes), "1")
        ranks = range(2 * nodes)
        assert log.count("this rank ended with exit code 75") == len(ranks)
        files = {file.name for file in (folder / "logs" / f"nodes-{nodes}").iterdir()}
        starts = ("", ".restart-1")
        assert files == {f"rank-{rank}{start}.log" for rank in ranks for start in starts}
    assert not list(folder.glob("slurm_job_*")), "scontrol's own scripts are left"


def test_a_folder_of_logs_is_not_written_to_twice(jobs: Jobs) -> None:
    env = {"HVDTOOLS_LOG_DIR": str(jobs.folder / "logs")}
    words = ("rank_slurm_ends.py", "in-turn", "0")
    assert jobs.ended(*jobs.submit("1", "srun", "-n1", *words, env=env)).end.exit_code == 0
    done = jobs.ended(*jobs.submit("2", "srun", "-n1", *words, env=env))
    assert done.end == JobEnd("FAILED", 2, 0) and "output of an earlier job" in done.log
