"""Find CUDA's compiler, NCCL and the GPUs, by files and the tools' own answers."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hvdtools.build.environment import Cuda, Gpu, Nccl
from hvdtools.build.query import first_match, query_output

_LIBRARY_FOLDERS = ("lib64", "lib", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu")


def _cuda_homes() -> Iterator[Path]:
    for variable in ("HOROVOD_CUDA_HOME", "CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            # Named by the user: nothing else is right, even if there is no nvcc in it.
            yield Path(os.environ[variable])
            return
    if nvcc := shutil.which("nvcc"):
        yield Path(nvcc).resolve().parent.parent
    yield Path("/usr/local/cuda")


def find_cuda() -> Cuda | None:
    """The CUDA toolkit: CUDA_HOME's if that is set, else nvcc's of PATH, else /usr/local/cuda's.

    A folder counts if it has both the compiler and the headers: an nvcc on
    PATH may be a script that only forwards to the toolkit.
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
    # The wheel that PyTorch itself loads: two NCCLs in one process must be one.
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
    """NCCL's header and shared library: NCCL_HOME's if set, else the wheel's, else the system's."""
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
    """The version that nccl.h defines ("2.28.9")."""
    parts = (
        first_match(rf"#define NCCL_{part}\s+(\d+)", header) for part in ("MAJOR", "MINOR", "PATCH")
    )
    return ".".join(part or "?" for part in parts)


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi lists, () where there are none."""
    listed = query_output(["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"])
    rows = (line.rsplit(",", 1) for line in (listed or "").splitlines() if "," in line)
    return tuple(
        Gpu(name.strip(), capability.strip().replace(".", "")) for name, capability in rows
    )
