"""Shell inside other files: its grammar, its words, and whether it calls what there is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import typer.main
from paths import PROJECT

from hvdtools.cli import app

ROOT = PROJECT


def check_shell(script: str) -> None:
    """Check that bash can read the script, and that shellcheck, where it is, finds no fault."""
    read = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert read.returncode == 0, f"{script}\n{read.stderr}"
    if shutil.which("shellcheck"):
        checked = subprocess.run(
            ["shellcheck", "--shell=bash", "-"],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, f"{script}\n{checked.stdout}"


def check_hvdtools_calls(script: str) -> int:
    """Check each `hvdtools ...` of the script against the command's options, and count them."""
    lines = script.replace("\\\n", " ").splitlines()
    calls = [found[1] for line in lines if (found := re.search(r"\bhvdtools (\w.*)", line))]
    for call in calls:
        check_words(shlex.split(call))
    return len(calls)


def check_words(words: list[str]) -> None:
    """Check words behind `hvdtools`: an unknown option or verb raises here, and nothing runs."""
    command = typer.main.get_command(app)
    while hasattr(command, "get_command"):
        context = typer.Context(command)
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"hvdtools has no {name}"
        command = found
    command.make_context(command.name, words)


def make_targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def make_default(name: str) -> str:
    """The value that the Makefile gives to a variable."""
    found = re.search(rf"^{name} \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None, name
    return found[1]
