"""The wheel without a clone: what is in it, and that it trains, launches and measures."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
from paths import BENCHMARKS, PROJECT, SCRIPTS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git would clone: nothing is left in the project."""
    clone, folder = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    there = "\0".join(name for name in files.split("\0") if name and (PROJECT / name).exists())
    subprocess.run(
        f"tar c --null --files-from=- | tar x -C '{clone}'",
        cwd=PROJECT, shell=True, input=there, text=True, check=True,
    )  # fmt: skip
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(clone)], check=True, capture_output=True)
    (built,) = folder.glob("hvdtools-*.whl")
    return built


def test_the_wheel_holds_all_that_the_commands_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        listed = configparser.ConfigParser()
        listed.read_string(archive.read(entry_points).decode())
    assert dict(listed["console_scripts"]) == {"hvdtools": "hvdtools.cli:main"}
    programs = {
        f"hvdtools/bench/programs/{file.relative_to(BENCHMARKS)}"
        for file in BENCHMARKS.rglob("*.py")
    }
    suites = {f"hvdtools/bench/programs/suites/{file.name}" for file in BENCHMARKS.glob("suites/*")}
    scripts = {f"hvdtools/launch/scripts/{file.name}" for file in SCRIPTS.iterdir()}
    package = PROJECT / "hvdtools"
    modules = {
        str(file.relative_to(PROJECT))
        for pattern in ("*.py", "*.cmake", "*.json", "*.j2", "*.conf", "py.typed")
        for file in package.rglob(pattern)
        if "__pycache__" not in file.parts
    }
    assert len(programs) > 20 and len(suites) >= 4 and len(scripts) > 8 and len(modules) > 200
    assert programs | suites | scripts | modules <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


@pytest.mark.slow
def test_a_fresh_environment_without_a_clone(wheel: Path, tmp_path: Path) -> None:
    """Installs the frameworks anew and trains the demo: several minutes."""

    def run(*command: str | Path, **env: str) -> str:
        variables: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), **env}
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    bin = tmp_path / "environment" / "bin"
    run(sys.executable, "-m", "venv", tmp_path / "environment")
    frameworks = [
        f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "tensorflow-cpu")
    ]
    run(bin / "pip", "install", *frameworks, f"hvdtools[mpi,build,demo] @ file://{wheel}")
    run(bin / "hvdtools", "build")
    where = run(bin / "python", "-c", "import hvdtools; print(hvdtools.__file__)")
    assert Path(where.strip()).is_relative_to(tmp_path / "environment")
    assert "gloo" in run(bin / "hvdtools", "doctor", "--np", "2").lower()
    program = "import hvdtools.torch as hvt; print(hvt.init().size)"
    said = run(
        bin / "hvdtools", "launch", "-n", "2", "--oversubscribe", "--", "python", "-c", program
    )
    assert sorted(said.splitlines()) == ["[0] 2", "[1] 2"]
    run(bin / "hvdtools", "bench", "run", "demo")
    assert (tmp_path / "results" / "demo" / "report.html").is_file()
