"""`hvdtools build` as a user calls it, in a separate environment: Horovod is not compiled.

The environment is a fresh virtual one that sees this one's packages, so that
installs land in it and not here. Its Horovods are tiny archives that build
in a second: one is broken in its C++, one builds but cannot reduce.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import PROJECT

Command = Callable[..., subprocess.CompletedProcess[str]]

REPOSITORY = PROJECT
pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("g++", "cmake")), reason="no compiler or cmake here"
)

SETUP = """
import subprocess
from setuptools import Distribution, setup

class Native(Distribution):
    def has_ext_modules(self):
        return True

{work}
setup(name="horovod", version="0.28.1", packages=["horovod"], distclass=Native)
"""
BROKEN = 'open("a.cc", "w").write("int f() { return no_such_name; }")\n'
BROKEN += 'subprocess.check_call(["g++", "-c", "a.cc"])'


def archive(folder: Path, name: str, work: str = "") -> Path:
    """A source archive with the name and version of Horovod."""
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: horovod\nVersion: 0.28.1\n",
        "setup.py": SETUP.format(work=work),
        "horovod/__init__.py": f"WHO = {name!r}\n",
    }
    path = folder / f"{name}.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for member, text in files.items():
            entry = tarfile.TarInfo(f"horovod-0.28.1/{member}")
            entry.size = len(text)
            file.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that sees the packages of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    folder = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = home / "lib" / folder / "site-packages"
    seen = [str(REPOSITORY), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "seen.pth").write_text("\n".join(seen) + "\n")
    return home / "bin" / "python"


@pytest.fixture
def site(python: Path) -> Path:
    """Its site-packages, without Horovod."""
    found = next(python.parent.parent.glob("lib/python*/site-packages"))
    for path in found.glob("horovod*"):
        shutil.rmtree(path)
    return found


@pytest.fixture
def build(python: Path, tmp_path: Path) -> Command:
    """Runs `hvdtools build` there, with a separate cache."""

    def run(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), **variables}
        code = "from hvdtools.cli import main; main()"
        return subprocess.run(
            [str(python), "-c", code, "build", *options],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def rejected(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, one line with these words, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("hvdtools: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_bad_input_is_one_line(build: Command, tmp_path: Path) -> None:
    (tmp_path / "text.tar.gz").write_text("not an archive")
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other-1.tar.gz"
    with tarfile.open(other, "w:gz") as file:
        entry = tarfile.TarInfo("other-1/PKG-INFO")
        text = b"Name: other\nVersion: 1\n"
        entry.size = len(text)
        file.addfile(entry, io.BytesIO(text))
    rejected(build("--frameworks", "torch,mxnet"), "'mxnet'", "tensorflow, torch")
    rejected(build("--gpu", "rocm"), "'rocm'", "auto, nccl, none")
    rejected(build("--cuda-arch", "sm_90"), "'sm_90'", "80,90")
    rejected(build("--sdist", "absent.tar.gz"), "there is no file absent.tar.gz")
    rejected(build("--sdist", "text.tar.gz"), "is not Horovod's source archive")
    rejected(build("--sdist", str(other)), "is not Horovod's source archive")
    rejected(build("--wheel-dir", "absent"), "there is no folder absent")
    rejected(build("--wheel-dir", "empty"), "holds no horovod-*.tar.gz", "--sdist")
    rejected(build(CXX="no-such-compiler"), "CXX is 'no-such-compiler'")


def test_no_compiler_on_path(build: Command, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    rejected(build(PATH=str(tmp_path / "bin"), CXX=""), "No C++ compiler was found: install g++")


def test_nccl_that_cannot_be_built_is_rejected(build: Command) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("a GPU machine may be able to")
    rejected(build("--gpu", "nccl"), "--gpu nccl cannot be built:")


def test_a_cache_that_cannot_be_written(build: Command, tmp_path: Path) -> None:
    source = archive(tmp_path, "fine")
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    rejected(build("--sdist", str(source), XDG_CACHE_HOME="/proc"), "XDG_CACHE_HOME")


def test_the_dry_run_is_a_script_and_touches_nothing(build: Command, tmp_path: Path) -> None:
    done = build("--dry-run", "--jobs", "3")
    assert done.returncode == 0, done.stderr
    subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
    for piece in (
        "export MAKEFLAGS=-j3",
        "export CMAKE_TOOLCHAIN_FILE=",
        "export HOROVOD_CMAKE=",
        "pip download",
        "pip wheel",
        "pip install --force-reinstall",
    ):
        assert piece in done.stdout
    assert not (tmp_path / "cache").exists()


def test_a_broken_build_leaves_the_old_install(build: Command, site: Path, tmp_path: Path) -> None:
    old = site / "horovod"
    old.mkdir()
    (old / "__init__.py").write_text("WHO = 'old'\n")
    done = build("--sdist", str(archive(tmp_path, "broken", BROKEN)))
    rejected(done, "Could not build Horovod", "The full log is")
    assert "no_such_name" in done.stdout and "error:" in done.stdout
    assert (old / "__init__.py").read_text() == "WHO = 'old'\n"
    assert not list(tmp_path.glob("cache/hvdtools/wheels/*/*.whl"))


def install_old(python: Path, site: Path, folder: Path) -> None:
    """An older Horovod, installed by pip."""
    source = archive(folder, "old")
    pip = [str(python), "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--ignore-installed", str(source)], check=True, timeout=60)
    assert "old" in (site / "horovod/__init__.py").read_text()


def contents(site: Path) -> dict[str, bytes]:
    files = (path for folder in site.glob("horovod*") for path in folder.rglob("*.*"))
    return {str(path): path.read_bytes() for path in files if "__pycache__" not in path.parts}


def test_a_horovod_that_fails_its_smoke_test_is_removed(
    build: Command, python: Path, site: Path, tmp_path: Path
) -> None:
    source = archive(tmp_path, "builds-but-cannot-reduce")
    done = build("--sdist", str(source), "--frameworks", "torch")
    rejected(done, "fails a smoke test (torch over", "smoke-test.log")
    assert contents(site) == {}
    assert not list(tmp_path.glob("cache/hvdtools/wheels/*/*.whl"))

    install_old(python, site, tmp_path)
    before = contents(site)
    done = build("--sdist", str(source), "--frameworks", "torch")
    rejected(done, "fails a smoke test", "Horovod 0.28.1 is unchanged")
    assert contents(site) == before


def test_up_to_date_says_so_at_once(build: Command, site: Path, tmp_path: Path) -> None:
    """The note in the installed package decides, so this one need not work."""
    source = str(archive(tmp_path, "current"))
    dry = build("--dry-run", "--sdist", source).stdout
    key = next(line for line in dry.splitlines() if line.startswith("mkdir")).rsplit("/", 1)[1]
    (site / "horovod").mkdir()
    (site / "horovod/__init__.py").touch()
    (site / "horovod-0.28.1.dist-info").mkdir()
    (site / "horovod-0.28.1.dist-info/METADATA").write_text("Name: horovod\nVersion: 0.28.1\n")
    note = site / "horovod/hvdtools.json"
    note.write_text(json.dumps({"key": key}))
    elapsed_s = []
    for _ in range(3):  # the best of three: other work may slow the machine
        start_s = time.monotonic()
        done = build("--sdist", source)
        elapsed_s.append(time.monotonic() - start_s)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("up to date: Horovod 0.28.1")
    assert min(elapsed_s) < 2
    note.write_text(json.dumps({"key": "another"}))
    assert "up to date" not in build("--sdist", source, "--jobs", "1").stdout
