"""What hvdtools.keras and hvdtools.tensorflow say in a single process, at the wrong moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def says(program: str, **environment: str) -> str:
    """The last line of what a Python program writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
    )
    return (done.stderr.strip().splitlines() or [""])[-1]


@pytest.mark.parametrize(
    ("backend", "instead"), [("torch", "use hvdtools.torch"), ("jax", "Horovod has no JAX")]
)
def test_another_backend_is_told_what_to_use(backend: str, instead: str) -> None:
    if backend == "jax":
        pytest.importorskip("jax", reason="JAX is not installed")
    said = says("import hvdtools.keras", KERAS_BACKEND=backend)
    assert f"Keras runs on {backend} here" in said
    assert instead in said


@pytest.mark.parametrize(
    "before",
    [
        "model.compile('adam', loss='mse')",
        "keras.optimizers.Adam()",
        "keras.ops.ones((2,))",
    ],
)
def test_init_after_tensorflow_began_to_work(before: str) -> None:
    said = says(
        "import keras\n"
        "import hvdtools.keras as hvt\n"
        "model = keras.Sequential([keras.layers.Dense(1)])\n"
        f"{before}\n"
        "hvt.init()\n"
    )
    assert "init() comes too late: TensorFlow works already" in said
    assert "Call init() first" in said


CALLS = [
    "prepare(keras.optimizers.Adam())",
    "shard((1,))",
    "callbacks()",
    "evaluate(None, None)",
    "average(1)",
    "broadcast(1)",
    "gather([1])",
]
CALL_EACH = """
import json, sys
import keras
import hvdtools.keras as hvt
said = {}
for call in sys.argv[1:]:
    try:
        eval(f"hvt.{call}")
    except Exception as error:
        said[call] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said_before_init() -> dict[str, str]:
    """Call -> what it raised, all in one process that never called init()."""
    done = subprocess.run(
        [sys.executable, "-c", CALL_EACH, *CALLS],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    said: dict[str, str] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("call", CALLS)
def test_before_init(said_before_init: dict[str, str], call: str) -> None:
    name = call.partition("(")[0]
    assert f"{name}() needs a running job: call init() first" in said_before_init[call]


def test_threads_follow_the_environment() -> None:
    program = (
        "import sys, tensorflow as tf, hvdtools.tensorflow as hvt\n"
        "hvt.init()\n"
        "sys.exit(str(tf.config.threading.get_intra_op_parallelism_threads()))\n"
    )
    assert says(program, OMP_NUM_THREADS="3") == "3"
    assert says(program, OMP_NUM_THREADS="3", TF_NUM_INTRAOP_THREADS="2") == "2"
    assert "set it to a whole number" in says(program, OMP_NUM_THREADS="two")


@pytest.mark.parametrize(
    ("number", "shown", "uuids", "found"),
    [
        (1, "", ["GPU-a", "GPU-b"], "GPU-b"),
        (0, "1", ["GPU-a", "GPU-b"], "GPU-b"),  # a launcher shows each rank its own
        (0, "0", ["GPU-b"], "GPU-b"),  # and a container has no other
        (1, "GPU-c, GPU-d", [], "GPU-d"),
        (0, "0", [], None),  # no nvidia-smi
        (2, "0,1", ["GPU-a", "GPU-b"], None),
    ],
)
def test_which_gpu_a_rank_has(number: int, shown: str, uuids: list[str], found: str) -> None:
    from hvdtools.tensorflow.session import _uuid

    assert _uuid(number, shown, uuids) == found
