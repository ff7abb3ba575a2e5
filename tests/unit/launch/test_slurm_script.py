"""The batch script that a job becomes: compared whole, and run with a fake srun."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from paths import GOLDEN, SCRIPTS

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.schedulers.slurm.request import Slurm
from hvdtools.launch.schedulers.slurm.script import submission
from hvdtools.launch.spec import JobSpec

PYTHON = "/env dir/bin/python"
HOSTILE = (
    *(
        "python",
        "a b.py",
        'say "hi"',
        "it's",
        "; echo foo",
        "$HOME",
        "`id`",
        "new\nline",
        "dos\r\n",
    ),
    *("", "*", ":", "\\", "#SBATCH --nodes=9", "é", "--", "-n"),
)
ENV = (("QUOTED", "a \"b\" 'c' ; $HOME \\"), ("LINES", "1\n#SBATCH -N7\n2"), ("EMPTY", ""))
PLAIN = JobSpec(("python", "train.py", "--lr", "0.1"), 4, on=Slurm())
EVERYTHING = JobSpec(
    HOSTILE,
    8,
    "mpirun",
    ENV,
    on=Slurm(
        account="a/c#1",
        partition="gpu,long",
        qos='hi"gh',
        constraint="[rack1|rack2]&a100",
        mail_type="END,FAIL",
        mail_user="o'neil@example.org",
        signal=60,
        sbatch=("mem=64G", "exclusive", 'comment=a \\ "b" #c $HOME', "hint="),
    ),
    nodes=2,
    ranks_per_node=4,
    gpus_per_node=4,
    cpus_per_rank=6,
    distribution="cyclic",
    bind="numa",
    interface="ib0",
    name="my job's #1",
    timeout_s=3601,
    restarts=2,
    log_dir=Path("logs; $HOME"),
    pass_on=("--mca", "pml", "ucx x"),
)
SWEEP = JobSpec(
    ("./run me",), 2, on=Slurm(array="4,1,2", container="my image.sif"), ranks_per_node=2,
    log_dir=Path("logs"),
)  # fmt: skip


def document(spec: JobSpec) -> str:
    return submission(spec, PYTHON).document


def changes(spec: JobSpec, script: str) -> str:
    """What the job's own document adds to a script that people start by hand, and takes away."""
    by_hand = (SCRIPTS / script).read_text().splitlines()
    made = document(spec).splitlines()
    lines = difflib.ndiff(by_hand, made)
    return "".join(f"{line.rstrip()}\n" for line in lines if line[0] in "+-")


@pytest.mark.parametrize(
    ("name", "spec"), [("plain", PLAIN), ("everything", EVERYTHING)], ids=["plain", "everything"]
)
def test_what_a_job_adds_to_the_script(name: str, spec: JobSpec) -> None:
    golden = GOLDEN / f"slurm-{name}.diff"
    assert changes(spec, "slurm.sbatch") == golden.read_text()


def test_a_sweep_holds_both_scripts() -> None:
    made = document(SWEEP)
    sweep, job = ((SCRIPTS / name).read_text() for name in ("sweep.sbatch", "slurm.sbatch"))
    head, rest = made.split("\nset -uo pipefail\n")
    golden = (GOLDEN / "slurm-sweep.diff").read_text()
    by_hand = sweep.partition("# >>> the rest of the job <<<\n")[0].splitlines()
    lines = [line.rstrip() for line in difflib.ndiff(by_hand, head.splitlines())]
    assert "\n".join(line for line in lines if line[:1] in ("+", "-")) == golden.rstrip("\n")
    body = job.split("\nset -uo pipefail\n")[1]
    assert rest == re.sub(r"# >>> `hvdtools launch` .*\n", "", body)
    assert not re.search(r"^launcher_options=|declare -a launcher_options=", rest, re.MULTILINE)


@pytest.mark.parametrize("spec", [PLAIN, EVERYTHING, SWEEP], ids=["plain", "everything", "sweep"])
def test_bash_and_shellcheck_read_it(tmp_path: Path, spec: JobSpec) -> None:
    script = tmp_path / "job.sbatch"
    script.write_text(document(spec))
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck here: apt-get install shellcheck")
    # SC2016: values that look like variables are meant as they are.
    subprocess.run(["shellcheck", "-S", "warning", "-e", "SC2016", script], check=True)


@pytest.mark.parametrize("script", ["slurm.sbatch", "sweep.sbatch", "srun.sh"])
def test_the_scripts_themselves_are_clean(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck here: apt-get install shellcheck")
    subprocess.run(["shellcheck", "-x", SCRIPTS / script], check=True, cwd=SCRIPTS.parent)


# Stands for srun and for what the script asks Slurm: shows what it was called with, and what the
# rank that it starts sees.
FAKE = r"""#!/bin/bash
[[ $* != --mpi=list ]] || { echo "MPI plugin types are... none pmi2"; exit; }
printf '%s\0' "${@:1:$#-3}"; printf '\0'
export SLURM_PROCID=0
exec "${@: -3}"
"""
RANK = r"""#!/bin/bash
printf '%s\0' "$0" "$@"; printf '\0'; env -0
"""


def started(folder: Path, spec: JobSpec) -> tuple[list[str], list[str], dict[str, str]]:
    """The words given to srun, those that arrive in a rank, and its variables."""
    programs = {
        "srun": FAKE,
        "python": RANK,
        "run": RANK,
        "apptainer": RANK,
        "scontrol": "#!/bin/sh\n",
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_TASKS_PER_NODE": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_ID": "7",
    }
    done = subprocess.run(
        ["bash"],
        input=submission(spec, str(folder / "python")).document.encode(),
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **slurm},
        capture_output=True,
        check=True,
        cwd=folder,
    )
    options, words, env = done.stdout.decode().split("\0\0")
    pairs = (pair.partition("=") for pair in env.split("\0") if pair)
    return options.split("\0"), words.split("\0"), {name: value for name, _, value in pairs}


def test_words_and_variables_arrive_in_a_rank_as_they_are(tmp_path: Path) -> None:
    # Without the empty word last: the separators are empty, too.
    spec = replace(PLAIN, command=tuple(w for w in HOSTILE if w), env=ENV, pass_on=("--x=a b",))
    options, words, env = started(tmp_path, spec)
    assert words == [str(tmp_path / "python"), *[word for word in HOSTILE if word][1:]]
    assert dict(ENV).items() <= env.items()
    assert env["HVDTOOLS_SIZE"] == env["HVDTOOLS_NODES"] == "1"
    assert env["HVDTOOLS_SIGNAL"] == "USR1" and env["PYTHONUNBUFFERED"] == "1"
    assert options == [
        *("--kill-on-bad-exit=1", "--label", "--export=ALL", "--mpi=pmi2", "--cpu-bind=none"),
        "--x=a b",
    ]


def test_a_container_has_its_own_python(tmp_path: Path) -> None:
    image = str(tmp_path / "my image.sif")
    _, words, _ = started(tmp_path, replace(PLAIN, on=Slurm(container=image)))
    assert words == [
        *(str(tmp_path / "apptainer"), "exec", "--nv", image),
        *PLAIN.command,
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "a\nb"}, "--name 'a\\nb' is no single line"),
        ({"timeout_s": 90.0}, "--timeout 90 is over before training begins"),
        ({"timeout_s": 600.0, "on": Slurm(time="10")}, "--time and --timeout both say"),
        ({"on": Slurm(array="1,2")}, "add --ranks-per-node"),
        (
            {"on": Slurm(array="1,2"), "nodes": 4, "ranks_per_node": 1},
            "asks for 2 nodes at most, and --nodes for 4",
        ),
        ({"launcher": "horovodrun", "distribution": "cyclic"}, "knows no --distribution cyclic"),
        ({"command": ("python", "\udcff")}, "is not UTF-8"),
    ],
)
def test_what_slurm_cannot_do(change: dict[str, object], says: str) -> None:
    with pytest.raises(HvdtoolsError, match=re.escape(says)):
        submission(replace(PLAIN, **change), PYTHON)  # type: ignore[arg-type]


def test_the_submission_around_it() -> None:
    made = submission(EVERYTHING, PYTHON)
    assert made.argv == ("sbatch", "--parsable") and made.program == "Slurm's sbatch"
    assert (made.on, made.ranks) == ("slurm", 8)
    assert made.note == "8 ranks on 2 nodes under Slurm, with mpirun"
    assert (
        submission(SWEEP, PYTHON).note == "2 ranks a node on 4, 1, 2 nodes under Slurm, with srun"
    )
    assert submission(PLAIN, PYTHON).note == "4 ranks under Slurm, with srun"
