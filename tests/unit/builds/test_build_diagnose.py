"""Diagnosis of logs that real tools write here."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hvdtools.build.diagnose import SHOWN, diagnose

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


def output_of(argv: list[str], cwd: Path, **options: object) -> str:
    done = subprocess.run(
        argv,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )
    assert done.returncode != 0
    return str(done.stdout)


@needs_compiler
def test_the_first_errors_of_the_compiler_are_shown(tmp_path: Path) -> None:
    (tmp_path / "a.cc").write_text(
        "#warning a first line of noise\n"
        "int f() { return no_such_name; }\n" + "void g() { other_name(); }\n" * 20
    )
    found = diagnose("noise\n" * 50 + output_of(["g++", "-c", "a.cc"], tmp_path))
    assert "no_such_name" in found.lines[0] and "error:" in found.lines[0]
    assert len(found.lines) == SHOWN
    assert "compiler rejected" in found.advice


@needs_compiler
def test_a_missing_python_h_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.cc").write_text("#include <Python.h>\n")
    found = diagnose(output_of(["g++", "-c", "a.cc"], tmp_path))
    assert "Python.h" in found.lines[0]
    assert "python3-dev" in found.advice


@needs_compiler
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int main(void) { return 0; }\n")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    found = diagnose(output_of(["sh", "-c", "gcc -S a.c -o - > /dev/full"], tmp_path))
    assert "No space left on device" in "".join(found.lines)
    assert "disk is full" in found.advice


@needs_compiler
def test_a_compiler_out_of_memory_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.cc").write_text("#include <iostream>\n#include <regex>\n")

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (48 << 20, 48 << 20))

    log = output_of(["g++", "-O2", "-c", "a.cc"], tmp_path, preexec_fn=little_memory)
    assert "--jobs 1" in diagnose(log).advice, log


@needs_compiler
def test_a_compiler_that_was_killed_is_named(tmp_path: Path) -> None:
    # cc1plus waits for a source that never comes; the kernel's killer sends what kill -9 sends.
    script = "mkfifo a.cc; g++ -c a.cc & sleep 1; pkill -9 -P $!; wait $!; exit $?"
    log = output_of(["bash", "-c", script], tmp_path)
    found = diagnose(log)
    assert "Killed signal" in "".join(found.lines)
    assert "--jobs 1" in found.advice


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake here")
def test_what_cmake_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(p NONE)\nfind_package(NoSuch REQUIRED)\n"
    )
    found = diagnose(output_of(["cmake", "."], tmp_path))
    assert found.lines[0].startswith("CMake Error")
    assert any("NoSuch" in line for line in found.lines)
    assert "CMake could not configure" in found.advice


def test_pip_without_the_package(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run"]
    found = diagnose(output_of([*pip, "no-such-distribution-anywhere"], tmp_path))
    assert "no-such-distribution-anywhere" in found.lines[0]
    assert "--wheel-dir" in found.advice


def test_of_an_unknown_log_the_end_is_shown() -> None:
    found = diagnose("\n".join(f"line {number}" for number in range(99)))
    assert found.lines[-1] == "line 98"
    assert "end of the log" in found.advice
