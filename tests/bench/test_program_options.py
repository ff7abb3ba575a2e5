"""The benchmark programs' command lines: help and a wrong option need no framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import BENCHMARKS

FRAMEWORKS = ("horovod", "keras", "mpi4py", "tensorflow", "torch")
ALSO_SLOW = ("matplotlib", "scipy", "sklearn")
# Each line of arguments is the program's end; prints the exit codes, and what was imported by then.
CODE = """
import json, runpy, sys
program, lines, slow = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
codes = []
for line in lines:
    sys.argv = [program, *line]
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as ended:
        codes.append(ended.code)
print(json.dumps([codes, [name for name in slow if name in sys.modules]]))
"""
WRONG = {
    "keras/train_keras.py": [
        ["--engine", "ddp"],
        ["--engine", "mwms"],
        ["--data", "."],
        ["--batch-size", "2000"],
    ],
    "torch/train_torch.py": [
        ["--engine", "mwms"],
        ["--engine", "ddp"],
        ["--data", "cats"],
        ["--model", "mlp", "--epochs", "1"],
    ],
    "allreduce/allreduce.py": [["--engine", "smoke"], ["--dtype", "int8"]],
    "torch/input_pipeline.py": [["--model", "rnn"], ["--data", "cats"], ["--make", "."]],
    "studies/keras_prepare_cost.py": [["--repeats", "1"]],
    "studies/consistency_check_cost.py": [["--model", "lenet"]],
    "studies/launch_time.py": [["--repeats", "few"]],
}


@pytest.mark.parametrize("program", WRONG)
def test_help_and_a_wrong_option_import_no_framework(program: str, tmp_path: Path) -> None:
    (tmp_path / "there").touch()  # --make takes no folder that holds something
    lines = [["--help"], *WRONG[program]]
    slow = (*FRAMEWORKS, *ALSO_SLOW)
    ended = subprocess.run(
        [
            *(sys.executable, "-c", CODE, str(BENCHMARKS / program)),
            *(json.dumps(lines), json.dumps(slow)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    codes, imported = json.loads(ended.stdout.splitlines()[-1])
    assert codes == [0, *[2] * len(WRONG[program])], ended.stderr
    assert imported == []
