"""Plans a build: from options and the detected environment to a value that can be printed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hvdtools.build.environment import Environment, Framework
from hvdtools.build.sdist import Sdist
from hvdtools.build.settings import (
    CMAKE_FOLDER,
    GpuChoice,
    binary_settings,
    choose_frameworks,
    choose_gpu,
    local_settings,
)
from hvdtools.core.errors import HvdtoolsError


@dataclass(frozen=True)
class Options:
    """What the user requested.

    Attributes:
        cache: Where wheels are kept.
        frameworks: Names in the order given; () for all that are installed.
        gpu: "auto", "nccl" or "none".
        cuda_arch: Compute capabilities ("80", "90"); () for those of the GPUs here.
        wheel_dir: A folder of wheels to install from, instead of the package index.
        jobs: Parallel compilers; None for one per core.
    """

    cache: Path
    frameworks: tuple[str, ...] = ()
    gpu: str = "auto"
    cuda_arch: tuple[str, ...] = ()
    wheel_dir: Path | None = None
    jobs: int | None = None


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        title: What it does, in the imperative: "build Horovod".
        when: "build" if a kept wheel makes it unnecessary, else "always".
        downloads: True if its download must match the known SHA-256.
    """

    title: str
    argv: tuple[str, ...]
    when: Literal["build", "always"] = "build"
    downloads: bool = False


@dataclass(frozen=True)
class BuildPlan:
    """A build, completely determined before it starts.

    Attributes:
        key: Identifies the wheel: builds with equal keys share one wheel.
        facts: What the key is the hash of.
        frameworks: The installed frameworks to build for.
        controllers: ("mpi", "gloo"), or ("gloo",) without MPI.
        gpu: How Horovod will handle GPU tensors, and why.
        environment: Variables to set; any other HOROVOD_* must be unset.
        steps: The commands in order; the last one installs `wheel`.
        wheel: Where the built wheel is kept.
        built: Where `pip wheel` writes it.
        log: The log of all steps.
    """

    key: str
    facts: dict[str, str]
    frameworks: tuple[Framework, ...]
    controllers: tuple[str, ...]
    gpu: GpuChoice
    environment: dict[str, str]
    steps: tuple[Step, ...]
    wheel: Path
    built: Path
    log: Path


def make_plan(options: Options, env: Environment, sdist: Sdist) -> BuildPlan:
    """Decide everything. Pure: reads only the cmake files of hvdtools.

    Raises:
        HvdtoolsError: The build lacks something, or an option names something unknown.
    """
    if env.compiler is None:
        raise HvdtoolsError(
            "No C++ compiler was found: install g++ (Debian: `apt install g++`, Fedora: "
            "`dnf install gcc-c++`) or name one in CXX."
        )
    if env.python.headers is None:
        raise HvdtoolsError(
            f"Python.h is missing for {env.python.executable}: install this Python's headers "
            "(Debian: `apt install python3-dev`, Fedora: `dnf install python3-devel`)."
        )
    frameworks = choose_frameworks(options.frameworks, env)
    gpu = choose_gpu(options.gpu, options.cuda_arch, frameworks, env)
    settings = binary_settings(env, frameworks, gpu)
    facts = _facts(env, frameworks, gpu, settings, sdist)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    work = options.cache / "build" / key
    name = f"horovod-{sdist.version}-{env.python.tag}-{env.python.platform}.whl"
    wheel = options.cache / "wheels" / key / name
    return BuildPlan(
        key=key,
        facts=facts,
        frameworks=frameworks,
        controllers=("mpi", "gloo") if env.mpi else ("gloo",),
        gpu=gpu,
        environment={**settings, **local_settings(env, gpu, work, options.jobs or env.cpus)},
        steps=tuple(_steps(options, env, gpu, sdist, work, wheel)),
        wheel=wheel,
        built=work / "wheel" / name,
        log=work / "build.log",
    )


def _facts(
    env: Environment,
    frameworks: tuple[Framework, ...],
    gpu: GpuChoice,
    settings: dict[str, str],
    sdist: Sdist,
) -> dict[str, str]:
    """Every version that decides whether a built wheel can be used."""
    digest = hashlib.sha256()
    for file in sorted(CMAKE_FOLDER.glob("*.cmake")):
        digest.update(file.read_bytes())
    assert env.compiler is not None
    nccl = env.nccl.version if gpu.operations == "nccl" and env.nccl else "none"
    return {
        "horovod": f"{sdist.version} ({sdist.sha256[:16]})",
        "python": f"{env.python.tag} {env.python.platform}",
        "compiler": env.compiler.version.split(".")[0],
        "mpi": f"{env.mpi.flavour} {env.mpi.version}" if env.mpi else "none",
        "cuda": env.cuda.version if gpu.compiles_cuda and env.cuda else "none",
        "nccl": nccl,
        **{framework.name: framework.version for framework in frameworks},
        "settings": json.dumps(settings, sort_keys=True),
        "cmake files": digest.hexdigest()[:16],
    }


def _steps(
    options: Options, env: Environment, gpu: GpuChoice, sdist: Sdist, work: Path, wheel: Path
) -> Iterator[Step]:
    pip = (str(env.python.executable), "-m", "pip")
    source = ("--no-index", f"--find-links={options.wheel_dir}") if options.wheel_dir else ()
    if env.missing:
        argv = (*pip, "install", *source, *env.missing)
        yield Step(f"install what Horovod needs: {' '.join(env.missing)}", argv, "always")
    if env.missing_to_build:
        argv = (*pip, "install", *source, *env.missing_to_build)
        yield Step(f"install what the build needs: {' '.join(env.missing_to_build)}", argv)
    if not sdist.present:
        flags = ("--no-deps", "--no-binary=:all:", "--no-build-isolation")
        target = f"horovod=={sdist.version}"
        argv = (*pip, "download", *flags, f"--dest={sdist.path.parent}", target)
        yield Step("download Horovod's source", argv, downloads=True)
    if gpu.operations == "nccl" and env.nccl:
        # NCCL's wheel has no libnccl.so, the name that the linker looks for.
        yield Step("make a folder for NCCL", ("mkdir", "-p", str(work / "nccl")))
        link = ("ln", "-sf", str(env.nccl.library), str(work / "nccl" / "libnccl.so"))
        yield Step("link NCCL", link)
    flags = ("--no-build-isolation", "--no-deps", "--no-cache-dir")
    argv = (*pip, "wheel", *flags, "-v", f"--wheel-dir={work / 'wheel'}", str(sdist.path))
    yield Step("build Horovod", argv)
    yield Step("make a folder for the wheel", ("mkdir", "-p", str(wheel.parent)))
    yield Step("keep the wheel", ("mv", "-f", str(work / "wheel" / wheel.name), str(wheel)))
    argv = (*pip, "install", "--force-reinstall", "--no-deps", "--no-index", str(wheel))
    yield Step("install Horovod", argv, "always")
