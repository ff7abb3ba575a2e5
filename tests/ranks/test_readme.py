"""What the README shows runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import PROJECT

from hvdtools.launch import JobSpec, detect_host, make_plan, run

README = PROJECT / "README.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README.read_text(), re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if language == "sh" and line.startswith("hvdtools")
]


PROGRAMS = [block for language, block in BLOCKS if language == "python"]
PARTS = [block for language, block in BLOCKS if language == "py"]


@pytest.mark.parametrize("program", PROGRAMS, ids=["torch", "keras"])
def test_the_training_examples_learn_on_two_ranks(program: str, tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text(program)
    lines: list[tuple[int | None, str]] = []
    spec = JobSpec((sys.executable, str(file)), 2, "horovodrun", oversubscribe=True)
    outcome = run(
        make_plan(spec, detect_host()),
        on_line=lambda rank, stream, line: lines.append((rank, line)),
        timeout_s=120,
    )
    assert outcome.exit_code == 0, lines
    losses = [float(line.split()[-1]) for rank, line in lines if line.startswith("epoch")]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 10
    assert {rank for rank, line in lines if line.startswith("epoch")} == {0}


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_programs_call_what_there_is(part: str) -> None:
    import hvdtools.torch as hvt

    compile(part, "README.md", "exec")
    assert {name for name in re.findall(r"hvt\.(\w+)", part) if not hasattr(hvt, name)} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_exists(command: str) -> None:
    """Each option that the README names is in the help text of its command."""
    words = shlex.split(command)
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    verbs = own[: 2 if own[0] == "bench" else 1]
    helped = subprocess.run(
        [sys.executable, "-m", "hvdtools", *verbs, "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in (word for word in own if word.startswith("-")):
        assert re.search(rf"(?<!\S){re.escape(option)}(?!\S)", helped), f"{option} in {helped}"
