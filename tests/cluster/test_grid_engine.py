"""Jobs under a real Grid Engine: where ranks start, and how jobs end."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cluster_grid_engine import GridEngineCluster
from cluster_network import LOGIN
from paths import HVDTOOLS, PROGRAMS
from test_launch_cluster import assert_places, found_by_rank
from test_pbs_cluster import SAVES

ON = (HVDTOOLS, "launch", "--on", "grid-engine", "--wait")
TWO_BY_TWO = (*ON, "--pe", "ranks2", "--nodes", "2", "--ranks-per-node", "2")
ENV = {"OMP_NUM_THREADS": "1"}


def launch(grid_engine: GridEngineCluster, folder: Path, *words: str) -> Any:
    return grid_engine.run(words, env=ENV, cwd=folder, timeout_s=150)


def test_ranks_start_on_the_nodes_of_the_job(
    grid_engine_cluster: GridEngineCluster, tmp_path: Path
) -> None:
    program = ("--", "python", str(PROGRAMS / "rank_place.py"))
    done = launch(grid_engine_cluster, tmp_path, *TWO_BY_TWO, *program)
    assert done.returncode == 0, done.stdout + done.stderr
    places = found_by_rank(done.stdout)
    first, second = places[0]["host"], places[2]["host"]
    assert first != second
    assert_places(places, [first, first, second, second])
    assert re.search(r"submitted as job \d+\n(.*\n)*job \d+: done", done.stderr)


def test_a_sweep_runs_on_each_number_of_nodes(
    grid_engine_cluster: GridEngineCluster, tmp_path: Path
) -> None:
    words = (*ON, "--pe", "ranks1", "--array", "1,2", "--ranks-per-node", "1")
    program = "import os; print('of', os.environ['HVDTOOLS_SIZE'])"
    done = launch(grid_engine_cluster, tmp_path, *words, "--", "python", "-c", program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(re.findall(r"of \d", done.stdout)) == ["of 1", "of 2", "of 2"]


def test_the_exit_code_is_that_of_the_rank_that_failed(
    grid_engine_cluster: GridEngineCluster, tmp_path: Path
) -> None:
    program = (
        "import os, sys, time\n"
        "sys.exit(3) if os.environ['OMPI_COMM_WORLD_RANK'] == '3' else time.sleep(60)"
    )
    done = launch(grid_engine_cluster, tmp_path, *TWO_BY_TWO, "--", "python", "-c", program)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "rank 3 failed first with exit code 3" in done.stdout
    assert "failed with exit code 3" in done.stderr


def test_nodes_that_are_not_as_asked_for_are_refused(
    grid_engine_cluster: GridEngineCluster, tmp_path: Path
) -> None:
    words = (*ON, "--pe", "fill", "--nodes", "2", "--ranks-per-node", "2")
    done = launch(grid_engine_cluster, tmp_path, *words, "--", "true")
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.search(
        r"Grid Engine allocated host\d:4, where 4 ranks are not on 2 nodes", done.stdout
    )


def test_a_job_that_saved_before_its_time_limit_goes_back_into_the_queue(
    grid_engine_cluster: GridEngineCluster, tmp_path: Path
) -> None:
    program = tmp_path / "saves.py"
    program.write_text(f"import os\nif os.path.exists('saved'): os._exit(0)\n{SAVES}")
    marked = program.read_text().replace(
        'print("saved", flush=True)', 'print("saved", flush=True); open("saved", "w").close()'
    )
    program.write_text(marked)
    limit = ("--time", "00:01:00", "--signal", "50")
    done = launch(grid_engine_cluster, tmp_path, *TWO_BY_TWO, *limit, "--", "python", str(program))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^\[\d\] saved$", done.stdout, re.MULTILINE)) == 4
    assert len(re.findall(r"^4 ranks in Grid Engine job", done.stdout, re.MULTILINE)) == 2


def test_a_job_that_is_interrupted_leaves_no_process(
    grid_engine_cluster: GridEngineCluster, tmp_path: Path
) -> None:
    process = grid_engine_cluster.cluster.popen(
        LOGIN,
        [*TWO_BY_TWO, "--", "python", "-c", SAVES],
        env={**ENV, **grid_engine_cluster.variables},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline_s = time.monotonic() + 60
    while sum(file.read_text().count("trains") for file in tmp_path.glob("sge-*.out")) < 4:
        assert time.monotonic() < deadline_s, process.communicate(timeout=5)
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130 and "canceling job" in err, out + err
    while grid_engine_cluster.cluster.processes():
        assert time.monotonic() < deadline_s + 60, grid_engine_cluster.cluster.processes()
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--nodes", "2", "--ranks-per-node", "2"), "name one that `qconf -spl` lists with --pe"),
        (("-n", "2", "--pe", "nowhere"), "Grid Engine refuses the job: "),
        (("-n", "2", "--pe", "ranks1", "--gpus-per-node", "1"), "each site names its GPU resource"),
    ],
)
def test_what_cannot_be_is_one_clear_message(
    grid_engine_cluster: GridEngineCluster, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    done = launch(grid_engine_cluster, tmp_path, *ON, *words, "--", "true")
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
