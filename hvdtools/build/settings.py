"""The environment variables that make Horovod's own build fit today's frameworks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hvdtools.build.choose import GpuChoice
from hvdtools.build.environment import Environment, Framework

CMAKE_FOLDER = Path(__file__).parent / "cmake"


def _switch(name: str, on: bool) -> dict[str, str]:
    return {f"HOROVOD_WITH_{name}" if on else f"HOROVOD_WITHOUT_{name}": "1"}


def shape(env: Environment, frameworks: tuple[Framework, ...], gpu: GpuChoice) -> dict[str, str]:
    """Variables that shape the binary: they are part of the key."""
    names = [framework.name for framework in frameworks]
    xla = all(framework.xla_headers for framework in frameworks)
    settings = {
        **_switch("PYTORCH", "torch" in names),
        **_switch("TENSORFLOW", "tensorflow" in names),
        **_switch("MPI", env.mpi is not None),
        **_switch("GLOO", True),
        **_switch("MXNET", False),
        # The name of a flag that the CPU lacks would end in an illegal instruction.
        "HOROVOD_BUILD_ARCH_FLAGS": " ".join(f"-m{flag}" for flag in env.cpu_flags),
        # GCC 13 no longer lets these in through other headers.
        "CXXFLAGS": f"{env.cxxflags} -include string -include stdexcept -include cstdint".strip(),
        "HVDTOOLS_RPATH": ";".join(_runpath(env, frameworks, gpu)),
        "HVDTOOLS_XLA_OPS": "1" if xla else "0",
        "HVDTOOLS_CUDA": "1" if gpu.compiles_cuda else "0",
        "HVDTOOLS_CUDA_ARCHITECTURES": ";".join(gpu.archs),
    }
    if not gpu.compiles_cuda:
        settings |= _switch("NVTX", False)
    if gpu.compiles_cuda:
        settings["NVCC_APPEND_FLAGS"] = "-std=c++17"
        if gpu.archs:
            settings["HOROVOD_BUILD_CUDA_CC_LIST"] = ",".join(gpu.archs)
    if gpu.operations == "nccl":
        settings["HOROVOD_GPU"] = "CUDA"
        settings["HOROVOD_GPU_OPERATIONS"] = "NCCL"
        settings["HOROVOD_NCCL_LINK"] = "SHARED"
    return settings


def _runpath(env: Environment, frameworks: tuple[Framework, ...], gpu: GpuChoice) -> Iterator[str]:
    """Where the built libraries look for others: relative to themselves inside this environment.

    Two folders below `site` lie both of Horovod's libraries (horovod/torch,
    horovod/tensorflow). A folder outside the environment keeps its full name.
    """
    folders = [framework.libraries for framework in frameworks]
    if env.mpi:
        folders.insert(0, env.mpi.libraries)
    if gpu.operations == "nccl" and env.nccl:
        folders.append(env.nccl.library.parent)
    for folder in folders:
        if not folder.is_relative_to(env.python.root):
            yield str(folder)
            continue
        up = "../.."
        base = env.python.site
        while not folder.is_relative_to(base):
            up, base = f"{up}/..", base.parent
        yield f"$ORIGIN/{up}/{folder.relative_to(base)}".removesuffix("/.")


def places(env: Environment, gpu: GpuChoice, work: Path, jobs: int) -> dict[str, str]:
    """Variables that say where things are or how fast to go: not part of the key."""
    assert env.compiler is not None
    cmake = env.cmake.command if env.cmake else str(env.python.executable.with_name("cmake"))
    found = {
        "CXX": env.compiler.command,
        "MAKEFLAGS": f"-j{jobs}",
        "HOROVOD_CMAKE": cmake,
        "CMAKE_TOOLCHAIN_FILE": str(CMAKE_FOLDER / "toolchain.cmake"),
        # CMake 4 refuses what gloo's CMakeLists.txt says it was written for.
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if env.mpi:
        found["HVDTOOLS_MPICXX"] = str(env.mpi.mpicxx)
        found["HVDTOOLS_MPICC"] = str(env.mpi.mpicc)
    if gpu.compiles_cuda and env.cuda:
        found["CUDA_HOME"] = found["HOROVOD_CUDA_HOME"] = str(env.cuda.home)
    if gpu.operations == "nccl" and env.nccl:
        found["HOROVOD_NCCL_INCLUDE"] = str(env.nccl.include)
        found["HOROVOD_NCCL_LIB"] = str(work / "nccl")
    return found
