"""What to build, and the environment variables that configure the build of Horovod for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hvdtools.build.environment import Environment, Framework
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.installed import FRAMEWORKS

GPU_MODES = ("auto", "nccl", "none")


@dataclass(frozen=True)
class GpuChoice:
    """How Horovod will handle GPU tensors.

    Attributes:
        operations: "nccl" or "none".
        reason: Why not NCCL; "" if it is.
        archs: Compute capabilities to compile for.
        compiles_cuda: True if CUDA code is compiled. Without NCCL, GPU tensors are then copied
            through the host.
    """

    operations: str
    reason: str
    archs: tuple[str, ...]
    compiles_cuda: bool


def choose_frameworks(requested: tuple[str, ...], env: Environment) -> tuple[Framework, ...]:
    """The frameworks to build for: the requested ones, or all that are installed.

    Raises:
        HvdtoolsError: A name is unknown or not installed, or no framework is installed.
    """
    for name in requested:
        if name not in FRAMEWORKS:
            raise unknown_name("framework", name, tuple(FRAMEWORKS))
        if env.framework(name) is None:
            raise HvdtoolsError(
                f"{name} is not installed for {env.python.executable}: install it first, or "
                f"leave it out of --frameworks (installed: {_names(env) or 'none'})."
            )
    chosen = tuple(found for found in env.frameworks if not requested or found.name in requested)
    if not chosen:
        raise HvdtoolsError(
            f"Neither torch nor tensorflow is installed for {env.python.executable}: install "
            "one of them first; Horovod is built against it."
        )
    return chosen


def _names(env: Environment) -> str:
    return ", ".join(found.name for found in env.frameworks)


def _obstacle(frameworks: tuple[Framework, ...], env: Environment) -> str:
    """What prevents a build with NCCL, "" if nothing."""
    # With a PyTorch without CUDA, Horovod's CMake rejects a GPU build for TensorFlow too.
    leading = frameworks[0]
    if leading.cuda is None:
        return f"{leading.name} {leading.version} is a CPU build"
    if env.cuda is None:
        return "the CUDA compiler nvcc was not found in CUDA_HOME, on PATH or in /usr/local/cuda"
    if env.cuda.version.split(".")[0] != leading.cuda.split(".")[0]:
        return f"nvcc is from CUDA {env.cuda.version}, {leading.name} needs CUDA {leading.cuda}"
    if env.nccl is None:
        return "the header and library of NCCL were not found (wheel, NCCL_HOME or system)"
    return ""


def choose_gpu(
    mode: str, requested_archs: tuple[str, ...], frameworks: tuple[Framework, ...], env: Environment
) -> GpuChoice:
    """NCCL if everything for it is there, unless `mode` says otherwise.

    Raises:
        HvdtoolsError: The mode or a compute capability is unknown; NCCL is requested and
            something is missing; or there is no GPU to tell what to compile for.
    """
    if mode not in GPU_MODES:
        raise unknown_name("--gpu mode", mode, GPU_MODES)
    for arch in requested_archs:
        if not arch.isdigit() or not 50 <= int(arch) < 1000:
            raise HvdtoolsError(
                f"--cuda-arch takes compute capabilities such as 80,90, not {arch!r}."
            )
    obstacle = _obstacle(frameworks, env)
    if mode == "nccl" and obstacle:
        raise HvdtoolsError(
            f"--gpu nccl cannot be built: {obstacle}; install what is missing (a CUDA build of the "
            "framework, CUDA's nvcc and NCCL are needed), or use --gpu none."
        )
    wanted = mode != "none" and not obstacle
    archs = tuple(sorted(set(requested_archs or (gpu.arch for gpu in env.gpus)), key=int))
    if wanted and not archs:
        raise HvdtoolsError(
            "There is no GPU here to tell what to compile for: give --cuda-arch (80 for A100, "
            "90 for H100 and H200), or --gpu none."
        )
    torch = next((found for found in frameworks if found.name == "torch"), None)
    compiles_cuda = wanted or bool(torch and torch.cuda and env.cuda)
    return GpuChoice(
        operations="nccl" if wanted else "none",
        reason="" if wanted else obstacle or "--gpu none was requested",
        archs=archs if compiles_cuda else (),
        compiles_cuda=compiles_cuda,
    )


CMAKE_FOLDER = Path(__file__).parent / "cmake"


def _switch(name: str, on: bool) -> dict[str, str]:
    return {f"HOROVOD_WITH_{name}" if on else f"HOROVOD_WITHOUT_{name}": "1"}


def binary_settings(
    env: Environment, frameworks: tuple[Framework, ...], gpu: GpuChoice
) -> dict[str, str]:
    """Variables that change the binary: they are part of the key."""
    names = [framework.name for framework in frameworks]
    xla = all(framework.xla_headers for framework in frameworks)
    settings = {
        **_switch("PYTORCH", "torch" in names),
        **_switch("TENSORFLOW", "tensorflow" in names),
        **_switch("MPI", env.mpi is not None),
        **_switch("GLOO", True),
        **_switch("MXNET", False),
        # A flag that the CPU lacks would cause an illegal instruction.
        "HOROVOD_BUILD_ARCH_FLAGS": " ".join(f"-m{flag}" for flag in env.cpu_flags),
        # GCC 13 no longer includes these through other headers.
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

    Both libraries of Horovod are two folders below `site` (horovod/torch, horovod/tensorflow). A
    folder outside the environment keeps its absolute path.
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


def local_settings(env: Environment, gpu: GpuChoice, work: Path, jobs: int) -> dict[str, str]:
    """Variables for paths and speed: not part of the key."""
    assert env.compiler is not None
    cmake = env.cmake.command if env.cmake else str(env.python.executable.with_name("cmake"))
    found = {
        "CXX": env.compiler.command,
        "MAKEFLAGS": f"-j{jobs}",
        "HOROVOD_CMAKE": cmake,
        "CMAKE_TOOLCHAIN_FILE": str(CMAKE_FOLDER / "toolchain.cmake"),
        # CMake 4 rejects the CMake version that gloo's CMakeLists.txt requires.
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
