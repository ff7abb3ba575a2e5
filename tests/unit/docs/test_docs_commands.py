"""Every command, option, path and script that the documentation shows exists."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import PROJECT

PAGES = sorted((PROJECT / "docs" / "pages").rglob("*.md"))
TEXTS = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md")] + PAGES
BLOCKS = [
    (page, language, block)
    for page in TEXTS
    for language, block in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)
]
LINES = [
    line.split(" #")[0].strip()
    for _, language, block in BLOCKS
    if language == "sh"
    for line in block.replace("\\\n", " ").splitlines()
]
COMMANDS = sorted({line for line in LINES if line.startswith("hvdtools ")})


@functools.cache
def help_of(*verbs: str) -> str:
    """What a command's --help prints."""
    return subprocess.run(
        [sys.executable, "-m", "hvdtools", *verbs, "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_exists(command: str) -> None:
    words = shlex.split(command)
    own = words[1 : words.index("--")] if "--" in words else words[1:]
    helped = help_of(*own[: 2 if own[0] == "bench" else 1])
    for option in (word.partition("=")[0] for word in own if word.startswith("-")):
        assert re.search(rf"(?<!\S){re.escape(option)}(?!\S)", helped), f"{option} in {helped}"


SUBMITTED = [
    command
    for command in COMMANDS
    if re.search("--on (slurm|pbs|grid-engine|kubernetes|sagemaker)", command)
    and "hvdtools launch" in command
    and "--nodes" in command  # without, it is a step of the allocation that it runs in
]


@pytest.mark.parametrize("command", SUBMITTED)
def test_every_submission_can_be_made(command: str) -> None:
    words = shlex.split(command)[2:]
    if "--dry-run" not in words:
        words.insert(0, "--dry-run")
    subprocess.run([sys.executable, "-m", "hvdtools", "launch", *words], check=True)


def test_every_option_in_the_text_exists() -> None:
    """`--option` in a table or a sentence of a page on launching, doctor or bench."""
    known = "".join(help_of(*verbs) for verbs in (["launch"], ["doctor"], ["build"]))
    known += "".join(help_of("bench", verb) for verb in ("run", "report", "compare", "predict"))
    pages = [page for page in PAGES if page.parent.name == "launching" or page.stem == "doctor"]
    named = {
        (page.name, option)
        for page in pages
        for span in re.findall(r"`([^`\n]+)`", page.read_text())
        # Options of other programs are shown with the program: `srun --mpi`, `docker --build-arg`.
        for option in re.findall(r"^(--[a-z-]+)", span)
    }
    others = {"--mpi", "--gpus-per-task", "--build-arg"}
    missing = {(page, o) for page, o in named if not re.search(rf"(?<!\S){o}(?!\S)", known)}
    assert {pair for pair in missing if pair[1] not in others} == set()


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    shown = {line.split()[1] for line in LINES if line.startswith("make ")}
    assert shown and shown <= targets


def test_every_path_exists() -> None:
    folders = "benchmarks|docs|examples|hvdtools|launch|tests"
    pattern = rf"(?<![\w/.-])((?:{folders})/[\w./-]+)(?![\w./*-])"
    missing = {
        (page.name, path)
        for page in TEXTS
        for path in re.findall(pattern, page.read_text())
        if not (PROJECT / path.rstrip(".")).exists()
    }
    assert missing == set()


def test_the_readme_is_short_and_shows_the_example_as_it_is() -> None:
    text = (PROJECT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert program == (PROJECT / "examples" / "train_torch.py").read_text()


def test_job_files_in_the_text_are_read(tmp_path: Path) -> None:
    files = [
        block for page, language, block in BLOCKS if language == "toml" and "command =" in block
    ]
    assert files
    for number, block in enumerate(files):
        file = tmp_path / f"{number}.toml"
        file.write_text(block)
        subprocess.run(
            [sys.executable, "-m", "hvdtools", "launch", "--job", str(file), "--dry-run"],
            capture_output=True,
            check=True,
        )
