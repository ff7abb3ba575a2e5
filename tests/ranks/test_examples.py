"""The README's diffs: both scripts run, are a few lines apart, and compute the same."""

from __future__ import annotations

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

FOUND = re.findall(
    r"<summary>([^<]*)</summary>(?:(?!</details>).)*?```diff\n(.*?)```",
    (PROJECT / "README.md").read_text(),
    re.DOTALL,
)
# By the summary's first word: "plain", "mixed", ...
DIFFS = {re.findall(r"\w+", summary)[0].lower(): diff for summary, diff in FOUND}
# Each line runs in processes of its own: a process has one framework's Horovod.
FRAMEWORKS = [["plain", "mixed", "gradient", "hugging", "lightning", "metrics"], ["keras"]]
NAMES = [name for names in FRAMEWORKS for name in names]
# Numbers have four decimals. bfloat16 rounds the parts of a batch otherwise than the whole.
TOLERANCE = {name: 5e-3 if name == "mixed" else 2e-4 for name in NAMES}


def script(name: str, sign: str) -> str:
    """One side of a diff: its context and the lines that start with `sign`."""
    return "".join(
        line[1:] + "\n" for line in DIFFS[name].splitlines() if line[:1] in ("", " ", sign)
    )


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


def write_scripts(folder: Path, names: list[str], sign: str) -> Path:
    """Each script as it stands, and once more with the data in the dataset's own order.

    A shuffled order is another one for each number of ranks.
    """
    folder.mkdir()
    for name in names:
        text = script(name, sign)
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
        folder = write_scripts(home / str(number), names, "-")
        ended = subprocess.run(
            [sys.executable, str(PROGRAMS / "rank_examples.py"), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
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
        job = start_job(2, "rank_examples.py", write_scripts(home / str(number), names, "+"))
        for rank in range(2):
            lines[rank] |= records(job.of(rank))
        text += job.text
    return Outcome(lines, text, home)


def test_every_example_is_known() -> None:
    assert sorted(DIFFS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_few_lines_change(name: str) -> None:
    added, removed = (
        sum(line.startswith(sign) for line in DIFFS[name].splitlines()) for sign in "+-"
    )
    # A metric, a bar and a writer each take a line more.
    assert removed <= added <= (10 if name == "metrics" else 6)
    for sign in "-+":
        assert all(len(line) <= 100 for line in script(name, sign).splitlines())


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
