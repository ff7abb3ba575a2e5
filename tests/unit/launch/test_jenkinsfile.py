"""launch/Jenkinsfile calls what there is, with the directives that Jenkins knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from script_checks import ROOT, check_hvdtools_calls, check_shell, make_targets

from hvdtools.bench.suite.suite_file import suite_names

TEXT = (ROOT / "launch" / "Jenkinsfile").read_text()
# https://www.jenkins.io/doc/book/pipeline/syntax/: what may stand where, with a block of its own.
BLOCKS = {
    "": {"pipeline"},
    "pipeline": {"options", "parameters", "environment", "stages", "post"},
    "stages": {"stage"},
    "stage": {"steps", "post"},
    "post": {"always"},
}
STEPS = {"sh", "junit", "archiveArtifacts"}


def blocks() -> list[tuple[str, str, list[str]]]:
    """(the block around it, its name, its own lines) of each block."""
    found: list[tuple[str, str, list[str]]] = []
    open_blocks: list[tuple[str, str, list[str]]] = [("", "", [])]
    for line in TEXT.splitlines():
        word = line.strip()
        if word.startswith("//") or not word:
            continue
        if begins := re.fullmatch(r"(\w+)(\('[\w ]+'\))? \{", word):
            block = (open_blocks[-1][1], begins[1], [])
            open_blocks.append(block)
            found.append(block)
        elif word == "}":
            open_blocks.pop()
        else:
            open_blocks[-1][2].append(word)
    assert len(open_blocks) == 1, "the braces do not match"
    return found


def test_blocks_stand_where_jenkins_takes_them() -> None:
    for around, name, _ in blocks():
        assert name in BLOCKS[around], f"{name} in {around or 'the file'}"


def test_steps_are_known() -> None:
    for _, name, lines in blocks():
        if name in ("steps", "always"):
            assert {line.split()[0] for line in lines} <= STEPS


def scripts() -> list[str]:
    return re.findall(r"^ *sh '(.*)'$", TEXT, re.MULTILINE)


def test_every_script_is_found() -> None:
    assert len(scripts()) == len(re.findall(r"\bsh\b", TEXT)) >= 4


@pytest.mark.parametrize("script", scripts())
def test_scripts_call_what_there_is(script: str) -> None:
    check_shell(script + "\n")
    program, *words = script.split()
    if program == "make":
        assert words[0] in make_targets()
    else:
        assert program == ".venv/bin/hvdtools"
        assert check_hvdtools_calls(script) == 1


def test_the_pipeline_builds_tests_and_measures() -> None:
    calls = " ".join(scripts())
    assert "make build" in calls and "make test" in calls and "hvdtools bench run" in calls


def test_parameters_are_used_and_the_suite_is_there() -> None:
    names = re.findall(r"string\(name: '(\w+)'", TEXT)
    assert names and all(f"${name}" in " ".join(scripts()) for name in names)
    suite = re.search(r"name: 'SUITE', defaultValue: '(\w+)'", TEXT)
    assert suite is not None and suite[1] in suite_names()


def test_the_report_of_the_tests_is_where_pytest_writes_it() -> None:
    written = re.search(r"--junitxml=(\S+)'", TEXT)
    assert written is not None and f"junit '{written[1]}'" in TEXT
    assert Path(written[1]).parts[0] == "results"  # which git does not track, and is archived
