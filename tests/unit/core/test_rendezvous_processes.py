"""The rendezvous of real processes, without a framework.

Their variables are those of torchrun or Slurm, for one machine.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from paths import PROGRAMS

from hvdtools.rendezvous import client, static
from hvdtools.rendezvous.membership import Member
from hvdtools.rendezvous.protocol import Endpoint, longest_pause_s, scope_name
from hvdtools.rendezvous.server import Store, gather

PROGRAM = PROGRAMS / "rank_rendezvous_only.py"
Seen = dict[str, Any]


def torchrun(rank: int, size: int, **more: str) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "TORCHELASTIC_RUN_ID": "tests",
        "GROUP_RANK": "0",
        **more,
    }


def slurm(rank: int, size: int, job: str, **more: str) -> dict[str, str]:
    """A step on one node."""
    return {
        "SLURM_JOB_ID": job,
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_TASKS_PER_NODE": str(size),
        "SLURM_STEP_NODELIST": "node1",
        "SLURMD_NODENAME": "node1",
        **more,
    }


def rendezvous(
    environs: list[dict[str, str]],
    *arguments: tuple[str, ...],
    timeout_s: float = 5,
    cwd: Path | None = None,
) -> list[list[Seen]]:
    """Start a process for each environment; returns what each printed.

    Args:
        arguments: Those of the program, for each process.
        timeout_s: Of the rendezvous.
    """
    common = {**os.environ, "HVDTOOLS_RENDEZVOUS_TIMEOUT_S": str(timeout_s)}
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, *(arguments[index] if arguments else ())],
            env={**common, **environ},
            stdout=subprocess.PIPE,
            text=True,
            cwd=cwd,
        )
        for index, environ in enumerate(environs)
    ]
    printed = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    return [
        [json.loads(line[5:]) for line in lines if line.startswith("SEEN ")] for lines in printed
    ]


@pytest.fixture
def port() -> str:
    """MASTER_PORT: torchrun's own store would listen on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def assert_connected(seen: list[list[Seen]], size: int) -> None:
    for rank, lines in enumerate(seen):
        for line in lines:
            assert line.get("HOROVOD_RANK") == str(rank), line
            assert line["HOROVOD_SIZE"] == line["HOROVOD_LOCAL_SIZE"] == str(size)
            assert line["HOROVOD_GLOO_IFACE"] == "lo"
            assert line["HOROVOD_CONTROLLER"] == line["HOROVOD_CPU_OPERATIONS"] == "gloo"


def test_ranks_connect_quickly_and_again(port: str) -> None:
    """A second framework in the process starts another Horovod."""
    seen = rendezvous([torchrun(r, 3, MASTER_PORT=port) for r in range(3)], *[("twice",)] * 3)
    assert [len(lines) for lines in seen] == [2, 2, 2]
    assert_connected(seen, 3)
    assert len({line["HOROVOD_GLOO_RENDEZVOUS_PORT"] for lines in seen for line in lines}) == 1
    # 0.02 to 0.1 s, and what the other processes' start takes.
    assert all(lines[1]["took_s"] < 1 for lines in seen), seen


def test_late_ranks_are_waited_for() -> None:
    environs = [slurm(rank, 3, job="late") for rank in range(3)]
    assert_connected(rendezvous(environs, ("sleep=1",), (), ("sleep=2",)), 3)


def test_a_user_may_name_the_address(port: str) -> None:
    address = {"HVDTOOLS_RENDEZVOUS": f"localhost:{port}"}
    seen = rendezvous([slurm(rank, 2, job="named", **address) for rank in range(2)])
    assert_connected(seen, 2)
    assert {lines[0]["HOROVOD_GLOO_RENDEZVOUS_PORT"] for lines in seen} == {port}


def test_a_rank_that_never_starts_is_named(port: str) -> None:
    environs = [torchrun(rank, 4, MASTER_PORT=port) for rank in range(4)]
    seen = rendezvous(environs, (), (), ("absent",), (), timeout_s=1.5)
    for rank in (0, 1, 3):
        (line,) = seen[rank]
        assert line["refused"].startswith("Rank 2 of 4 did not reach init() within 1.5 s")
        assert line["took_s"] < 6


def test_a_rank_0_that_never_starts(port: str) -> None:
    ((line,),) = rendezvous([torchrun(1, 2, MASTER_PORT=port)], timeout_s=1)
    assert line["refused"].startswith("Rank 0 did not answer within 1 s; tried 127.0.0.1:")
    assert "(Connection refused)" in line["refused"]
    assert "HVDTOOLS_INTERFACE" in line["refused"] and "firewall" in line["refused"]


def test_two_processes_with_one_rank(port: str) -> None:
    """Rank 0 notices them in time, or has closed the job already."""
    environs = [torchrun(rank, 3, MASTER_PORT=port) for rank in (0, 1, 1)]
    for lines in rendezvous(environs):
        assert lines[0]["refused"].startswith("Two processes have rank 1")
    environs = [torchrun(rank, 2, MASTER_PORT=port) for rank in (0, 1, 1)]
    seen = rendezvous(environs, (), (), (), timeout_s=2)
    refused = [lines[0]["refused"] for lines in seen if "refused" in lines[0]]
    assert len(refused) in (1, 3), seen  # the last one, or all


def test_two_rank_0s(port: str) -> None:
    environs = [torchrun(0, 2, MASTER_PORT=port) for _ in range(2)]
    seen = rendezvous(environs, (), ("sleep=1",), timeout_s=3)
    assert seen[0][0]["refused"].startswith("Rank 1 of 2 did not reach init()")
    assert "Another process on this host is also rank 0 of this job" in seen[1][0]["refused"]


def test_ranks_with_two_sizes(port: str) -> None:
    environs = [torchrun(rank, size, MASTER_PORT=port) for rank, size in ((0, 3), (1, 3), (2, 8))]
    for lines in rendezvous(environs):
        assert "Rank 2 on" in lines[0]["refused"]
        assert "has a job of 8 ranks, and rank 0 one of 3" in lines[0]["refused"]


def test_two_jobs_on_the_same_ports_do_not_mix(port: str) -> None:
    """Another token is another job, such as another restart by torchrun."""
    environs = [
        torchrun(rank, 2, MASTER_PORT=port, TORCHELASTIC_RESTART_COUNT=restart)
        for restart in "01"
        for rank in range(2)
    ]
    seen = rendezvous(environs)
    assert_connected(seen[:2], 2)
    assert_connected(seen[2:], 2)
    assert len({lines[0]["HOROVOD_GLOO_RENDEZVOUS_PORT"] for lines in seen}) == 2


@contextmanager
def other_programs(ports: tuple[int, ...]) -> Iterator[None]:
    """An HTTP server on the first of these ports, and one that never answers on the second."""
    handler = http.server.SimpleHTTPRequestHandler
    with ExitStack() as open_:
        web = open_.enter_context(http.server.ThreadingHTTPServer(("", ports[0]), handler))
        threading.Thread(target=web.serve_forever, daemon=True).start()
        open_.callback(web.shutdown)
        open_.enter_context(socket.create_server(("", ports[1])))
        yield


def test_other_programs_hold_the_first_ports() -> None:
    ports = static.computed_ports("held.0.")
    with other_programs(ports):
        seen = rendezvous([slurm(rank, 2, job="held") for rank in range(2)], timeout_s=20)
    assert_connected(seen, 2)
    found = {int(lines[0]["HOROVOD_GLOO_RENDEZVOUS_PORT"]) for lines in seen}
    assert found == {ports[2]}


def test_other_programs_hold_all_ports() -> None:
    with ExitStack() as open_:
        for port in dict.fromkeys(static.computed_ports("full.0.")):
            open_.enter_context(socket.create_server(("", port)))
        ((line,),) = rendezvous([slurm(0, 2, job="full")])
    assert "Rank 0 cannot listen" in line["refused"]
    assert "HVDTOOLS_RENDEZVOUS=host:port" in line["refused"]


def test_a_wrong_interface(port: str) -> None:
    environs = [torchrun(0, 2, MASTER_PORT=port, HVDTOOLS_INTERFACE="eth77")]
    ((line,),) = rendezvous(environs)
    assert "'eth77': choose one of" in line["refused"]


def test_an_invalid_timeout(port: str) -> None:
    environs = [torchrun(0, 2, MASTER_PORT=port)]
    for wrong in ("soon", "0", "inf"):
        ((line,),) = rendezvous(environs, timeout_s=wrong)  # type: ignore[arg-type]
        assert "must be a number of seconds" in line["refused"]


def test_node_names_that_do_not_resolve(tmp_path: Path) -> None:
    """Two slurmds on one host: a file in the working folder holds the address of rank 0."""
    environs = [
        slurm(rank, 2, job="names", **names)
        for rank, names in enumerate(
            {
                "SLURMD_NODENAME": node,
                "SLURM_NODEID": str(index),
                "SLURM_LOCALID": "0",
                "SLURM_STEP_NUM_NODES": "2",
                "SLURM_STEP_NODELIST": "no-such-node[1-2]",
                "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            }
            for index, node in enumerate(("no-such-node1", "no-such-node2"))
        )
    ]
    seen = rendezvous(environs, timeout_s=15, cwd=tmp_path)
    assert [lines[0].get("HOROVOD_HOSTNAME") for lines in seen] == [
        "no-such-node1",
        "no-such-node2",
    ], seen
    assert [lines[0]["HOROVOD_CROSS_RANK"] for lines in seen] == ["0", "1"]
    assert {lines[0]["HOROVOD_GLOO_IFACE"] for lines in seen} == {"lo"}
    assert list(tmp_path.iterdir()) == []


def test_a_second_program_in_the_same_step() -> None:
    """`srun sh -c 'python a.py; python b.py'`: the same token, and they do not mix."""
    program = [sys.executable, str(PROGRAM)]
    twice = f"{program[0]} {program[1]}; {program[0]} {program[1]}"
    processes = [
        subprocess.Popen(
            ["sh", "-c", twice],
            env={**os.environ, **slurm(rank, 2, job="two")},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    seen = [[json.loads(line[5:]) for line in lines] for lines in printed]
    assert [len(lines) for lines in seen] == [2, 2]
    assert_connected(seen, 2)


def test_the_store_ends_with_rank_0(port: str) -> None:
    process = subprocess.Popen(
        [sys.executable, PROGRAM], env={**os.environ, **torchrun(0, 2, MASTER_PORT=port)}
    )
    deadline = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", int(port) + 1)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert socket.socket().connect_ex(("127.0.0.1", int(port) + 1)) != 0


def test_512_ranks_register() -> None:
    """In threads of this process: it tests the store, and the number of requests."""
    size = 512
    store = Store((0,))
    scope = scope_name("many", 1)
    pause_s = longest_pause_s(size)

    def member(rank: int) -> Member:
        return Member(rank, size, rank % 8, f"h{rank // 8}", "", "m", f"n{rank}", "")

    def join(rank: int) -> list[str]:
        endpoint = Endpoint(("127.0.0.1",), store.port, "many")
        connection, _ = client.connect(lambda: (endpoint,), 1, 60, pause_s)
        client.register(connection, member(rank))
        nonces: list[str] = client.wait_for_membership(connection, 60, pause_s)["nonces"]
        return nonces

    store.open(scope)
    with ThreadPoolExecutor(size) as ranks:
        memberships = [ranks.submit(join, rank) for rank in range(1, size)]
        members = gather(store, scope, member(0), 60)
        store.publish(scope, {"nonces": [each.nonce for each in members]}, [])
        expected = [f"n{rank}" for rank in range(size)]
        assert all(each.result() == expected for each in memberships)
