"""The probes, with tools that answer as those of NVIDIA and Slurm do, and on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hvdtools.build.programs import Answer, query
from hvdtools.core.errors import TIMED_OUT
from hvdtools.doctor.facts import Card, FrameworkImport, Gpus, Port
from hvdtools.doctor.probes.framework_import import read, try_import
from hvdtools.doctor.probes.gpu import find_gpus, read_links
from hvdtools.doctor.probes.host import find_cores, find_memory, find_slurm, read_mpi_kinds
from hvdtools.doctor.probes.network import find_interfaces, find_network, find_ports
from hvdtools.launch import detect_host

# As printed by `nvidia-smi topo -m`: tabs, an underlined heading on a terminal, NICs and GPUs.
TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tNIC1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m
GPU0\t X \tNV4\tSYS\tPIX\tSYS\t0-31,64-95\t0\t\tN/A
GPU1\tNV4\t X \tSYS\tPXB\tSYS\t0-31,64-95\t0\t\tN/A
GPU2\tSYS\tSYS\t X \tSYS\tNODE\t32-63,96-127\t1\t\tN/A
NIC0\tPIX\tPXB\tSYS\t X \tSYS
NIC1\tSYS\tSYS\tNODE\tSYS\t X

Legend:

  X    = Self
  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes

NIC Legend:

  NIC0: mlx5_0
  NIC1: mlx5_1
"""
LINKS = (("X", "NV4", "SYS"), ("NV4", "X", "SYS"), ("SYS", "SYS", "X"))


def put_tool(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of this name, first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_nvidia_smi_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "topology").write_text(TOPOLOGY)
    script = f"""
case "$*" in
  topo*) cat {tmp_path}/topology ;;
  --query*) printf 'NVIDIA A100-SXM4-80GB, 81920, 535.129.03\\n%.0s' 1 2
            echo 'NVIDIA GB10, [N/A], 535.129.03' ;;
  *) echo '| NVIDIA-SMI 535.129.03  Driver Version: 535.129.03  CUDA Version: 12.2 |' ;;
esac
"""
    put_tool(tmp_path / "bin", "nvidia-smi", script, monkeypatch)
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    a100 = Card("NVIDIA A100-SXM4-80GB", 81920 * 2**20)
    assert find_gpus(tmp_path) == Gpus(
        "535.129.03", "12.2", (a100, a100, Card("NVIDIA GB10", 0)), LINKS, "", 3
    )


def test_the_error_of_nvidia_smi_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "Failed to initialize NVML: Driver/library version mismatch"
    put_tool(tmp_path / "bin", "nvidia-smi", f"echo '{words}'; exit 18", monkeypatch)
    assert find_gpus(tmp_path) == Gpus(complaint=words)


def test_without_nvidia_smi_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus(tmp_path) == Gpus()


def test_without_a_topology_table_there_are_no_links() -> None:
    assert read_links("No devices were found\n") == ()
    assert read_links("") == ()


def test_srun_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
case "$1" in
  --version) echo 'slurm 23.11.4' ;;
  --mpi=list) printf 'MPI plugin types are...\\n\\tnone\\n\\tpmix\\n\\tpmi2\\n'
              echo 'specific pmix plugin versions available: pmix_v4' ;;
esac
"""
    put_tool(tmp_path / "bin", "srun", script, monkeypatch)
    found = find_slurm({})
    assert found is not None
    assert (found.version, found.mpi_kinds, found.job) == ("23.11.4", ("pmi2", "pmix"), None)
    inside = find_slurm(
        {"SLURM_JOB_ID": "17", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_PER_TASK": "1"}
    )
    assert inside is not None
    assert (inside.job, inside.nodes, inside.tasks, inside.gpus_per_task) == ("17", 2, 0, True)


def test_an_old_srun_prefixes_each_line_with_its_name() -> None:
    listed = "srun: MPI types are...\nsrun: none\nsrun: pmix_v3\nsrun: pmi2\n"
    assert read_mpi_kinds(listed) == ("pmi2", "pmix_v3")


def test_without_srun_there_is_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_slurm({"SLURM_JOB_ID": "1"}) is None


def test_infiniband_ports_are_read(tmp_path: Path) -> None:
    port = tmp_path / "mlx5_0/ports/1"
    port.mkdir(parents=True)
    (port / "state").write_text("4: ACTIVE\n")
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    assert find_ports(tmp_path) == (Port("mlx5_0/1", "ACTIVE", "400 Gb/sec (4X NDR)", ""),)
    assert find_ports(tmp_path / "absent") == ()


def test_interfaces_are_what_the_kernel_lists() -> None:
    found = find_interfaces()
    assert [each.name for each in found] == sorted(psutil.net_if_stats())
    assert any(each.loopback and "127.0.0.1" in each.addresses for each in found)
    assert [net for each in found if each.loopback for net in each.subnets] == ["127.0.0.0/8"]
    assert all(each.mtu_bytes > 0 for each in found)
    network = find_network()
    assert network.host_name == socket.gethostname()


def test_cores_are_shared_among_ranks() -> None:
    alone, crowded = find_cores(1), find_cores(10_000)
    assert alone.usable == len(os.sched_getaffinity(0))
    assert 1 <= alone.threads <= alone.usable
    assert crowded.threads == 1


def test_absent_shared_memory_has_size_0(tmp_path: Path) -> None:
    assert find_memory(tmp_path / "absent").shared_bytes == 0
    here = find_memory(tmp_path)
    assert here.shared_bytes == shutil.disk_usage(tmp_path).total
    assert 0 < here.available_bytes <= here.total_bytes


def test_an_mpirun_that_does_not_start_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mpirun").write_bytes(b"\0 not a program")
    (tmp_path / "mpirun").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    found = detect_host().mpirun
    assert found is not None
    assert found.flavour.startswith("nothing: ") and "Exec format error" in found.flavour


def child(script: str, patience_s: float = 30) -> Answer:
    answer = query([sys.executable, "-c", script], patience_s)
    assert answer is not None
    return answer


def test_query_returns_at_the_end_or_at_the_limit() -> None:
    assert query(["no-such-program"]) is None
    both = child("import sys; print('out', flush=True); sys.exit('err')")
    assert both == Answer(1, "out\nerr\n")
    late = child("import time; print('out', flush=True); time.sleep(60)", patience_s=2)
    assert late == Answer(TIMED_OUT, "out\n")
    assert child("import os; os.abort()").status == -6


def test_a_failed_import_has_a_module_and_an_error() -> None:
    said = (
        "hvdtools-import torch\nhvdtools-import horovod.torch.mpi_ops\n"
        "Traceback (most recent call last):\nImportError: x.so: undefined symbol: f\nhint\n"
    )
    words = "ImportError: x.so: undefined symbol: f"
    assert read("torch", Answer(1, said)) == FrameworkImport("torch", "horovod.torch", words, None)
    killed = read("torch", Answer(-11, "hvdtools-import torch\n"))
    assert (killed.module, killed.complaint) == ("torch", "it was ended by signal 11 (SIGSEGV)")
    assert read("torch", Answer(TIMED_OUT, "")).complaint == "no answer in 120 s"
    assert read("torch", Answer(0, "hvdtools-import torch\nhvdtools-gpus 2\n")).gpus == 2


def test_an_absent_framework_does_not_load() -> None:
    found = try_import("no_such_framework", with_horovod=False)
    assert found.module == "no_such_framework"
    assert found.complaint == "ModuleNotFoundError: No module named 'no_such_framework'"


def test_a_file_in_the_working_folder_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "no_such_framework.py").touch()
    code = "from hvdtools.doctor.probes.framework_import import try_import;"
    code += "print(try_import('no_such_framework', with_horovod=False).module)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "no_such_framework"
