"""Join the job, before TensorFlow has begun to work."""

from __future__ import annotations

import os
import shutil
import subprocess

import horovod.tensorflow as hvd
import tensorflow as tf

from hvdtools.core import log
from hvdtools.core.cpus import fair_threads_of_siblings
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment, Topology, read_launch_environment
from hvdtools.rendezvous import job_start

_session: list[Topology] = []


def init(expect_size: int | None = None) -> Topology:
    """Join the job that the launcher started, and return this process' place in it.

    Call it before anything that makes TensorFlow work: a model, a tensor, an
    optimizer. Rank and size come from whoever started the process (horovodrun,
    mpirun, srun, torchrun, or nobody: rank 0 of 1). On a GPU machine the process
    sees the GPU of its local rank alone, whose memory then grows as it is needed.
    TensorFlow's threads for one operation are TF_NUM_INTRAOP_THREADS or
    OMP_NUM_THREADS where they are set, and otherwise this rank's share of the
    cores. Calling it again returns the same.

    Args:
        expect_size: The number of ranks that the script counts on; a job of
            another size raises.

    Raises:
        HvdtoolsError: TensorFlow works already (a model was made or compiled
            before), or the job is not the one promised: Horovod sees another size
            than the launcher (it would train separate models), ranks do not come
            together, or there are fewer GPUs than local ranks.
    """
    launch_env = read_launch_environment(os.environ)
    if not (_session and hvd.is_initialized()):
        _require_idle()
        _bound_threads(launch_env)
        gpu = _choose_gpu(launch_env)
        job_start.start(hvd, launch_env, on_gpu=bool(tf.config.list_physical_devices("GPU")))
        mine = job_start.this_rank_info(hvd, gpu)
        all_ranks = hvd.allgather_object(mine)
        job_start.require_own_gpu(all_ranks)
        _session.append(job_start.topology_of(hvd, all_ranks))
        log.show(hvd.rank())
        if hvd.rank() == 0 and hvd.size() > 1:
            log.logger.info(job_start.in_words(hvd, launch_env, all_ranks))
    topology = _session[-1]
    job_start.require_expected(topology, launch_env, expect_size)
    return topology


def require_started(caller: str) -> Topology:
    """The running job's topology.

    Raises:
        HvdtoolsError: `init()` was not called.
    """
    if not _session or not hvd.is_initialized():
        raise HvdtoolsError(f"{caller} needs a running job: call init() first.")
    return _session[-1]


def _require_idle() -> None:
    """Raise if TensorFlow has made its devices: threads and GPUs are fixed from then on."""
    threads = tf.config.threading
    now = threads.get_inter_op_parallelism_threads()
    try:
        threads.set_inter_op_parallelism_threads(now + 1)
        threads.set_inter_op_parallelism_threads(now)
    except RuntimeError:
        raise HvdtoolsError(
            "init() comes too late: TensorFlow works already (a model, a tensor or an optimizer "
            "was made), and can no longer be given its GPU and its threads. Call init() first, "
            "right after the imports."
        ) from None


def _bound_threads(launch_env: LaunchEnvironment) -> None:
    name = "TF_NUM_INTRAOP_THREADS"
    name = name if os.environ.get(name) else "OMP_NUM_THREADS"
    asked = os.environ.get(name)
    if asked and not asked.isdigit():
        raise HvdtoolsError(f"{name} is {asked!r}: set it to a whole number, or not at all.")
    count = int(asked) if asked else fair_threads_of_siblings(launch_env.local_size)
    tf.config.threading.set_intra_op_parallelism_threads(count)
    if "TF_NUM_INTEROP_THREADS" not in os.environ:
        # One for what waits (an all-reduce, a queue) beside those that compute.
        tf.config.threading.set_inter_op_parallelism_threads(count + 1)


def _choose_gpu(launch_env: LaunchEnvironment) -> str | None:
    """Leave this rank one GPU in sight; what tells it from the others of the machine."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    # A launcher may show each rank only its own GPU; then that is the one.
    number = launch_env.local_rank % len(gpus)
    tf.config.set_visible_devices(gpus[number], "GPU")
    tf.config.experimental.set_memory_growth(gpus[number], True)
    return _uuid(number, os.environ.get("CUDA_VISIBLE_DEVICES", ""), _uuids())


def _uuids() -> list[str]:
    """Of the machine's GPUs that this process may use, in nvidia-smi's order; [] without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=uuid", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=60)
    return answer.stdout.split() if answer.returncode == 0 else []


def _uuid(number: int, shown: str, uuids: list[str]) -> str | None:
    """Which GPU is the `number`-th that CUDA shows, or None where nobody knows.

    Args:
        shown: CUDA_VISIBLE_DEVICES, numbers in nvidia-smi's list or UUIDs; "" for all.
    """
    names = shown.split(",") if shown else [str(index) for index in range(len(uuids))]
    if number >= len(names):
        return None
    name = names[number].strip()
    if not name.isdigit():
        return name
    return uuids[int(name)] if int(name) < len(uuids) else None
