"""`hvdtools doctor` as a user calls it, on this machine and with an incompatible Horovod."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import HVDTOOLS

from hvdtools.core import installed


def doctor(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HVDTOOLS, "doctor", *options],
        env={**os.environ, "COLUMNS": "80", **variables},
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_this_machine_has_no_errors_and_its_ranks_pass() -> None:
    horovod = installed.find()
    if horovod is None:
        pytest.skip("Horovod is not installed here")
    done = doctor("--np", "2", "--json", SECRET_TOKEN="do-not-tell")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "do-not-tell" not in done.stdout and "SECRET_TOKEN" not in done.stdout
    report = json.loads(done.stdout)
    assert report["schema"] == 3 and report["level"] != "error"
    assert report["facts"]["horovod"]["installed"]["built_for"] == horovod.built_for
    if "mpi" in horovod.controllers:
        assert (
            report["facts"]["horovod"]["mpi"].split()[0]
            == report["facts"]["mpi"]["flavour"].split()[0]
        )
    here = [name for name in horovod.built_for if installed.framework_version(name)]
    jobs = {check["name"]: check["complaint"] for check in report["checks"]}
    for framework in here:
        for controller in horovod.controllers:
            over = {"mpi": "MPI", "gloo": "Gloo"}[controller]
            assert jobs[f"{framework} over {over}, 2 ranks"] == ""
    levels = [each["level"] for each in report["findings"] if each["subject"] == "all-reduce"]
    assert levels.count("ok") == len(jobs)


def test_zero_ranks_are_rejected() -> None:
    done = doctor("--np", "0")
    assert done.returncode == 2 and done.stdout == ""
    assert "--np" in done.stderr


def install_incompatible_horovod(site: Path) -> None:
    """A Horovod for an old torch, with a library that needs an undefined symbol."""
    (site / "horovod/torch").mkdir(parents=True)
    source = "int no_such_symbol(void); int GlooController(void) { return no_such_symbol(); }"
    source += 'const char *needs = "libmpi.so.12 MPI_Init_thread";'
    library = site / "horovod/torch/mpi_lib_v2.so"
    build = ["cc", "-x", "c", "-", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run(build, input=source, text=True, check=True)
    (site / "horovod/metadata.json").write_text('{"pytorch": "1.0.0"}')
    (site / "horovod/__init__.py").touch()
    (site / "horovod/torch/__init__.py").touch()
    (site / "horovod/torch/mpi_ops.py").write_text(
        "import ctypes, os\n"
        "ctypes.CDLL(os.path.dirname(__file__) + '/mpi_lib_v2.so', os.RTLD_NOW)\n"
    )
    (site / "horovod-0.28.1.dist-info").mkdir()
    (site / "horovod-0.28.1.dist-info/METADATA").write_text("Name: horovod\nVersion: 0.28.1\n")


def test_a_horovod_for_another_torch_is_an_error(tmp_path: Path) -> None:
    if shutil.which("cc") is None or installed.framework_version("torch") is None:
        pytest.skip("no C compiler or no torch")
    install_incompatible_horovod(tmp_path)
    done = doctor("--np", "1", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 80
    flat = " ".join(done.stdout.split())
    assert "✗ error torch: Horovod was built for torch 1.0.0, and torch" in flat
    assert "(ABI mismatch)" in flat and "undefined symbol: no_such_symbol" in flat
    assert "→ run `hvdtools build`" in flat
    assert "0.28.1, built for torch 1.0.0, with MPICH" in flat
    assert "nothing to run it with" in flat


def test_one_screen_also_on_a_terminal_without_check_marks() -> None:
    if installed.find() is None:
        pytest.skip("Horovod is not installed here")
    done = doctor(PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 80
    assert lines[0].startswith("hvdtools ") and lines[1].startswith("? ok       Horovod ")
    assert lines[-1].startswith("No errors.")


def test_the_command_itself_imports_no_framework() -> None:
    code = (
        "import sys\n"
        "from hvdtools.doctor.command import examine_local\n"
        "examine_local(None)\n"
        "print([name for name in ('torch', 'tensorflow', 'horovod') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
