"""What starts the ranks on a SageMaker host: real processes, and files as SageMaker writes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.schedulers.sagemaker import entry, local_ranks
from hvdtools.launch.schedulers.sagemaker.host import Host, read_host, variables, wait_for_names

OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR",
        "HVDTOOLS_SIZE", "HVDTOOLS_NODES", "NCCL_SOCKET_IFNAME", "HOROVOD_GLOO_IFACE")  # fmt: skip
SAY = f"import os, sys; print(*(os.environ.get(n) for n in {OURS}), *sys.argv[1:])"


def make_ml(folder: Path, **config: Any) -> Path:
    """An /opt/ml with a resourceconfig.json; 127.0.0.x stands for algo-x."""
    said = {
        "current_host": "127.0.0.1",
        "current_instance_type": "ml.p4d.24xlarge",
        "current_group_name": "homogeneousCluster",
        "hosts": ["127.0.0.1", "127.0.0.2"],
        "instance_groups": [],
        "network_interface_name": "lo",
        **config,
    }
    (folder / "input" / "config").mkdir(parents=True)
    (folder / "input" / "config" / "resourceconfig.json").write_text(json.dumps(said))
    return folder


def run_entry(ml: Path, *words: str, **environ: str) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; "
        "from hvdtools.launch.schedulers.sagemaker.entry import main; "
        "sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(ml), *words],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], timeout_s: float = 60) -> tuple[int, list[str], str]:
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, sorted(output.splitlines()), errors


def test_each_host_starts_its_own_ranks(tmp_path: Path) -> None:
    lines = []
    for name in ("127.0.0.1", "127.0.0.2"):
        ml = make_ml(tmp_path / name, current_host=name)
        words = ("--ranks-per-node", "2", "--", sys.executable, "-c", SAY, "a b", "--")
        code, said, errors = ended(run_entry(ml, *words))
        assert code == 0, errors
        lines += said
    assert lines == [
        "[0] 0 4 0 2 0 127.0.0.1 4 2 =lo lo a b --",
        "[1] 1 4 1 2 0 127.0.0.1 4 2 =lo lo a b --",
        "[2] 2 4 0 2 1 127.0.0.1 4 2 =lo lo a b --",
        "[3] 3 4 1 2 1 127.0.0.1 4 2 =lo lo a b --",
    ]


def test_the_interface_and_the_environment_of_the_job_win(tmp_path: Path) -> None:
    ml = make_ml(tmp_path, hosts=["127.0.0.1"])
    words = ("--ranks-per-node", "1", "--interface", "eth1", "--", sys.executable, "-c", SAY)
    code, said, errors = ended(run_entry(ml, *words, NCCL_SOCKET_IFNAME="ib0"))
    assert (code, said) == (0, ["[0] 0 1 0 1 0 127.0.0.1 1 1 ib0 eth1"]), errors


FAIL = """
import os, sys, time
if os.environ["LOCAL_RANK"] == "1":
    sys.exit("rank 1 cannot go on") if len(sys.argv) == 1 else os._exit(7)
print("waiting", flush=True)
time.sleep(600)
"""


def test_when_a_rank_fails_all_end_and_its_code_is_returned(tmp_path: Path) -> None:
    ml = make_ml(tmp_path, hosts=["127.0.0.1"])
    words = ("--ranks-per-node", "3", "--", sys.executable, "-c", FAIL, "7")
    started = time.monotonic()
    process = run_entry(ml, *words)
    code, said, errors = ended(process)
    assert code == 7 and time.monotonic() - started < 30, errors
    assert said == ["[0] waiting", "[2] waiting"]
    assert "rank 1 ended with exit code 7" in errors
    assert (ml / "output" / "failure").read_text().startswith("rank 1 ended with exit code 7")


def test_the_reason_that_sagemaker_shows_ends_with_the_last_words(tmp_path: Path) -> None:
    ml = make_ml(tmp_path, hosts=["127.0.0.1"])
    code, _, _ = ended(run_entry(ml, "--ranks-per-node", "2", "--", sys.executable, "-c", FAIL))
    assert code == 1
    assert (ml / "output" / "failure").read_text().endswith("rank 1 cannot go on")


VICTIM = """
import os, time
if os.environ["LOCAL_RANK"] == "0":
    raise RuntimeError("HorovodInternalError: a peer went away")
time.sleep(1)
raise ValueError("the culprit's")
"""


def test_the_rank_to_blame_is_not_the_one_that_missed_it(tmp_path: Path) -> None:
    ml = make_ml(tmp_path, hosts=["127.0.0.1"])
    words = ("--ranks-per-node", "2", "--", sys.executable, "-c", VICTIM)
    code, _, errors = ended(run_entry(ml, *words))
    assert code == 1 and "rank 1 ended" in errors
    assert (ml / "output" / "failure").read_text().endswith("ValueError: the culprit's")


def test_a_signal_is_128_and_its_number(tmp_path: Path) -> None:
    ml = make_ml(tmp_path, hosts=["127.0.0.1"])
    dies = "import os; os.kill(os.getpid(), 9)"
    code, _, _ = ended(run_entry(ml, "--ranks-per-node", "1", "--", sys.executable, "-c", dies))
    assert code == 128 + signal.SIGKILL


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


STOPS = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
print("training", child.pid, flush=True)
time.sleep(600)
"""


def test_a_stopped_job_lets_ranks_save_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ml = make_ml(tmp_path, hosts=["127.0.0.1"])
    process = run_entry(ml, "--ranks-per-node", "2", "--", sys.executable, "-c", STOPS)
    assert process.stdout is not None
    children = [int(process.stdout.readline().split()[-1]) for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    code, said, errors = ended(process)
    assert (code, said) == (0, ["[0] saved", "[1] saved"]), errors
    assert not any(map(is_running, children))


def test_a_rank_that_does_not_listen_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_ranks, "_LAST_WORDS_S", 0.1)
    monkeypatch.setattr(local_ranks, "_GRACE_S", 0.2)
    deaf = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('up', flush=True); time.sleep(0.5 if os.environ['RANK'] == '1' else 600); "
        "sys.exit(3)"
    )
    environments = [{**os.environ, "RANK": str(rank)} for rank in range(2)]
    code, reason = local_ranks.run_ranks([sys.executable, "-c", deaf], environments)
    assert code == 3 and reason.startswith("rank 1 ended with exit code 3")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    ml = make_ml(tmp_path, hosts=["127.0.0.1"])
    code, _, errors = ended(run_entry(ml, "--ranks-per-node", "2", "--", "./absent"))
    assert code == 127 and "'./absent' cannot be run in the container" in errors


@pytest.mark.parametrize(
    "words",
    [[], ["--ranks-per-node", "2"], ["--ranks-per-node", "2", "--"], ["--ranks-per-node", "0",
     "--", "true"], ["--ranks", "two", "--", "true"]],
)  # fmt: skip
def test_wrong_words(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(words, make_ml(tmp_path))
    assert caught.value.code == 2


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"current_host": "a", "hosts": ["b"]}'])
def test_a_config_that_does_not_say_who_is_here(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "resourceconfig.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(HvdtoolsError, match=str(file)):
        read_host(file)


def test_outside_sagemaker_the_entry_says_so(tmp_path: Path) -> None:
    assert entry.main(["--ranks-per-node", "1", "--", "true"], tmp_path) == 2
    assert "resourceconfig.json" in (tmp_path / "output" / "failure").read_text()


def test_a_host_that_never_comes_is_named() -> None:
    host = Host("localhost", ("localhost", "no-such-host.invalid"), None)
    with pytest.raises(HvdtoolsError, match=r"no-such-host\.invalid has no address after 0 s"):
        wait_for_names(host, patience_s=0)


def test_hosts_agree_on_who_is_who() -> None:
    names = ("algo-1", "algo-10", "algo-2")  # as SageMaker sorts them
    ranks = [
        int(variables(Host(name, names, None), 2, local_rank)["RANK"])
        for name in names
        for local_rank in range(2)
    ]
    assert ranks == [0, 1, 2, 3, 4, 5]
