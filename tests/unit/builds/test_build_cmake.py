"""The cmake settings, on a small project with the layout of Horovod: real cmake and compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hvdtools.build.detect import detect
from hvdtools.build.environment import Environment
from hvdtools.build.plan import Options, make_plan
from hvdtools.build.programs import scrubbed
from hvdtools.build.sdist import Sdist

HOROVOD = """
cmake_minimum_required(VERSION 3.13 FATAL_ERROR)
project(horovod CXX)
set(CMAKE_CXX_STANDARD 14)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
find_package(MPI)
include(CheckLanguage)
check_language(CUDA)
message(STATUS "seen: MPI_CXX=${MPI_CXX_FOUND} CUDA=${CMAKE_CUDA_COMPILER}")
add_subdirectory(gloo)
add_subdirectory(horovod/tensorflow)
"""
TENSORFLOW = """
add_library(tensorflow SHARED
  ${PROJECT_SOURCE_DIR}/horovod/tensorflow/mpi_ops.cc
  ${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc)
"""
# The CMake version of gloo, which CMake 4 rejects by default.
GLOO = """
cmake_minimum_required(VERSION 2.8.12 FATAL_ERROR)
project(gloo CXX C)
set(CMAKE_CXX_FLAGS "${CMAKE_CXX_FLAGS} -std=c++11")
find_package(MPI)
message(STATUS "seen: MPI_C=${MPI_C_FOUND}")
add_library(gloo STATIC gloo.cc)
"""
FILES = {
    "CMakeLists.txt": HOROVOD,
    "horovod/tensorflow/CMakeLists.txt": TENSORFLOW,
    "horovod/tensorflow/mpi_ops.cc": (
        "static_assert(__cplusplus >= 201703L);\nstd::string name;\nstd::uint8_t byte;\n"
    ),
    "horovod/tensorflow/xla_mpi_ops.cc": "#error this TensorFlow has no such headers\n",
    "gloo/CMakeLists.txt": GLOO,
    "gloo/gloo.cc": "std::runtime_error wrong(const char* say);\n",
}
# As in Horovod 0.28.1, in two functions.
GLOO_CONTEXT = "horovod/common/gloo/gloo_context.cc"
DEVICE = """
  device_attr.iface = gloo_iface_;
  device_attr.ai_family = AF_UNSPEC;
  auto dev = CreateDevice(device_attr);
"""


@pytest.fixture(scope="module")
def env() -> Environment:
    found = detect()
    if found.cmake is None or found.compiler is None or not found.frameworks:
        pytest.skip("no cmake, compiler or framework here")
    return found


def configured(env: Environment, tmp_path: Path, **overrides: str) -> tuple[dict[str, str], str]:
    """(environment of the build, output of cmake) for the small project in `tmp_path`."""
    sdist = Sdist(Path("/s.tar.gz"), "0.28.1", "ab" * 32, present=True)
    plan = make_plan(Options(cache=tmp_path / "cache", gpu="none"), env, sdist)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    # The PATH of a user who has not activated the environment: it has no mpicc.
    own = str(env.python.executable.parent)
    path = ":".join(part for part in os.environ["PATH"].split(":") if part != own)
    environment = {**scrubbed(os.environ, ("HOROVOD_",)), **plan.environment, "PATH": path}
    environment |= overrides
    assert env.cmake is not None
    argv = [env.cmake.command, "-S", ".", "-B", "out"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return environment, done.stdout


def compiled(env: Environment, tmp_path: Path, environment: dict[str, str]) -> Path:
    assert env.cmake is not None
    argv = [env.cmake.command, "--build", "out"]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "out/horovod/tensorflow/libtensorflow.so"


def test_the_settings_reach_every_part_of_the_build(env: Environment, tmp_path: Path) -> None:
    environment, said = configured(env, tmp_path, HVDTOOLS_XLA_OPS="0")
    if env.mpi:
        assert "seen: MPI_CXX=TRUE" in said
        assert "seen: MPI_C=TRUE" in said
    library = compiled(env, tmp_path, environment)
    if shutil.which("readelf"):
        headers = subprocess.run(
            ["readelf", "-d", str(library)], capture_output=True, text=True, check=True
        ).stdout
        runpath = environment["HVDTOOLS_RPATH"].replace(";", ":")
        assert f"[{runpath}]" in headers


def test_cuda_stays_out_of_a_build_without_it(env: Environment, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin/nvcc"
    nvcc.write_text("#!/bin/sh\ntouch called\nexit 1\n")
    nvcc.chmod(0o755)
    path = f"{nvcc.parent}:{os.environ['PATH']}"
    _, said = configured(env, tmp_path, PATH=path, HVDTOOLS_CUDA="0")
    assert "CUDA=NOTFOUND" in said
    assert not list(tmp_path.rglob("called"))


def test_the_xla_source_is_compiled_where_its_headers_are(env: Environment, tmp_path: Path) -> None:
    environment, _ = configured(env, tmp_path, HVDTOOLS_XLA_OPS="1")
    with pytest.raises(AssertionError, match="this TensorFlow has no such headers"):
        compiled(env, tmp_path, environment)


def test_the_interface_reaches_every_context_of_gloo(env: Environment, tmp_path: Path) -> None:
    file = tmp_path / GLOO_CONTEXT
    file.parent.mkdir(parents=True)
    file.write_text(f"{DEVICE}  timeout_ = x;\n{DEVICE}\n  global_ctx = global_context.ctx;\n")
    for _ in ("fixes it", "leaves it alone"):
        configured(env, tmp_path)
        first, second = file.read_text().split("timeout_ = x;")
        assert first.count("iface = gloo_iface_;") == 1
        assert second.count("iface = global_context.gloo_iface_;") == 1
        assert "iface = gloo_iface_" not in second


def test_another_source_is_rejected(env: Environment, tmp_path: Path) -> None:
    file = tmp_path / GLOO_CONTEXT
    file.parent.mkdir(parents=True)
    file.write_text("// Horovod 0.29\n")
    with pytest.raises(AssertionError, match="HOROVOD_GLOO_IFACE cannot be"):
        configured(env, tmp_path)
