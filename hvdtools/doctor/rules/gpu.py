"""GPUs of a host: their driver, what uses them, and what a run on GPUs would lack."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.core.text import count_noun
from hvdtools.doctor.facts import HostFacts
from hvdtools.doctor.findings import Finding, error, ok, warning

_CUDA_BUILD = "install a CUDA build of torch or tensorflow, then run `hvdtools build`"


def driver(facts: HostFacts) -> Iterator[Finding]:
    """The driver answers, shows the GPUs, and supports the CUDA version of the frameworks."""
    gpus = facts.gpus
    if gpus.complaint:
        message = f"nvidia-smi fails: {gpus.complaint}"
        if gpus.device_files:
            remedy = "restart the machine or reload the NVIDIA driver, so that both versions match"
            yield error("GPUs", message, remedy)
        else:
            yield warning(
                "GPUs", message, "load or install the NVIDIA driver if this machine has GPUs"
            )
        return
    if gpus.device_files and not facts.gpu_count:
        message = f"/dev shows {count_noun(gpus.device_files, 'GPU')}, but nvidia-smi lists none"
        yield warning("GPUs", message, "give the container access to the GPUs (--gpus all, --nv)")
    for framework in facts.frameworks:
        if gpus.cards and framework.cuda and gpus.cuda and _older(gpus.cuda, framework.cuda):
            yield error(
                framework.name,
                f"{framework.name} is built for CUDA {framework.cuda}, but the driver "
                f"{gpus.driver} supports CUDA {gpus.cuda} at most",
                f"install a newer driver, or {framework.name} for CUDA {gpus.cuda}",
            )


def _older(driver: str, framework: str) -> bool:
    # Within one major release an older driver serves newer libraries (NVIDIA's CUDA
    # Compatibility guide, "minor version compatibility").
    return int(driver.partition(".")[0]) < int(framework.partition(".")[0])


def no_gpus(facts: HostFacts) -> Iterator[Finding]:
    """Without GPUs: what a run on GPUs would lack."""
    if facts.gpu_count:
        return
    for framework in facts.frameworks:
        if framework.cuda:
            yield warning(
                framework.name,
                f"{framework.name} is built for CUDA {framework.cuda} and there is no GPU with a "
                "driver here: it trains on the CPU",
            )
    if not facts.gpus.complaint and not facts.gpus.device_files:
        yield warning("GPUs", "there is no NVIDIA GPU here")
    if facts.horovod is not None and not facts.has_nccl:
        yield warning("NCCL", "Horovod was built without NCCL, which only GPUs need")
    yield warning("a GPU run", f"would lack {', '.join(lacking(facts))}")


def lacking(facts: HostFacts) -> list[str]:
    """What a run on GPUs lacks here, in the order in which to install it."""
    parts = {
        "an NVIDIA GPU and its driver": facts.gpu_count > 0,
        "a CUDA build of torch or tensorflow": any(each.cuda for each in facts.frameworks),
        # A Horovod that has NCCL no longer needs what builds it in.
        "CUDA's nvcc": facts.cuda is not None or facts.has_nccl,
        "NCCL's header and library": facts.nccl is not None or facts.has_nccl,
        "NCCL in Horovod (`hvdtools build` adds it)": facts.has_nccl,
    }
    return [part for part, here in parts.items() if not here]


def nccl(facts: HostFacts) -> Iterator[Finding]:
    """With GPUs: the frameworks and Horovod are built to use them."""
    if not facts.gpu_count:
        return
    gpus = count_noun(facts.gpu_count, "GPU")
    cpu_builds = [each for each in facts.frameworks if each.cuda is None]
    if facts.frameworks and len(cpu_builds) == len(facts.frameworks):
        names = " and ".join(f"{each.name} {each.version}" for each in cpu_builds)
        yield error("NCCL", f"{gpus} here stay idle: {names} cannot use them", _CUDA_BUILD)
        return
    for framework in cpu_builds:
        message = f"{framework.name} {framework.version} is a CPU build and leaves {gpus} idle"
        yield warning(
            framework.name, message, f"install its CUDA build to train with {framework.name}"
        )
    if facts.horovod is None:
        return
    if facts.has_nccl:
        yield ok("NCCL", "gradients go from GPU to GPU")
        return
    needs = lacking(facts)[:-1]  # the last is what is built
    first = f"install {' and '.join(needs)}, then " if needs else ""
    yield error(
        "NCCL",
        f"{gpus} here, but Horovod was built without NCCL: gradients travel through the host's "
        "memory, and training scales poorly",
        f"{first}run `hvdtools build --gpu nccl`",
    )


def visible(facts: HostFacts) -> Iterator[Finding]:
    """With GPUs: the frameworks see all of them."""
    here = len(facts.gpus.cards)
    if not here:
        if facts.gpu_count:
            gpus = count_noun(facts.gpu_count, "GPU")
            yield warning("GPUs", f"there are {gpus}, but no nvidia-smi to describe them")
        return
    hidden = "CUDA_VISIBLE_DEVICES" in facts.variables
    for framework in facts.frameworks:
        load = facts.load(framework.name)
        if framework.cuda is None or load is None or load.gpus is None or load.gpus == here:
            continue
        message = f"{framework.name} sees {load.gpus} of {count_noun(here, 'GPU')}"
        if hidden:
            shown = facts.variables["CUDA_VISIBLE_DEVICES"]
            yield warning(framework.name, f"{message}: CUDA_VISIBLE_DEVICES={shown}")
        elif load.gpus == 0:
            yield error(framework.name, message, _invisible_remedy(framework.name))
        else:
            yield warning(framework.name, message, "compare with the list of `nvidia-smi -L`")
    if facts.slurm is not None and facts.slurm.gpus_per_task:
        message = "the allocation requests GPUs per task, which hides them from other ranks"
        yield warning("Slurm", message, "request --gpus-per-node instead of --gpus-per-task")


def _invisible_remedy(name: str) -> str:
    if name == "torch":
        return "run `python -c 'import torch; torch.cuda.init()'`, which says why"
    return "install `tensorflow[and-cuda]`, and read the warnings of TensorFlow when it starts"


def nvlink(facts: HostFacts) -> Iterator[Finding]:
    """NVLink is there and not turned off."""
    linked = any(cell.startswith("NV") for row in facts.gpus.links for cell in row)
    if facts.variables.get("NCCL_P2P_DISABLE", "0") != "0" and linked:
        message = "NCCL_P2P_DISABLE is set, so NVLink is not used"
        yield warning("GPUs", message, "unset NCCL_P2P_DISABLE")


RULES = (driver, no_gpus, nccl, visible, nvlink)
