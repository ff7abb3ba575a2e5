"""Detection, compared with what the tools and the modules report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hvdtools.build.console import percent
from hvdtools.build.detect import (
    detect,
    find_cuda,
    find_nccl,
    has_xla_headers,
    missing,
    nccl_version,
)
from hvdtools.core.mpi import read_mpirun_version


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("mpirun (Open MPI) 5.0.11\n\nReport bugs to ...\n", ("Open MPI", "5.0.11")),
        ("HYDRA build details:\n    Version:            4.1.2\n", ("MPICH", "4.1.2")),
        (
            "Intel(R) MPI Library for Linux* OS, Version 2021.9 Build 20230307\n",
            ("Intel MPI", "2021.9"),
        ),
        ("command not found", ("command not found", "")),
    ],
)
def test_the_mpi_version_is_read(answer: str, expected: tuple[str, str]) -> None:
    found = read_mpirun_version("/bin/mpirun", answer)
    assert (found.flavour, found.release) == expected


def test_nccl_version_comes_from_its_header() -> None:
    header = "#define NCCL_MAJOR 2\n#define NCCL_MINOR 28\n#define NCCL_PATCH 9\n"
    assert nccl_version(header) == "2.28.9"


def test_nccl_home_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_HOME", str(tmp_path))
    assert find_nccl(None) is None
    (tmp_path / "include").mkdir()
    (tmp_path / "include/nccl.h").write_text("#define NCCL_MAJOR 2\n#define NCCL_MINOR 9\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libnccl.so.2").touch()
    found = find_nccl(None)
    assert found is not None
    assert (found.version, found.library) == ("2.9.?", tmp_path / "lib/libnccl.so.2")


def test_cuda_home_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert find_cuda() is None
    (tmp_path / "include").mkdir()
    (tmp_path / "include/cuda_runtime.h").touch()
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin/nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    nvcc.chmod(0o755)
    found = find_cuda()
    assert found is not None
    assert (found.home, found.version) == (tmp_path, "12.8")


def test_xla_needs_highwayhash_only_where_its_printer_does(tmp_path: Path) -> None:
    def put(name: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert not has_xla_headers(tmp_path)
    put("tensorflow/compiler/xla/client/xla_builder.h")
    assert has_xla_headers(tmp_path)
    put("tensorflow/compiler/xla/printer.h")
    assert not has_xla_headers(tmp_path)
    put("highwayhash/arch_specific.h")
    assert has_xla_headers(tmp_path)


def test_requirements_are_checked_by_version() -> None:
    import packaging

    assert missing(("packaging>=1", f"packaging=={packaging.__version__}")) == ()
    assert missing(("packaging>=9999", "no-such-distribution")) == (
        "packaging>=9999",
        "no-such-distribution",
    )


def test_versions_agree_with_the_modules() -> None:
    env = detect()
    if env.framework("torch") is None:
        pytest.skip("torch is not installed")
    torch = env.framework("torch")
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, cuda, file = done.stdout.split()
    assert torch is not None
    assert (torch.version, str(torch.cuda)) == (version, cuda)
    assert torch.libraries == Path(file).parent / "lib"
    assert env.python.executable == Path(sys.executable)


def test_detection_imports_no_framework() -> None:
    code = (
        "import sys; from hvdtools.build.detect import detect; detect();"
        "print([name for name in ('torch', 'tensorflow', 'horovod') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  [ 42%] Building CXX object horovod/torch/x.cc.o\n", 42),
        ("  [100%] Built target pytorch\n", 100),
        ("  -- Detecting CXX compiler features\n", None),
    ],
)
def test_progress_is_read_from_make(line: str, expected: int | None) -> None:
    assert percent(line) == expected
