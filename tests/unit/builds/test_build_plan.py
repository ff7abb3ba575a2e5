"""The plan of a build, from options and an environment: every decision, without building."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtools.build.console import script, xla
from hvdtools.build.environment import Cuda, Environment, Framework, Gpu, Mpi, Nccl, Program, Python
from hvdtools.build.plan import BuildPlan, Options, make_plan
from hvdtools.build.sdist import Sdist
from hvdtools.core.errors import HvdtoolsError

PREFIX = Path("/home/ann/my env; echo $HOME")  # hostile on purpose: spaces, a command
SITE = PREFIX / "lib/python3.11/site-packages"
OPTIONS = Options(cache=Path("/cache"))
SDIST = Sdist(Path("/s/horovod-0.28.1.tar.gz"), "0.28.1", "ab" * 32, present=True)

TORCH_CPU = Framework("torch", "2.13.0+cpu", None, SITE / "torch/lib")
TORCH_CUDA = Framework("torch", "2.13.0+cu130", "13.0", SITE / "torch/lib")
TENSORFLOW = Framework("tensorflow", "2.21.0", None, SITE / "tensorflow", xla_headers=False)

MPI = Mpi(
    "Open MPI",
    "5.0.11",
    PREFIX / "bin/mpirun",
    PREFIX / "bin/mpicxx",
    PREFIX / "bin/mpicc",
    PREFIX / "lib",
)
CPU = Environment(
    python=Python(PREFIX / "bin/python", "cp311-cp311", "linux_x86_64", Path("/inc"), SITE, PREFIX),
    compiler=Program("c++", "12.2.0"),
    cmake=Program("/usr/bin/cmake", "3.25.1"),
    frameworks=(TORCH_CPU, TENSORFLOW),
    mpi=MPI,
    cuda=None,
    nccl=None,
    gpus=(),
    cxxflags="",
    cpu_flags=("avx", "fma"),
    cpus=4,
    missing=(),
    missing_to_build=(),
)
NCCL_FOLDER = SITE / "nvidia/nccl"
GPU = replace(
    CPU,
    frameworks=(TORCH_CUDA,),
    cuda=Cuda(Path("/usr/local/cuda"), "13.0"),
    nccl=Nccl("2.28.9", NCCL_FOLDER / "include", NCCL_FOLDER / "lib/libnccl.so.2"),
    gpus=(Gpu("NVIDIA H100", "90"), Gpu("NVIDIA A100", "80")),
)


def plan_of(env: Environment, options: Options = OPTIONS, sdist: Sdist = SDIST) -> BuildPlan:
    return make_plan(options, env, sdist)


def commands(plan: BuildPlan) -> list[str]:
    return [" ".join(step.argv) for step in plan.steps]


def test_both_frameworks_on_cpu() -> None:
    plan = plan_of(CPU)
    switches = {name for name in plan.environment if name.startswith("HOROVOD_WITH")}
    assert switches == {
        "HOROVOD_WITH_PYTORCH",
        "HOROVOD_WITH_TENSORFLOW",
        "HOROVOD_WITH_MPI",
        "HOROVOD_WITH_GLOO",
        "HOROVOD_WITHOUT_MXNET",
        "HOROVOD_WITHOUT_NVTX",
    }
    assert plan.controllers == ("mpi", "gloo")
    assert plan.gpu.operations == "none"
    assert plan.gpu.reason == "torch 2.13.0+cpu is a CPU build"
    assert plan.environment["HVDTOOLS_CUDA"] == "0"
    assert plan.environment["MAKEFLAGS"] == "-j4"


def test_libraries_inside_the_environment_are_found_relative_to_horovod() -> None:
    runpath = plan_of(CPU).environment["HVDTOOLS_RPATH"].split(";")
    assert runpath == [
        "$ORIGIN/../../../..",
        "$ORIGIN/../../torch/lib",
        "$ORIGIN/../../tensorflow",
    ]
    inside = SITE / "horovod/torch"
    assert [(inside / entry.removeprefix("$ORIGIN/")).resolve() for entry in runpath] == [
        PREFIX / "lib",
        SITE / "torch/lib",
        SITE / "tensorflow",
    ]


def test_an_mpi_outside_the_environment_keeps_its_path() -> None:
    folder = Path("/opt/m/bin")
    tools = (folder / "mpirun", folder / "mpicxx", folder / "mpicc")
    mpi = Mpi("MPICH", "4.1", *tools, Path("/opt/m/lib"))
    plan = plan_of(replace(CPU, mpi=mpi))
    assert plan.environment["HVDTOOLS_RPATH"].split(";")[0] == "/opt/m/lib"
    # gloo's part of the build asks for the C compiler's MPI, Horovod's for the C++ compiler's.
    assert plan.environment["HVDTOOLS_MPICXX"] == "/opt/m/bin/mpicxx"
    assert plan.environment["HVDTOOLS_MPICC"] == "/opt/m/bin/mpicc"


def test_without_mpi_only_gloo_is_built() -> None:
    plan = plan_of(replace(CPU, mpi=None))
    assert plan.controllers == ("gloo",)
    assert plan.environment["HOROVOD_WITHOUT_MPI"] == "1"
    assert "HOROVOD_WITH_MPI" not in plan.environment
    assert "HVDTOOLS_MPICXX" not in plan.environment


def test_nccl_is_chosen_where_all_of_it_is_there() -> None:
    plan = plan_of(GPU)
    assert plan.gpu.operations == "nccl"
    assert plan.gpu.archs == ("80", "90")
    expected = {
        "HOROVOD_GPU": "CUDA",
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_NCCL_LINK": "SHARED",
        "HOROVOD_BUILD_CUDA_CC_LIST": "80,90",
        "HVDTOOLS_CUDA_ARCHITECTURES": "80;90",
        "NVCC_APPEND_FLAGS": "-std=c++17",
        "HOROVOD_CUDA_HOME": "/usr/local/cuda",
        "HOROVOD_NCCL_INCLUDE": str(NCCL_FOLDER / "include"),
    }
    assert expected.items() <= plan.environment.items()
    assert "$ORIGIN/../../nvidia/nccl/lib" in plan.environment["HVDTOOLS_RPATH"].split(";")
    linked = Path(plan.environment["HOROVOD_NCCL_LIB"]) / "libnccl.so"
    assert ("ln", "-sf", str(NCCL_FOLDER / "lib/libnccl.so.2"), str(linked)) in [
        step.argv for step in plan.steps
    ]


def test_a_login_node_names_the_architectures() -> None:
    login = replace(GPU, gpus=())
    with pytest.raises(HvdtoolsError, match="--cuda-arch"):
        plan_of(login)
    plan = plan_of(login, replace(OPTIONS, cuda_arch=("90", "80")))
    assert plan.gpu.archs == ("80", "90")
    # The same wheel as the one that a node with those GPUs builds for itself.
    assert plan.key == plan_of(GPU).key


def test_gpu_none_with_a_cuda_pytorch_copies_through_the_host() -> None:
    plan = plan_of(GPU, replace(OPTIONS, gpu="none"))
    assert plan.gpu.operations == "none"
    assert plan.environment["HVDTOOLS_CUDA"] == "1"  # Horovod's CMake compiles CUDA all the same
    assert "HOROVOD_GPU_OPERATIONS" not in plan.environment


@pytest.mark.parametrize(
    ("env", "names"),
    [
        (replace(GPU, cuda=None), "nvcc"),
        (replace(GPU, nccl=None), "NCCL"),
        (replace(GPU, frameworks=(TORCH_CPU,)), "CPU build"),
        (replace(GPU, cuda=Cuda(Path("/c"), "12.4")), "CUDA 12.4, torch needs CUDA 13.0"),
    ],
)
def test_what_is_missing_for_nccl_is_named(env: Environment, names: str) -> None:
    with pytest.raises(HvdtoolsError, match=names):
        plan_of(env, replace(OPTIONS, gpu="nccl"))
    automatic = plan_of(env)
    assert automatic.gpu.operations == "none"
    assert names in automatic.gpu.reason


def test_xla_ops_are_left_out_only_where_tensorflow_lacks_their_headers() -> None:
    assert plan_of(CPU).environment["HVDTOOLS_XLA_OPS"] == "0"
    whole = replace(TENSORFLOW, cuda="13.0", xla_headers=True)
    plan = plan_of(replace(GPU, frameworks=(TORCH_CUDA, whole)))
    assert plan.environment["HVDTOOLS_XLA_OPS"] == "1"
    assert xla(plan)[1] == "yes"
    assert xla(plan_of(CPU))[1] == "no"


CHANGES = {
    "torch": replace(CPU, frameworks=(replace(TORCH_CPU, version="2.14.0+cpu"), TENSORFLOW)),
    "tensorflow": replace(CPU, frameworks=(TORCH_CPU, replace(TENSORFLOW, version="2.22.0"))),
    "framework set": replace(CPU, frameworks=(TORCH_CPU,)),
    "MPI version": replace(CPU, mpi=replace(MPI, version="4.1.6")),
    "MPI flavour": replace(CPU, mpi=replace(MPI, flavour="MPICH")),
    "MPI place": replace(CPU, mpi=replace(MPI, libraries=Path("/opt"))),
    "no MPI": replace(CPU, mpi=None),
    "Python": replace(CPU, python=replace(CPU.python, tag="cp312-cp312")),
    "platform": replace(CPU, python=replace(CPU.python, platform="linux_aarch64")),
    "compiler major": replace(CPU, compiler=Program("c++", "13.1.0")),
    "CPU": replace(CPU, cpu_flags=("avx",)),
    "flags": replace(CPU, cxxflags="-D_GLIBCXX_ASSERTIONS"),
    "GPU mode": GPU,
    "CUDA": replace(GPU, cuda=Cuda(Path("/usr/local/cuda"), "13.1")),
    "NCCL": replace(GPU, nccl=replace(GPU.nccl, version="2.29.1")),  # type: ignore[type-var]
    "GPU types": replace(GPU, gpus=(Gpu("NVIDIA H100", "90"),)),
}


def test_each_change_of_the_abi_changes_the_key() -> None:
    keys = {name: plan_of(env).key for name, env in CHANGES.items()}
    keys["as it was"] = plan_of(CPU).key
    keys["source"] = plan_of(CPU, sdist=replace(SDIST, sha256="cd" * 32)).key
    assert len(set(keys.values())) == len(keys), keys


def test_other_changes_keep_the_key() -> None:
    elsewhere = replace(SDIST, path=Path("/other.tar.gz"), present=False)
    same = [
        plan_of(replace(CPU, compiler=Program("g++", "12.9.9"))),
        plan_of(replace(CPU, cmake=None, missing=("cffi",), missing_to_build=("cmake>=3.21",))),
        plan_of(replace(CPU, cpus=64)),
        plan_of(CPU, replace(OPTIONS, jobs=1, cache=Path("/c2"), wheel_dir=Path("/w"))),
        plan_of(CPU, sdist=elsewhere),
        plan_of(replace(CPU, cuda=Cuda(Path("/usr/local/cuda"), "13.0"))),
        plan_of(CPU, replace(OPTIONS, frameworks=("tensorflow", "torch"))),
    ]
    assert {plan.key for plan in same} == {plan_of(CPU).key}


def test_the_same_environment_elsewhere_has_the_same_key() -> None:
    def moved(path: Path) -> Path:
        return Path("/elsewhere") / path.relative_to(PREFIX)

    python = CPU.python
    env = replace(
        CPU,
        python=replace(
            python,
            executable=moved(python.executable),
            site=moved(python.site),
            root=moved(python.root),
        ),
        mpi=replace(MPI, mpicxx=moved(MPI.mpicxx), libraries=moved(MPI.libraries)),
        frameworks=tuple(replace(each, libraries=moved(each.libraries)) for each in CPU.frameworks),
    )
    assert plan_of(env).key == plan_of(CPU).key


def test_missing_requirements_come_only_from_the_wheel_folder() -> None:
    env = replace(CPU, missing=("cffi>=1.15",), missing_to_build=("wheel>=0.43",))
    listed = commands(plan_of(env, replace(OPTIONS, wheel_dir=Path("/w"))))
    installs = [line for line in listed if " install " in line]
    assert len(installs) == 3
    for line, name in zip(installs, ("cffi>=1.15", "wheel>=0.43", "horovod"), strict=True):
        assert "--no-index" in line and name in line
    assert "--find-links=/w" in installs[0] and "--find-links=/w" in installs[1]


def test_with_a_kept_wheel_only_the_install_remains() -> None:
    env = replace(GPU, missing=("cffi>=1.15",), missing_to_build=("wheel>=0.43",))
    plan = plan_of(env, sdist=replace(SDIST, present=False))
    always = [" ".join(step.argv) for step in plan.steps if step.when == "always"]
    assert len(always) == 2
    assert "cffi" in always[0]
    assert str(plan.wheel) in always[1] and "--force-reinstall" in always[1]


@pytest.mark.parametrize("env", [CPU, GPU, replace(CPU, missing=("cffi>=1.15",))])
def test_the_dry_run_is_an_equivalent_shell_script(env: Environment) -> None:
    plan = plan_of(env)
    text = script(plan)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    # What the shell makes of it is what the plan holds, hostile prefix and all.
    shown = "\n".join(
        line if line.startswith("export ") or line in "()" else f"printf '%s\\n' {line}"
        for line in text.splitlines()
        if not line.startswith(("#", "set ", "unset "))
    )
    shown = shown.replace("\n)", "\nenv -0 | tr '\\0' '\\n'\n)")
    done = subprocess.run(
        ["bash"], input=shown, text=True, check=True, capture_output=True, env={"PATH": "/bin"}
    )
    printed = done.stdout.splitlines()
    for step in plan.steps:
        start = printed.index(step.argv[0])
        assert tuple(printed[start : start + len(step.argv)]) == step.argv
        del printed[start : start + len(step.argv)]
    for name, value in plan.environment.items():
        assert f"{name}={value}" in printed


def test_no_compiler_and_no_headers_are_errors() -> None:
    with pytest.raises(HvdtoolsError, match=r"No C\+\+ compiler was found: install g\+\+"):
        plan_of(replace(CPU, compiler=None))
    with pytest.raises(HvdtoolsError, match=r"Python\.h is missing .* python3-dev"):
        plan_of(replace(CPU, python=replace(CPU.python, headers=None)))


def test_frameworks_that_cannot_be_built_for() -> None:
    with pytest.raises(HvdtoolsError, match=r"'mxnet': choose one of tensorflow, torch"):
        plan_of(CPU, replace(OPTIONS, frameworks=("mxnet",)))
    with pytest.raises(HvdtoolsError, match="tensorflow is not installed"):
        plan_of(GPU, replace(OPTIONS, frameworks=("tensorflow",)))
    with pytest.raises(HvdtoolsError, match="Neither torch nor tensorflow"):
        plan_of(replace(CPU, frameworks=()))
