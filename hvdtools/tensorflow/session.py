"""`init()`: joins the job, and sets TensorFlow's GPU and threads before TensorFlow starts."""

from __future__ import annotations

import os
import shutil
import subprocess

import horovod.tensorflow as hvd
import tensorflow as tf

from hvdtools.core import log
from hvdtools.core.cpus import fair_threads_before_init
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment, Topology, read_launch_environment
from hvdtools.rendezvous import job

_session: list[Topology] = []


def init(expect_size: int | None = None) -> Topology:
    """Join the job that the launcher started, and return this process' rank and size.

    Call it before anything that makes TensorFlow create its devices: a model, a
    tensor, an optimizer. Rank and size come from the launcher (horovodrun, mpirun,
    srun, torchrun; without one, rank 0 of 1). On a GPU machine the process sees only
    the GPU of its local rank, and GPU memory is allocated as needed. The number of
    TensorFlow's threads for one operation is TF_NUM_INTRAOP_THREADS or
    OMP_NUM_THREADS if set, otherwise this rank's share of the cores. Calling it again
    returns the same.

    Args:
        expect_size: The number of ranks that the script requires; a job of another
            size raises.

    Raises:
        HvdtoolsError: TensorFlow has created its devices already (a model was made or
            compiled before), Horovod sees another size than the launcher (it would
            train separate models), ranks do not reach each other, or there are fewer
            GPUs than local ranks.
    """
    launch_env = read_launch_environment(os.environ)
    if not (_session and hvd.is_initialized()):
        _require_no_devices()
        _set_threads(launch_env)
        gpu = _choose_gpu(launch_env)
        job.start(hvd, launch_env, on_gpu=bool(tf.config.list_physical_devices("GPU")))
        all_ranks = hvd.allgather_object(job.own_rank_info(hvd, gpu))
        job.require_one_rank_per_gpu(all_ranks)
        _session.append(job.read_topology(hvd, all_ranks))
        log.configure(hvd.rank())
        if hvd.rank() == 0 and hvd.size() > 1:
            log.logger.info(job.describe_job(hvd, launch_env, all_ranks))
    topology = _session[-1]
    job.require_expected(topology, launch_env, expect_size)
    return topology


def require_started(caller: str) -> Topology:
    """The running job's topology.

    Raises:
        HvdtoolsError: `init()` was not called.
    """
    if not _session or not hvd.is_initialized():
        raise HvdtoolsError(f"{caller} needs a running job: call init() first.")
    return _session[-1]


def _require_no_devices() -> None:
    """Raise if TensorFlow has created its devices, which fixes threads and GPUs."""
    threads = tf.config.threading
    now = threads.get_inter_op_parallelism_threads()
    try:
        threads.set_inter_op_parallelism_threads(now + 1)
        threads.set_inter_op_parallelism_threads(now)
    except RuntimeError:
        raise HvdtoolsError(
            "init() comes too late: TensorFlow has created its devices for a model, a tensor or an "
            "optimizer, and its GPU and threads can no longer be set. Call init() first, right "
            "after the imports."
        ) from None


def _set_threads(launch_env: LaunchEnvironment) -> None:
    name = "TF_NUM_INTRAOP_THREADS"
    name = name if os.environ.get(name) else "OMP_NUM_THREADS"
    text = os.environ.get(name)
    if text and not text.isdigit():
        raise HvdtoolsError(f"{name} is {text!r}: set it to a whole number, or unset it.")
    count = int(text) if text else fair_threads_before_init(launch_env.local_size)
    tf.config.threading.set_intra_op_parallelism_threads(count)
    if "TF_NUM_INTEROP_THREADS" not in os.environ:
        # One more for operations that wait (an all-reduce, a queue).
        tf.config.threading.set_inter_op_parallelism_threads(count + 1)


def _choose_gpu(launch_env: LaunchEnvironment) -> str | None:
    """Make one GPU visible to this rank; what identifies it on this machine."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    # If the launcher shows each rank only its own GPU, there is one to choose from.
    index = launch_env.local_rank % len(gpus)
    tf.config.set_visible_devices(gpus[index], "GPU")
    tf.config.experimental.set_memory_growth(gpus[index], True)
    return _uuid(index, os.environ.get("CUDA_VISIBLE_DEVICES", ""), _query_uuids())


def _query_uuids() -> list[str]:
    """UUIDs of the machine's GPUs, in nvidia-smi's order; [] without nvidia-smi."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    return done.stdout.split() if done.returncode == 0 else []


def _uuid(index: int, visible: str, uuids: list[str]) -> str | None:
    """The UUID of CUDA's GPU number `index`, or None if unknown.

    Args:
        visible: CUDA_VISIBLE_DEVICES, numbers in nvidia-smi's list or UUIDs; "" for all.
    """
    names = visible.split(",") if visible else [str(number) for number in range(len(uuids))]
    if index >= len(names):
        return None
    name = names[index].strip()
    if not name.isdigit():
        return name
    return uuids[int(name)] if int(name) < len(uuids) else None
