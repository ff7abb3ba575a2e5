"""What is in this Python environment. Imports no framework: reads files and asks compilers."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import site
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hvdtools.build.detect_gpu import find_cuda, find_gpus, find_nccl
from hvdtools.build.detect_mpi import find_mpi
from hvdtools.build.environment import Environment, Framework, Program, Python
from hvdtools.build.query import first_match, query_output
from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.installed import framework_version

RUNTIME_REQUIREMENTS = (
    "cloudpickle>=3",
    "psutil>=5.9",
    "pyyaml>=6",
    "packaging>=23",
    "cffi>=1.15",
)
# setuptools 81 ends what Horovod's setup.py calls.
BUILD_REQUIREMENTS = ("setuptools>=68,<81", "wheel>=0.43")
CMAKE_REQUIREMENT = "cmake>=3.21"


def find_python() -> Python:
    """This interpreter: its tags, headers and the folder that pip installs into."""
    from packaging.tags import cpython_tags

    tag = next(cpython_tags())
    headers = Path(sysconfig.get_path("include"))
    platlib = Path(sysconfig.get_path("platlib"))
    ours = os.access(platlib, os.W_OK)
    return Python(
        executable=Path(sys.executable),
        tag=f"{tag.interpreter}-{tag.abi}",
        platform=sysconfig.get_platform().replace("-", "_").replace(".", "_"),
        headers=headers if (headers / "Python.h").exists() else None,
        # pip, too, turns to the user's own folder where the environment's is closed.
        site=platlib if ours else Path(site.getusersitepackages()),
        root=Path(sys.prefix) if ours else Path(site.getuserbase()),
    )


def find_compiler() -> Program | None:
    """The C++ compiler: CXX if set, else c++ or g++.

    Raises:
        HvdtoolsError: CXX names a program that does not answer.
    """
    named = os.environ.get("CXX", "")
    for command in [named] if named else ["c++", "g++"]:
        version = query_output([*shlex.split(command), "-dumpfullversion", "-dumpversion"])
        if version:
            return Program(command, version.split()[0])
    if named:
        raise HvdtoolsError(
            f"CXX is {named!r}, which is not a C++ compiler that answers: unset CXX or fix it."
        )
    return None


def find_cmake() -> Program | None:
    """CMake 3.21 or newer, beside this Python or on PATH."""
    from packaging.version import Version

    oldest = Version(CMAKE_REQUIREMENT.removeprefix("cmake>="))
    for command in (str(Path(sys.executable).parent / "cmake"), shutil.which("cmake") or "cmake"):
        version = first_match(r"version (\d+\.\d+(?:\.\d+)?)", query_output([command, "--version"]))
        if version and Version(version) >= oldest:
            return Program(command, version)
    return None


def _folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


def find_torch() -> Framework | None:
    """PyTorch, by the text of its version.py."""
    folder, version = _folder("torch"), framework_version("torch")
    if folder is None or version is None:
        return None
    cuda = first_match(r"^cuda\b.*= '([^']+)'", (folder / "version.py").read_text())
    return Framework("torch", version, cuda, folder / "lib")


def find_tensorflow() -> Framework | None:
    """TensorFlow, by its metadata and the text of its build_info.py."""
    folder, version = _folder("tensorflow"), framework_version("tensorflow")
    if folder is None or version is None:
        return None
    info_file = folder / "python" / "platform" / "build_info.py"
    text = info_file.read_text() if info_file.exists() else ""
    built = first_match(r"^build_info = collections\.OrderedDict\((.*)\)$", text)
    info = dict(ast.literal_eval(built)) if built else {}
    cuda = first_match(r"^(\d+\.\d+)", str(info.get("cuda_version", "")))
    return Framework(
        "tensorflow",
        version,
        cuda if info.get("is_cuda_build") else None,
        folder,
        xla_headers=has_xla_headers(folder / "include"),
    )


def has_xla_headers(include: Path) -> bool:
    """True if every header is there that Horovod's xla_mpi_ops.cc includes.

    TensorFlow 2.21's wheel moved xla_builder.h, and what its xla/printer.h
    includes (highwayhash) lies outside the include path.
    """
    builder = include / "tensorflow/compiler/xla/client/xla_builder.h"
    printer = include / "tensorflow/compiler/xla/printer.h"
    highwayhash = include / "highwayhash/arch_specific.h"
    return builder.exists() and (highwayhash.exists() or not printer.exists())


def missing(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """Those requirements that no installed distribution meets."""
    from packaging.requirements import Requirement

    def met(requirement: Requirement) -> bool:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return False
        return requirement.specifier.contains(version, prereleases=True)

    return tuple(text for text in requirements if not met(Requirement(text)))


def _cpu_flags() -> tuple[str, ...]:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    present = (first_match(r"^flags\s*:(.*)$", text) or "").split()
    return tuple(flag for flag in ("f16c", "avx", "fma") if flag in present)


def detect() -> Environment:
    """Look around: every probe at once, in threads, since each waits for a program.

    Raises:
        HvdtoolsError: CXX names no compiler.
    """
    with ThreadPoolExecutor() as pool:
        compiler, cmake = pool.submit(find_compiler), pool.submit(find_cmake)
        mpi, cuda, gpus = pool.submit(find_mpi), pool.submit(find_cuda), pool.submit(find_gpus)
        torch, tensorflow = find_torch(), find_tensorflow()
    needs_cmake = () if cmake.result() else (CMAKE_REQUIREMENT,)
    return Environment(
        python=find_python(),
        compiler=compiler.result(),
        cmake=cmake.result(),
        frameworks=tuple(found for found in (torch, tensorflow) if found),
        mpi=mpi.result(),
        cuda=cuda.result(),
        nccl=find_nccl(cuda.result()),
        gpus=gpus.result(),
        cxxflags=os.environ.get("CXXFLAGS", ""),
        cpu_flags=_cpu_flags(),
        cpus=len(usable_cpus()),
        missing=missing(RUNTIME_REQUIREMENTS),
        missing_to_build=(*missing(BUILD_REQUIREMENTS), *needs_cmake),
    )
