"""Every problem of one machine: its level, message and remedy."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from doctor_machines import CPU_HOST, ETHERNET, GIB, GPU_HOST, LOOPBACK, alone, with_horovod
from rich.console import Console

from hvdtools.core.mpi import Mpirun
from hvdtools.doctor import rules
from hvdtools.doctor.allreduce.check import Check
from hvdtools.doctor.describe import describe_links, host_rows
from hvdtools.doctor.facts import FrameworkImport, Gpus, HostFacts, Interface, Network, Port, Slurm
from hvdtools.doctor.findings import Finding, worst
from hvdtools.doctor.known_errors import explain, shortened
from hvdtools.doctor.report import Report, to_json
from hvdtools.doctor.rules.allreduce import examine_checks
from hvdtools.doctor.rules.network import gloo_interface, nccl_takes
from hvdtools.doctor.screen import show, verdict

OPEN_MPI = Mpirun("/bin/mpirun", "Open MPI", (5, 0, 11))
SYMBOL = "ImportError: /s/mpi_lib_v2.so: undefined symbol: _ZN3c106detail"
CPU_TORCH, CPU_TENSORFLOW = CPU_HOST.frameworks
(CUDA_TORCH,) = GPU_HOST.frameworks


def network(facts: HostFacts, **changes: object) -> HostFacts:
    return replace(facts, network=replace(facts.network, **changes))  # type: ignore[arg-type]


def examine(facts: HostFacts) -> tuple[Finding, ...]:
    return rules.examine(alone(facts))


def report(facts: HostFacts, checks: tuple[Check, ...] | None = None) -> Report:
    return Report(alone(facts), examine(facts), checks)


def said(facts: HostFacts, level: str, subject: str) -> str:
    """The findings of this level and subject in one text."""
    found = [each for each in examine(facts) if (each.level, each.subject) == (level, subject)]
    return "\n".join(f"{each.message} → {each.remedy}" for each in found)


def test_a_sound_cpu_host_has_no_remedies() -> None:
    findings = examine(CPU_HOST)
    assert worst(findings) == "warning"
    assert [each.message for each in findings if each.remedy] == []
    (lacks,) = [each.message for each in findings if each.subject == "a GPU run"]
    for part in ("GPU and its driver", "CUDA build", "nvcc", "NCCL's header", "NCCL in Horovod"):
        assert part in lacks


def test_a_sound_gpu_host_has_no_warnings() -> None:
    assert worst(examine(GPU_HOST)) == "ok"


ERRORS = [
    (replace(CPU_HOST, frameworks=(), loads=()), "Horovod", "neither torch nor", "install PyTorch"),
    (replace(CPU_HOST, horovod=None), "Horovod", "not installed", "hvdtools build"),
    (with_horovod(CPU_HOST, missing=("psutil>=5.9",)), "Horovod", "psutil", "pip install"),
    (
        with_horovod(replace(CPU_HOST, frameworks=(CPU_TENSORFLOW,)), built_for={"torch": "2"}),
        "Horovod",
        "built for torch, and tensorflow is installed",
        "hvdtools build",
    ),
    (
        with_horovod(
            replace(CPU_HOST, loads=(FrameworkImport("torch", "horovod.torch", SYMBOL, None),)),
            built_for={"torch": "2.12.1", "tensorflow": "2.21.0"},
        ),
        "torch",
        "built for torch 2.12.1, and torch 2.13.0+cpu is installed: the two do not fit (ABI "
        "mismatch); importing them: ImportError: mpi_lib_v2.so: undefined symbol",
        "hvdtools build",
    ),
    (
        replace(CPU_HOST, loads=(FrameworkImport("torch", "horovod.torch", SYMBOL, None),)),
        "torch",
        "built for another version of the framework",
        "hvdtools build --force",
    ),
    (
        replace(
            CPU_HOST,
            loads=(FrameworkImport("torch", "torch", "ImportError: libgomp.so.1: x", None),),
        ),
        "torch",
        "`import torch` fails: ImportError: libgomp.so.1",
        "install torch again",
    ),
    (with_horovod(CPU_HOST, controllers=()), "controllers", "neither MPI nor Gloo", "build"),
    (
        with_horovod(
            replace(CPU_HOST, variables={"HOROVOD_CONTROLLER": "mpi"}), controllers=("gloo",)
        ),
        "controllers",
        "HOROVOD_CONTROLLER=mpi, but Horovod was built without it",
        "unset HOROVOD_CONTROLLER",
    ),
    (
        with_horovod(replace(CPU_HOST, mpi=None), controllers=("mpi",)),
        "MPI",
        "there is no mpirun",
        "pip install 'hvdtools[mpi]'",
    ),
    (
        replace(CPU_HOST, mpi=Mpirun("/opt/mpich/bin/mpirun", "MPICH", (4, 1, 2))),
        "MPI",
        "from MPICH (/opt/mpich/bin/mpirun), but Horovod was built with Open MPI 5.0.11",
        "put the mpirun of Open MPI first on PATH",
    ),
    (
        with_horovod(CPU_HOST, mpi="Intel MPI 2021.9"),
        "MPI",
        "each rank would run alone",
        "put the mpirun of MPICH",
    ),
    (
        with_horovod(GPU_HOST, nccl=False),
        "NCCL",
        "2 GPUs here, but Horovod was built without NCCL",
        "→ run `hvdtools build --gpu nccl`",
    ),
    (
        with_horovod(replace(GPU_HOST, cuda=None, nccl=None), nccl=False),
        "NCCL",
        "through the host's memory",
        "install CUDA's nvcc and NCCL's header and library, then",
    ),
    (
        with_horovod(replace(GPU_HOST, frameworks=(CPU_TORCH,)), nccl=False),
        "NCCL",
        "2 GPUs here stay idle: torch 2.13.0+cpu cannot use them",
        "install a CUDA build",
    ),
    (
        replace(GPU_HOST, gpus=replace(GPU_HOST.gpus, cuda="12.8")),
        "torch",
        "built for CUDA 13.0, but the driver 580.65.06 supports CUDA 12.8",
        "install a newer driver, or torch for CUDA 12.8",
    ),
    (
        replace(GPU_HOST, loads=(FrameworkImport("torch"),)),
        "torch",
        "sees 0 of 2 GPUs",
        "torch.cuda.init()",
    ),
    (
        replace(GPU_HOST, gpus=Gpus(complaint="Driver/library version mismatch", device_files=2)),
        "GPUs",
        "nvidia-smi fails: Driver/library version mismatch",
        "reload the NVIDIA driver",
    ),
    (
        replace(CPU_HOST, variables={"HOROVOD_GLOO_IFACE": "ib0"}),
        "network",
        "HOROVOD_GLOO_IFACE=ib0 names no interface",
        "set it to one of eth0, lo",
    ),
    (
        replace(CPU_HOST, variables={"NCCL_SOCKET_IFNAME": "=eth"}),
        "network",
        "matches no interface",
        "eth0, lo",
    ),
]


@pytest.mark.parametrize(("facts", "subject", "message", "remedy"), ERRORS)
def test_errors_have_a_remedy(facts: HostFacts, subject: str, message: str, remedy: str) -> None:
    found = said(facts, "error", subject)
    assert message in found
    assert remedy in found
    assert worst(examine(facts)) == "error"


WARNINGS = [
    (
        with_horovod(CPU_HOST, built_for={"torch": "2.13.0+cpu"}),
        "tensorflow",
        "built without tensorflow → run `hvdtools build`",
    ),
    (
        with_horovod(replace(CPU_HOST, frameworks=(CPU_TORCH,))),
        "Horovod",
        "also built for tensorflow, which is not installed",
    ),
    (replace(CPU_HOST, mpi=None), "MPI", "there is no mpirun"),
    (with_horovod(CPU_HOST, controllers=("gloo",), mpi=None), "MPI", "so ranks use Gloo"),
    (with_horovod(CPU_HOST, mpi="Open MPI 4.1.6"), "MPI", "Open MPI 5.0.11, but Horovod was built"),
    (with_horovod(CPU_HOST, mpi=None), "MPI", "unknown → check with --np 2"),
    (
        with_horovod(replace(GPU_HOST, gpus=Gpus(), loads=(FrameworkImport("torch"),))),
        "torch",
        "built for CUDA 13.0 and there is no GPU with a driver here: it trains on the CPU",
    ),
    (
        replace(CPU_HOST, gpus=Gpus(complaint="couldn't communicate with the NVIDIA driver")),
        "GPUs",
        "nvidia-smi fails: couldn't",
    ),
    (replace(GPU_HOST, gpus=Gpus(device_files=2)), "GPUs", "there are 2 GPUs, but no nvidia-smi"),
    (replace(CPU_HOST, gpus=Gpus(device_files=4)), "GPUs", "/dev shows 4 GPUs"),
    (
        replace(
            GPU_HOST,
            frameworks=(CUDA_TORCH, CPU_TENSORFLOW),
            loads=(*GPU_HOST.loads, FrameworkImport("tensorflow")),
        ),
        "tensorflow",
        "is a CPU build and leaves 2 GPUs idle",
    ),
    (
        replace(
            GPU_HOST,
            loads=(FrameworkImport("torch", gpus=1),),
            variables={"CUDA_VISIBLE_DEVICES": "1"},
        ),
        "torch",
        "sees 1 of 2 GPUs: CUDA_VISIBLE_DEVICES=1",
    ),
    (
        replace(GPU_HOST, slurm=Slurm("24.05", ("pmix",), "1", 1, 2, gpus_per_task=True)),
        "Slurm",
        "request --gpus-per-node",
    ),
    (replace(GPU_HOST, variables={"NCCL_P2P_DISABLE": "1"}), "GPUs", "NVLink is not used"),
    (network(CPU_HOST, interfaces=(LOOPBACK,)), "network", "only the loopback interface is up"),
    (
        network(CPU_HOST, host_addresses=("127.0.1.1",)),
        "network",
        "resolves to 127.0.1.1: between hosts Gloo would use loopback, and fail → for jobs on "
        "several hosts, set HOROVOD_GLOO_IFACE=eth0",
    ),
    (network(CPU_HOST, host_addresses=()), "network", "(node1) has no address"),
    (network(CPU_HOST, host_addresses=("10.9.9.9",)), "network", "which no interface has"),
    (
        network(CPU_HOST, ports=(Port("mlx5_0/1", "DOWN", "10 Gb/sec", "InfiniBand"),)),
        "network",
        "none of the 1 InfiniBand ports",
    ),
    (
        replace(
            network(CPU_HOST, ports=(Port("mlx5_0/1", "ACTIVE", "400 Gb/sec", "InfiniBand"),)),
            variables={"NCCL_IB_DISABLE": "1"},
        ),
        "network",
        "unset NCCL_IB_DISABLE",
    ),
    (
        replace(CPU_HOST, variables={"NCCL_SOCKET_IFNAME": "^docker0"}),
        "network",
        "set NCCL_SOCKET_IFNAME=^docker0,lo",
    ),
    (replace(CPU_HOST, slurm=Slurm("22.05.8", ("pmi2",))), "Slurm", "srun has no pmix here"),
    (
        replace(CPU_HOST, cores=replace(CPU_HOST.cores, quota=1.5)),
        "cores",
        "may use 1.5 cores, but shows 8",
    ),
    (
        replace(CPU_HOST, variables={"OMP_NUM_THREADS": "8"}),
        "cores",
        "OMP_NUM_THREADS=8 gives 2 ranks 16 threads on 8 cores → unset it, or set it to 4",
    ),
    (replace(CPU_HOST, cores=replace(CPU_HOST.cores, ranks=9)), "cores", "9 ranks are more than 8"),
    (
        replace(CPU_HOST, memory=replace(CPU_HOST.memory, shared_free_bytes=64 * 2**20)),
        "memory",
        "/dev/shm has 64 MiB free",
    ),
    (
        replace(CPU_HOST, memory=replace(CPU_HOST.memory, shared_bytes=0, shared_free_bytes=0)),
        "memory",
        "there is no /dev/shm",
    ),
]


@pytest.mark.parametrize(("facts", "subject", "words"), WARNINGS)
def test_what_a_run_can_tolerate_is_a_warning(facts: HostFacts, subject: str, words: str) -> None:
    assert words in said(facts, "warning", subject)
    assert worst(examine(facts)) == "warning"


def test_mpich_and_intel_mpi_are_one_family() -> None:
    intel = with_horovod(
        replace(CPU_HOST, mpi=Mpirun("/i/mpirun", "Intel MPI", (2021, 9))), mpi="MPICH"
    )
    assert "which Horovod was built with" in said(intel, "ok", "MPI")


@pytest.mark.parametrize(
    ("value", "takes"),
    [
        ("eth", {"eth0", "eth1"}),
        ("eth0,ib", {"eth0", "ib0"}),
        ("=eth0", {"eth0"}),
        ("^eth", {"ib0", "lo"}),
        ("^=eth0,lo", {"eth1", "ib0"}),
    ],
)
def test_nccl_socket_ifname_is_read_as_nccl_documents(value: str, takes: set[str]) -> None:
    assert {name for name in ("eth0", "eth1", "ib0", "lo") if nccl_takes(value, name)} == takes


def test_gloo_takes_the_interface_with_the_hosts_address() -> None:
    fast = Interface("ib0", True, ("10.1.0.7",))
    both = Network("n", ("10.1.0.7",), (ETHERNET, fast, LOOPBACK), ())
    assert gloo_interface(both) == "ib0"
    assert gloo_interface(replace(both, host_addresses=("127.0.1.1",))) is None


@pytest.mark.parametrize(
    ("complaint", "meaning", "remedy"),
    [
        (SYMBOL, "another version", "hvdtools build --force"),
        ("it was ended by signal 4 (SIGILL)", "another kind of CPU", "on this kind of machine"),
        ("libmpi.so.40: cannot open shared object file", "(libmpi.so.40)", "hvdtools[mpi]"),
        ("libcudart.so.12: cannot open shared object file", "libcudart.so.12", "LD_LIBRARY_PATH"),
        ("version `GLIBCXX_3.4.32' not found", "GLIBCXX_3.4.32", "build --force"),
        ("ModuleNotFoundError: No module named 'cffi'", "module cffi", "with pip"),
        ("[0]<stderr>:the job has 1 ranks, not the 2", "1 instead of all", "one installation"),
        ("Unable to find interface for: [127.0.1.1]", "no network interface", "GLOO_IFACE"),
    ],
)
def test_known_errors_are_explained(complaint: str, meaning: str, remedy: str) -> None:
    found = explain(complaint)
    assert meaning in found[0] and remedy in found[1]


def test_unknown_errors_stay_unchanged() -> None:
    assert explain("RuntimeError: the moon is full") == ("", "")
    assert shortened("ImportError: /a/b/c.so: no") == "ImportError: c.so: no"
    assert len(shortened("x" * 1000)) == 160


def test_links_are_counted_by_pair() -> None:
    assert describe_links((("X", "NV18"), ("NV18", "X"))) == "NV18 between all"
    mixed = (("X", "NV4", "SYS"), ("NV4", "X", "SYS"), ("SYS", "SYS", "X"))
    assert describe_links(mixed) == "SYS (2 pairs), NV4 (1 pair)"


def test_a_failed_all_reduce_is_an_error_and_says_why() -> None:
    checks = (
        Check("torch over Gloo, 2 ranks", (), "", (), 5.1),
        Check(
            "torch over MPI, 2 ranks",
            (),
            "exit status 1",
            ("the job has 1 ranks, not the 2 that were started",),
            4.0,
        ),
    )
    good, bad = examine_checks(alone(CPU_HOST, 2), checks)
    assert (good.level, bad.level) == ("ok", "error")
    assert "exit status 1 after 4.0 s: the ranks did not find one another" in bad.message
    assert "hvdtools build" in bad.remedy


def test_nccl_needs_a_gpu_per_rank() -> None:
    checks = (Check("torch over Gloo, 3 ranks", (), "", (), 5.1),)
    *_, last = examine_checks(alone(GPU_HOST, 3), checks)
    assert last == Finding("warning", "all-reduce", "torch over NCCL was not run: 3 ranks, 2 GPUs")


ALL = [CPU_HOST, GPU_HOST, *(case[0] for case in ERRORS), *(case[0] for case in WARNINGS)]


@pytest.mark.parametrize("columns", [80, 100])
def test_every_machine_fits_one_screen(columns: int) -> None:
    for facts in ALL:
        out = io.StringIO()
        show(report(facts), Console(file=out, width=columns))
        lines = out.getvalue().splitlines()
        assert len(lines) <= 40
        assert max(map(len, lines)) <= columns
        subjects = {subject for subject, _ in host_rows(facts)}
        for finding in examine(facts):
            assert finding.subject in subjects
            # The screen shows what to fix, and how.
            if finding.level == "error":
                flat = " ".join(out.getvalue().split())
                assert f"{finding.subject}: {' '.join(finding.message.split())}" in flat
                assert f"→ {finding.remedy}" in flat


def test_the_verdict_counts_errors() -> None:
    two = with_horovod(CPU_HOST, controllers=(), missing=("cffi>=1.15",))
    assert verdict(report(two)).startswith("2 errors")
    assert verdict(report(CPU_HOST)).startswith("No errors.")


def test_json_holds_the_facts_and_no_other_variable() -> None:
    whole = json.loads(to_json(report(GPU_HOST)))
    assert (whole["schema"], whole["level"], whole["checks"]) == (3, "ok", None)
    assert whole["facts"]["gpus"]["cards"][0] == {"name": "NVIDIA H200", "memory_bytes": 141 * GIB}
    assert whole["facts"]["mpi"]["path"] == "/bin/mpirun"
