"""A job as a file, and how flags and file become one job."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from paths import HVDTOOLS

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.jobfile import read_job_file
from hvdtools.launch.parse_options import parse_options
from hvdtools.launch.schedulers.slurm.request import Slurm
from hvdtools.launch.schedulers.ssh import Hosts
from hvdtools.launch.spec import JobSpec


def written(folder: Path, text: str) -> Path:
    file = folder / "job.toml"
    file.write_text(text)
    return file


def test_a_file_says_what_flags_say(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        hosts = "a:2,b:2"
        launcher = "mpirun"
        timeout = 60
        show-binding = true
        pass = ["--mca", "x"]
        command = ["python", "train.py", "; echo"]
        [env]
        A = "1"
        """,
    )
    values, command = read_job_file(file)
    assert parse_options(values, command, {}) == JobSpec(
        ("python", "train.py", "; echo"),
        4,
        "mpirun",
        (("A", "1"),),
        on=Hosts((Host("a", 2), Host("b", 2))),
        show_binding=True,
        timeout_s=60,
        pass_on=("--mca", "x"),
    )


def test_old_names_work_with_a_warning(tmp_path: Path) -> None:
    file = written(tmp_path, 'ranks = 2\nwith = "mpirun"\ncommand = ["true"]')
    for words in (("--job", str(file)), ("-n", "2", "--with", "mpirun", "--", "true")):
        done = subprocess.run(
            [HVDTOOLS, "launch", "--dry-run", *words], capture_output=True, text=True, check=True
        )
        assert "mpirun -n 2 " in done.stdout
        assert "with is now called " in done.stderr and "launcher; " in done.stderr
    helped = subprocess.run([HVDTOOLS, "launch", "--help"], capture_output=True, text=True)
    assert "--launcher" in helped.stdout and "--with" not in helped.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ranks = 'two'", "ranks must be a whole number, not 'two'"),
        ("ranks = true", "ranks must be a whole number, not True"),
        ("oversubscribe = 1", "oversubscribe must be true or false"),
        ("rank = 2", "unknown key 'rank': choose one of "),
        ("command = 'python train.py'", "command must be a list of words"),
        ("pass = 'x'", "pass must be a list of texts"),
        ("ranks = ", "is no TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(HvdtoolsError) as caught:
        read_job_file(written(tmp_path, text))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def dry_run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HVDTOOLS, "launch", "--dry-run", *words],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'hosts = "a:2"\nranks = 2\nwith = "horovodrun"\ncommand = ["true"]\nenv = ["A=1", "B=1"]\n',
    )
    done = dry_run("--job", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-np 2 -H a:2 " in done.stdout and done.stdout.startswith("env PYTHONUNBUFFERED= ")
    words = ("--job", str(file), "--hosts", "c:4", "-n", "3", "--env", "B=2", "--", "ls")
    done = dry_run(*words, cwd=tmp_path)
    assert "-np 3 -H c:4 " in done.stdout and "A=1 B=2" in done.stdout
    assert done.stdout.endswith("-- ls'\n")


def test_a_plan_is_kept_and_never_over_another(tmp_path: Path) -> None:
    file = tmp_path / "job.sh"
    done = dry_run("-n", "1", "--save", str(file), "--", "echo", "it's", "; a\nb", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert file.read_text() == f"#!/bin/sh\nexec {done.stdout}"
    ran = subprocess.run([file], capture_output=True, text=True, check=True, timeout=60)
    assert "it's ; a" in ran.stdout
    again = dry_run("-n", "1", "--save", str(file), "--", "true", cwd=tmp_path)
    assert again.returncode == 2 and "is there already" in again.stderr
    assert file.read_text() == f"#!/bin/sh\nexec {done.stdout}"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"on": "slurm", "hosts": "a:1"}, "--hosts is for --on hosts"),
        ({"ranks": 1, "partition": "x"}, "--partition is for --on slurm"),
        ({"on": "hosts", "partition": "x", "hosts": "a:1"}, "this job is on hosts"),
        ({}, "Say how many ranks"),
    ],
)
def test_what_a_target_does_not_know(values: dict[str, Any], says: str) -> None:
    with pytest.raises(HvdtoolsError, match=says):
        parse_options(values, ("true",), {})


def test_options_of_a_target_reach_it() -> None:
    spec = parse_options(
        {"on": "slurm", "partition": "gpu", "nodes": 2, "ranks-per-node": 3}, ("x",), {}
    )
    assert isinstance(spec.on, Slurm) and spec.on.partition == "gpu"
    assert (spec.ranks, spec.nodes, spec.ranks_per_node) == (6, 2, 3)
