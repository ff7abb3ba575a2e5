"""Detects what a build depends on: reads files and queries programs, imports no framework."""

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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hvdtools.build.environment import Cuda, Environment, Framework, Gpu, Mpi, Nccl, Program, Python
from hvdtools.build.programs import first_match, query_output
from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.installed import framework_version
from hvdtools.core.mpi import read_mpirun_version

RUNTIME_REQUIREMENTS = (
    "cloudpickle>=3",
    "psutil>=5.9",
    "pyyaml>=6",
    "packaging>=23",
    "cffi>=1.15",
)
# setuptools 81 removes what Horovod's setup.py calls.
BUILD_REQUIREMENTS = ("setuptools>=68,<81", "wheel>=0.43")
CMAKE_REQUIREMENT = "cmake>=3.21"


def find_python() -> Python:
    """This interpreter: its tags, its headers and the folder that pip installs into."""
    from packaging.tags import cpython_tags

    tag = next(cpython_tags())
    headers = Path(sysconfig.get_path("include"))
    platlib = Path(sysconfig.get_path("platlib"))
    writable = os.access(platlib, os.W_OK)
    return Python(
        executable=Path(sys.executable),
        tag=f"{tag.interpreter}-{tag.abi}",
        platform=sysconfig.get_platform().replace("-", "_").replace(".", "_"),
        headers=headers if (headers / "Python.h").exists() else None,
        # pip, too, uses the user's folder if it cannot write to the environment.
        site=platlib if writable else Path(site.getusersitepackages()),
        root=Path(sys.prefix) if writable else Path(site.getuserbase()),
    )


def find_compiler() -> Program | None:
    """The C++ compiler: CXX if set, else c++ or g++.

    Raises:
        HvdtoolsError: CXX names a program that is not a working C++ compiler.
    """
    named = os.environ.get("CXX", "")
    for command in [named] if named else ["c++", "g++"]:
        version = query_output([*shlex.split(command), "-dumpfullversion", "-dumpversion"])
        if version:
            return Program(command, version.split()[0])
    if named:
        raise HvdtoolsError(
            f"CXX is {named!r}, which is not a working C++ compiler: unset CXX or fix it."
        )
    return None


def find_cmake() -> Program | None:
    """CMake 3.21 or newer, next to this Python or on PATH."""
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
    """PyTorch, from the text of its version.py."""
    folder, version = _folder("torch"), framework_version("torch")
    if folder is None or version is None:
        return None
    cuda = first_match(r"^cuda\b.*= '([^']+)'", (folder / "version.py").read_text())
    return Framework("torch", version, cuda, folder / "lib")


def find_tensorflow() -> Framework | None:
    """TensorFlow, from its metadata and the text of its build_info.py."""
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
    """True if all headers exist that xla_mpi_ops.cc of Horovod includes.

    TensorFlow 2.21's wheel moved xla_builder.h, and what its xla/printer.h
    includes (highwayhash) is outside the include path.
    """
    builder = include / "tensorflow/compiler/xla/client/xla_builder.h"
    printer = include / "tensorflow/compiler/xla/printer.h"
    highwayhash = include / "highwayhash/arch_specific.h"
    return builder.exists() and (highwayhash.exists() or not printer.exists())


def missing(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """The requirements that no installed distribution meets."""
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


def find_mpi() -> Mpi | None:
    """An MPI with compilers and mpirun: next to this Python, else on PATH."""
    adjacent = Path(sys.executable).parent / "mpicxx"
    found = str(adjacent) if adjacent.exists() else shutil.which("mpicxx")
    if found is None:
        return None
    mpicxx = Path(found)
    mpirun, mpicc = mpicxx.with_name("mpirun"), mpicxx.with_name("mpicc")
    kind = read_mpirun_version(str(mpirun), query_output([str(mpirun), "--version"]) or "")
    if not kind.version or not mpicc.exists():
        return None
    linked = shlex.split(query_output([found, "-show"]) or "")
    folders = [Path(word[2:]) for word in linked if word.startswith("-L")]
    holding = [folder for folder in folders if list(folder.glob("libmpi*.so*"))]
    libraries = holding[0] if holding else mpicxx.parent.parent / "lib"
    return Mpi(kind.flavour, kind.release, mpirun, mpicxx, mpicc, libraries)


_LIBRARY_FOLDERS = ("lib64", "lib", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu")


def _cuda_homes() -> Iterator[Path]:
    for variable in ("HOROVOD_CUDA_HOME", "CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            # The user named it: use no other, even if it has no nvcc.
            yield Path(os.environ[variable])
            return
    if nvcc := shutil.which("nvcc"):
        yield Path(nvcc).resolve().parent.parent
    yield Path("/usr/local/cuda")


def find_cuda() -> Cuda | None:
    """The CUDA toolkit: in CUDA_HOME if set, else that of nvcc on PATH, else in /usr/local/cuda.

    The folder must have both the compiler and the headers: an nvcc on PATH may be a script that
    only forwards to the toolkit.
    """
    for home in _cuda_homes():
        if not (home / "include" / "cuda_runtime.h").exists():
            continue
        release = first_match(
            r"release (\d+\.\d+)", query_output([str(home / "bin" / "nvcc"), "--version"])
        )
        if release:
            return Cuda(home=home, version=release)
    return None


def _nccl_homes(cuda: Cuda | None) -> Iterator[Path]:
    for variable in ("HOROVOD_NCCL_HOME", "NCCL_HOME"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
            return
    # The wheel that PyTorch loads: one process must not load two versions of NCCL.
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(folder) / "nccl"
    if os.environ.get("CONDA_PREFIX"):
        yield Path(os.environ["CONDA_PREFIX"])
    yield Path("/usr")
    yield Path("/usr/local")
    if cuda:
        yield cuda.home


def find_nccl(cuda: Cuda | None) -> Nccl | None:
    """The header and library of NCCL: in NCCL_HOME if set, else in the wheel or the system."""
    for home in _nccl_homes(cuda):
        header = home / "include" / "nccl.h"
        libraries = [
            home / folder / name
            for folder in _LIBRARY_FOLDERS
            for name in ("libnccl.so", "libnccl.so.2")
            if (home / folder / name).exists()
        ]
        if header.exists() and libraries:
            return Nccl(
                version=nccl_version(header.read_text(errors="replace")),
                include=header.parent,
                library=libraries[0],
            )
    return None


def nccl_version(header: str) -> str:
    """The version that nccl.h defines, "2.28.9"."""
    parts = (
        first_match(rf"#define NCCL_{part}\s+(\d+)", header) for part in ("MAJOR", "MINOR", "PATCH")
    )
    return ".".join(part or "?" for part in parts)


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi lists; () if there are none."""
    listed = query_output(["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"])
    rows = (line.rsplit(",", 1) for line in (listed or "").splitlines() if "," in line)
    return tuple(
        Gpu(name.strip(), capability.strip().replace(".", "")) for name, capability in rows
    )


def detect() -> Environment:
    """Detect everything at once, in threads, since each query waits for a program.

    Raises:
        HvdtoolsError: CXX names no working compiler.
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
