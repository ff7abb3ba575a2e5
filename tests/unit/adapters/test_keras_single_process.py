"""Errors and settings of hvdtools.keras and hvdtools.tensorflow in a single process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def last_line(program: str, **environment: str) -> str:
    """The last line that a Python program writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
    )
    return (done.stderr.strip().splitlines() or [""])[-1]


@pytest.mark.parametrize(
    ("backend", "alternative"), [("torch", "use hvdtools.torch"), ("jax", "Horovod has no JAX")]
)
def test_the_error_for_another_backend_names_an_alternative(backend: str, alternative: str) -> None:
    if backend == "jax":
        pytest.importorskip("jax", reason="JAX is not installed")
    message = last_line("import hvdtools.keras", KERAS_BACKEND=backend)
    assert f"but Keras runs on {backend}:" in message
    assert alternative in message


@pytest.mark.parametrize(
    "before",
    [
        "model.compile('adam', loss='mse')",
        "keras.optimizers.Adam()",
        "keras.ops.ones((2,))",
    ],
)
def test_init_after_tensorflow_has_created_its_devices(before: str) -> None:
    message = last_line(
        "import keras\n"
        "import hvdtools.keras as hvt\n"
        "model = keras.Sequential([keras.layers.Dense(1)])\n"
        f"{before}\n"
        "hvt.init()\n"
    )
    assert "init() comes too late: TensorFlow has created its devices" in message
    assert "Call init() first" in message


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
messages = {}
for call in sys.argv[1:]:
    try:
        eval(f"hvt.{call}")
    except Exception as error:
        messages[call] = str(error)
print(json.dumps(messages))
"""


@pytest.fixture(scope="module")
def messages_before_init() -> dict[str, str]:
    """Call -> its error message, in one process that never called init()."""
    done = subprocess.run(
        [sys.executable, "-c", CALL_EACH, *CALLS],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    messages: dict[str, str] = json.loads(done.stdout)
    return messages


@pytest.mark.parametrize("call", CALLS)
def test_before_init(messages_before_init: dict[str, str], call: str) -> None:
    name = call.partition("(")[0]
    assert f"{name}() needs a running job: call init() first" in messages_before_init[call]


def test_threads_follow_the_environment() -> None:
    program = (
        "import sys, tensorflow as tf, hvdtools.tensorflow as hvt\n"
        "hvt.init()\n"
        "sys.exit(str(tf.config.threading.get_intra_op_parallelism_threads()))\n"
    )
    assert last_line(program, OMP_NUM_THREADS="3") == "3"
    assert last_line(program, OMP_NUM_THREADS="3", TF_NUM_INTRAOP_THREADS="2") == "2"
    assert "set it to a whole number" in last_line(program, OMP_NUM_THREADS="two")


@pytest.mark.parametrize(
    ("index", "visible", "uuids", "found"),
    [
        (1, "", ["GPU-a", "GPU-b"], "GPU-b"),
        (0, "1", ["GPU-a", "GPU-b"], "GPU-b"),  # a launcher shows each rank only its own
        (0, "0", ["GPU-b"], "GPU-b"),  # and a container contains no other
        (1, "GPU-c, GPU-d", [], "GPU-d"),
        (0, "0", [], None),  # no nvidia-smi
        (2, "0,1", ["GPU-a", "GPU-b"], None),
    ],
)
def test_the_uuid_of_a_rank_s_gpu(index: int, visible: str, uuids: list[str], found: str) -> None:
    from hvdtools.tensorflow.session import _uuid

    assert _uuid(index, visible, uuids) == found
