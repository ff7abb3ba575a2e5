"""Which frameworks to build for, and how GPU tensors will travel."""

from __future__ import annotations

from dataclasses import dataclass

from hvdtools.build.environment import Environment, Framework
from hvdtools.core.errors import HvdtoolsError, unknown_name
from hvdtools.core.installed import FRAMEWORKS

GPU_MODES = ("auto", "nccl", "none")


@dataclass(frozen=True)
class GpuChoice:
    """How Horovod will treat GPU tensors.

    Attributes:
        operations: "nccl", or "none".
        reason: Why not NCCL, in words; "" if it is.
        archs: Compute capabilities to compile for.
        compiles_cuda: True if CUDA code is compiled. That can be so without
            NCCL: GPU tensors are then copied through the host.
    """

    operations: str
    reason: str
    archs: tuple[str, ...]
    compiles_cuda: bool


def choose_frameworks(asked: tuple[str, ...], env: Environment) -> tuple[Framework, ...]:
    """The frameworks to build for: those asked for, or all that are installed.

    Raises:
        HvdtoolsError: An unknown name, one that is not installed, or none at all.
    """
    for name in asked:
        if name not in FRAMEWORKS:
            raise unknown_name("framework", name, tuple(FRAMEWORKS))
        if env.framework(name) is None:
            raise HvdtoolsError(
                f"{name} is not installed for {env.python.executable}: install it first, or "
                f"leave it out of --frameworks (installed: {_names(env) or 'none'})."
            )
    chosen = tuple(found for found in env.frameworks if not asked or found.name in asked)
    if not chosen:
        raise HvdtoolsError(
            f"Neither torch nor tensorflow is installed for {env.python.executable}: install "
            "one of them first; Horovod is built against it."
        )
    return chosen


def _names(env: Environment) -> str:
    return ", ".join(found.name for found in env.frameworks)


def _obstacle(frameworks: tuple[Framework, ...], env: Environment) -> str:
    """What stands in the way of NCCL, "" if nothing does."""
    # Horovod's CMake refuses a GPU build beside a PyTorch without CUDA, whatever TensorFlow is.
    leading = frameworks[0]
    if leading.cuda is None:
        return f"{leading.name} {leading.version} is a CPU build"
    if env.cuda is None:
        return "CUDA's compiler nvcc was not found in CUDA_HOME, on PATH or in /usr/local/cuda"
    if env.cuda.version.split(".")[0] != leading.cuda.split(".")[0]:
        return f"nvcc is of CUDA {env.cuda.version}, {leading.name} of CUDA {leading.cuda}"
    if env.nccl is None:
        return "NCCL's header and library were not found (wheel, NCCL_HOME or system)"
    return ""


def choose_gpu(
    mode: str, asked_archs: tuple[str, ...], frameworks: tuple[Framework, ...], env: Environment
) -> GpuChoice:
    """NCCL where everything for it is there, unless `mode` says otherwise.

    Raises:
        HvdtoolsError: An unknown mode or compute capability; NCCL is demanded
            and something is missing; or no GPU says which to compile for.
    """
    if mode not in GPU_MODES:
        raise unknown_name("--gpu mode", mode, GPU_MODES)
    for arch in asked_archs:
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
    archs = tuple(sorted(set(asked_archs or (gpu.arch for gpu in env.gpus)), key=int))
    if wanted and not archs:
        raise HvdtoolsError(
            "There is no GPU here to say what to compile for: give --cuda-arch (80 for A100, "
            "90 for H100 and H200), or --gpu none."
        )
    torch = next((found for found in frameworks if found.name == "torch"), None)
    compiles_cuda = wanted or bool(torch and torch.cuda and env.cuda)
    return GpuChoice(
        operations="nccl" if wanted else "none",
        reason="" if wanted else obstacle or "--gpu none was asked for",
        archs=archs if compiles_cuda else (),
        compiles_cuda=compiles_cuda,
    )
