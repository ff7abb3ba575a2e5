"""The examples: both scripts of a pair run, are a few lines apart, and compute the same."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paths import PROGRAMS, PROJECT

from hvdtools.launch import JobSpec, detect_host, make_plan, run

EXAMPLES = PROJECT / "examples"
# Each line runs in processes of its own: a process has one framework's Horovod.
FRAMEWORKS = [
    [
        *("ddp", "gradient_accumulation", "lightning_fabric", "metrics", "mixed_precision"),
        *("plain_loop", "transformers_tokens"),
    ],
    ["keras_fit"],
]
NAMES = [name for names in FRAMEWORKS for name in names]
SINGLE = ["train_keras", "train_tensorflow", "train_torch"]
# Numbers have four decimals. bfloat16 rounds the parts of a batch otherwise than the whole.
TOLERANCE = {name: 5e-3 if name == "mixed_precision" else 2e-4 for name in NAMES}
# A metric, a bar and a writer each take a line more; a `with` or an `if` takes two lines.
MOST_ADDED = {"metrics": 10, "keras_fit": 8, "transformers_tokens": 7, "ddp": 9}
# What DistributedDataParallel needs where it runs as one process; hvdtools' side ignores it.
ONE_PROCESS_GROUP = {
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
    "RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_RANK": "0",
}


def script(name: str, side: str) -> str:
    """One script of a pair; `side` is "before" or "after"."""
    return (EXAMPLES / name / f"{side}.py").read_text()


@dataclass(frozen=True)
class Outcome:
    """What the scripts of one side did.

    Attributes:
        lines: For each rank: script -> the lines that it printed.
        text: All output, for a person.
        folder: Where they ran.
    """

    lines: list[dict[str, list[str]]]
    text: str
    folder: Path

    def of_rank_0(self, name: str) -> list[str]:
        assert name in self.lines[0], f"{name} did not run to its end:\n{self.text}"
        return self.lines[0][name]

    def losses(self, name: str) -> list[float]:
        return [float(line.split("loss")[1]) for line in self.of_rank_0(name)]

    def numbers(self, name: str) -> list[float]:
        """Every loss and metric, each printed with four decimals."""
        return [float(n) for line in self.of_rank_0(name) for n in re.findall(r"\d+\.\d+", line)]


def write_scripts(folder: Path, names: list[str], side: str) -> Path:
    """Each script as it stands, and once more with the data in the dataset's own order.

    A shuffled order is another one for each number of ranks.
    """
    folder.mkdir()
    for name in names:
        text = script(name, side)
        assert text.count("shuffle=True") == 1
        (folder / f"{name}.py").write_text(text)
        in_order = text.replace("shuffle=True", "shuffle=False")
        (folder / f"{name}-in-order.py").write_text(in_order)
    return folder


def records(lines: list[str]) -> dict[str, list[str]]:
    found = [json.loads(line) for line in lines if line.startswith('{"script"')]
    return {record["script"]: record["lines"] for record in found}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    home = tmp_path_factory.mktemp("before")
    lines: dict[str, list[str]] = {}
    text = ""
    for number, names in enumerate(FRAMEWORKS):
        folder = write_scripts(home / str(number), names, "before")
        ended = subprocess.run(
            [sys.executable, str(PROGRAMS / "rank_examples.py"), str(folder)],
            env={**os.environ, **ONE_PROCESS_GROUP, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        lines |= records(ended.stdout.splitlines())
        text += ended.stdout
    return Outcome([lines], text, home)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, start_job: Any) -> Outcome:
    home = tmp_path_factory.mktemp("after")
    lines: list[dict[str, list[str]]] = [{}, {}]
    text = ""
    for number, names in enumerate(FRAMEWORKS):
        job = start_job(2, "rank_examples.py", write_scripts(home / str(number), names, "after"))
        for rank in range(2):
            lines[rank] |= records(job.of(rank))
        text += job.text
    return Outcome(lines, text, home)


def test_every_example_is_tested() -> None:
    pairs = sorted(file.parent.name for file in EXAMPLES.glob("*/after.py"))
    single = sorted(file.stem for file in EXAMPLES.glob("*.py"))
    assert (pairs, single) == (sorted(NAMES), sorted([*SINGLE, "resume_torch"]))


@pytest.mark.parametrize("name", NAMES)
def test_few_lines_change(name: str) -> None:
    lines = difflib.ndiff(*(script(name, side).splitlines() for side in ("before", "after")))
    changed = [line for line in lines if line[0] in "+-" and line[1:].strip()]
    added, removed = (sum(line[0] == sign for line in changed) for sign in "+-")
    assert added <= MOST_ADDED.get(name, 6)
    assert removed <= added or name == "ddp"  # DistributedDataParallel takes more lines


@pytest.mark.parametrize("name", NAMES)
def test_both_learn_as_they_stand(name: str, one_process: Outcome, two_ranks: Outcome) -> None:
    for outcome in (one_process, two_ranks):
        last = outcome.losses(name)[-1]
        # Guessing one of 10 digits costs 2.3, one of 50 tokens 3.9.
        assert last < 1.0
    assert two_ranks.lines[1][name] == []  # only rank 0 speaks


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_compute_what_one_process_does(
    name: str, one_process: Outcome, two_ranks: Outcome
) -> None:
    """Every number on the way, where both go through the same data in the same order."""
    tolerance = TOLERANCE[name]
    expected = one_process.numbers(f"{name}-in-order")
    assert two_ranks.numbers(f"{name}-in-order") == pytest.approx(expected, abs=tolerance)


def test_bar_and_tensorboard_are_rank_0s(two_ranks: Outcome) -> None:
    assert two_ranks.losses("metrics")
    speakers = set(re.findall(r"^\[(\d)\] .*epoch 10: 100%", two_ranks.text, re.MULTILINE))
    assert speakers == {"0"}
    (events,) = (two_ranks.folder / "0" / "metrics" / "runs").iterdir()
    assert b"f1" in events.read_bytes()


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_script_learns_on_two_ranks(name: str) -> None:
    lines: list[tuple[int | None, str]] = []
    command = (sys.executable, str(EXAMPLES / f"{name}.py"))
    outcome = run(
        make_plan(JobSpec(command, 2, "horovodrun", oversubscribe=True), detect_host()),
        on_line=lambda rank, stream, line: lines.append((rank, line)),
        timeout_s=120,
    )
    assert outcome.exit_code == 0, lines
    losses = [float(line.split()[-1]) for rank, line in lines if line.startswith("epoch")]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 10
    assert {rank for rank, line in lines if line.startswith("epoch")} == {0}


# Runs a script that gets the signal to stop when it has printed the line of epoch 1.
SIGNALED = """
import builtins, os, runpy, signal, sys

def print_and_signal(*values, **options):
    show(*values, **options)
    if values[0].startswith("epoch 1"):
        os.kill(os.getpid(), signal.SIGUSR1)

show, builtins.print = print, print_and_signal
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_a_preempted_script_saves_and_resumes(tmp_path: Path) -> None:
    path = str(EXAMPLES / "resume_torch.py")
    epochs = []
    for arguments, exit_code in (["-c", SIGNALED, path], 75), ([path], 0):
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == exit_code, ended.stderr
        epochs.append(re.findall(r"epoch (\d):", ended.stdout))
    assert epochs == [["0", "1"], ["2", "3", "4"]]
