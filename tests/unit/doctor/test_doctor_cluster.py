"""What can differ between hosts: each difference is found, and the outlier is named."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace

import pytest
from doctor_clusters import (
    changed,
    nic,
    sound_cluster,
    sound_host,
    unreached,
    with_network,
    with_nic,
    with_version,
)
from doctor_machines import GIB, with_horovod
from rich.console import Console

from hvdtools.build.programs import Answer
from hvdtools.build.smoke_test import error_lines
from hvdtools.core.errors import TIMED_OUT
from hvdtools.doctor.allreduce.check import Check
from hvdtools.doctor.allreduce.fault_isolation import FaultIsolation
from hvdtools.doctor.collect import read_answer
from hvdtools.doctor.compare import compare, difference, listed, row
from hvdtools.doctor.describe import cluster_rows
from hvdtools.doctor.facts import ClusterFacts, FrameworkImport, Interface, Memory, read_host_facts
from hvdtools.doctor.findings import worst
from hvdtools.doctor.probes.host import LATE, LIMIT_S, MARK
from hvdtools.doctor.report import Report, to_json
from hvdtools.doctor.rules import examine
from hvdtools.doctor.rules.allreduce import examine_checks
from hvdtools.doctor.rules.network import common_interfaces
from hvdtools.doctor.screen import show
from hvdtools.launch.hosts import Host

SOUND = sound_cluster()
PAIR = sound_cluster(2)
NO_ANSWER = f"the doctor had no answer from it in {LIMIT_S} s"
DOCKER = Interface("docker0", True, ("172.17.0.1",), 0, 1500, ("172.17.0.0/16",))


def said(cluster: ClusterFacts, level: str, subject: str) -> str:
    """The findings of this level and subject in one text."""
    found = [each for each in examine(cluster) if (each.level, each.subject) == (level, subject)]
    return "\n".join(f"{each.message} → {each.remedy}" for each in found)


def test_sound_hosts_have_no_warnings() -> None:
    assert {each.level for each in examine(SOUND)} == {"ok"}


MORE_DOCKER = with_nic(
    with_nic(SOUND, "host1", nic("eth0", 1), nic("eth1", 1), DOCKER),
    "host2",
    nic("eth0", 2),
    nic("eth1", 2),
    DOCKER,
)
ERRORS = [
    (
        with_version(SOUND, "host3", "torch", "2.12.0"),
        "torch",
        "host3 has torch 2.12.0, the 3 others 2.13.0 → install torch 2.13.0 on host3, then run "
        "`hvdtools build` there",
    ),
    (with_version(SOUND, "host2", "torch", None), "torch", "host2 has no torch, the 3 others 2.1"),
    (
        with_version(with_version(SOUND, "host1", "torch", "2.12.0"), "host4", "torch", "2.12.0"),
        "torch",
        "host1 and host4 have torch 2.12.0, host2 and host3 2.13.0 → install the same version of "
        "torch on all hosts",
    ),
    (
        with_version(PAIR, "host2", "Horovod", "0.28.1, built for torch 2.12.0"),
        "Horovod",
        "host1 has Horovod 0.28.1, built for torch 2.13.0, with Open MPI 5.0.11 (MPI, Gloo), "
        "host2 0.28.1, built for torch 2.12.0 → run `hvdtools build` on all hosts",
    ),
    (with_version(SOUND, "host4", "Python", "3.12.1"), "Python", "host4 has Python 3.12.1, the 3"),
    (with_version(SOUND, "host1", "MPI", "Open MPI 4.1.4"), "MPI", "host1 has MPI Open MPI 4.1.4"),
    (
        with_version(SOUND, "host1", "NCCL", "2.20.5"),
        "NCCL",
        "host1 has NCCL 2.20.5, the 3 others none",
    ),
    (
        replace(SOUND, versions_here={"MPI": "Open MPI 4.1.4", "Python": "3.11.2"}),
        "MPI",
        "this machine (login), which starts the ranks, has MPI Open MPI 4.1.4, the hosts Open MPI "
        "5.0.11 → install MPI Open MPI 5.0.11 here",
    ),
    (unreached(SOUND, "host4"), "hosts", "ssh does not reach host4 (timed out) → let `ssh host4`"),
    (
        unreached(SOUND, "host2", "host4"),
        "hosts",
        "host2 and host4: ssh does not reach HOST (timed out) → let `ssh host2`",
    ),
    (
        with_network(SOUND, "host2", host_name="host1"),
        "hosts",
        "host1 and host2 share the host name host1",
    ),
    (
        changed(SOUND, "host3", resolved={"host1": ("10.0.0.1",), "host2": ("127.0.0.1",)}),
        "names",
        "host3 resolves host2 to 127.0.0.1, which is loopback → put `10.0.0.2 host2` into "
        "/etc/hosts on host3",
    ),
    (
        changed(SOUND, "host3", resolved={"host2": ("10.9.9.9",)}),
        "names",
        "host3 resolves host2 to 10.9.9.9, which that host does not have",
    ),
    (
        replace(
            with_nic(SOUND, "host3", nic("eth0", 3), nic("eth1", 3, up=False)), interface="eth1"
        ),
        "network",
        "--interface eth1: it is down on host3 → bring it up on host3, or name another (eth0)",
    ),
    (
        replace(SOUND, interface="ib0"),
        "network",
        "--interface ib0: it is absent on all hosts → bring it up on all hosts, or name another "
        "(eth0, eth1)",
    ),
    (
        changed(SOUND, "host2", loads=(FrameworkImport("torch", "torch", "OSError: x", None),)),
        "torch",
        "host2: `import torch` fails: OSError: x → install torch again",
    ),
]
WARNINGS = [
    (
        with_network(SOUND, "host2", host_addresses=("127.0.1.1",)),
        "names",
        "on host2 the host's own name resolves to 127.0.1.1 (loopback), so other hosts "
        "cannot reach its ranks → map its name to its address in /etc/hosts on host2, or start "
        "jobs with --interface eth0",
    ),
    (with_network(SOUND, "host2", host_addresses=()), "names", "own name has no address"),
    (changed(SOUND, "host3", resolved={"host2": ("10.0.0.2",)}), "names", "cannot resolve host1"),
    (
        with_nic(SOUND, "host3", nic("eth0", 3), nic("eth1", 3, up=False)),
        "network",
        "eth1 is down on host3, and up on the 3 others → bring it up on host3, or leave it out",
    ),
    (with_nic(SOUND, "host3", nic("eth0", 3)), "network", "eth1 is absent on host3"),
    (
        with_nic(SOUND, "host3", nic("eth0", 3), nic("eth1", 3, addresses=())),
        "network",
        "eth1 is up without an address on host3",
    ),
    (
        with_nic(SOUND, "host1", nic("eth0", 1, mtu_bytes=9000), nic("eth1", 1)),
        "network",
        "eth0: host1 has MTU 9000, the 3 others 1500 → set the same MTU",
    ),
    (
        with_nic(SOUND, "host1", nic("eth0", 1, speed_mbit_per_s=1000), nic("eth1", 1)),
        "network",
        "eth0: host1 has speed 1000 Mbit/s, the 3 others 25000 Mbit/s",
    ),
    (
        with_nic(SOUND, "host1", nic("eth0", 1), nic("eth1", 1, subnets=("192.168.0.0/24",))),
        "network",
        "host1 has eth1 in 192.168.0.0/24, the 3 others 10.0.1.0/24",
    ),
    (
        with_nic(PAIR, "host1", nic("ens0", 1)),
        "network",
        "no network interface is up under one name on all hosts",
    ),
    (
        MORE_DOCKER,
        "network",
        "docker0 has the address 172.17.0.1 on several hosts: it reaches no other host, but ranks "
        "may use it → start jobs with --interface eth0",
    ),
    (with_version(SOUND, "host1", "Python", "3.11.2"), "Python", "host1 has Python 3.11.2"),
    (with_version(SOUND, "host1", "MPI", "Open MPI 5.0.8"), "MPI", "the 3 others Open MPI 5.0.11"),
    (with_version(SOUND, "host1", "kernel", "Linux 5"), "kernel", "host1 has kernel Linux 5"),
    (with_version(SOUND, "host1", "driver", "570"), "driver", "host1 has driver 570, the 3 others"),
    (
        with_version(SOUND, "host1", "GPUs", "7 x NVIDIA H200, 141 GiB"),
        "GPUs",
        "host1 has GPUs 7 x NVIDIA H200, 141 GiB, the 3 others 8 x NVIDIA H200, 141 GiB → check "
        "`nvidia-smi -L` and `dmesg` on host1",
    ),
    (
        with_version(SOUND, "host1", "GPUs", "8 x NVIDIA A100, 80 GiB"),
        "GPUs",
        "host1 has GPUs 8 x NVIDIA A100, 80 GiB, the 3 others 8 x NVIDIA H200, 141 GiB → ",
    ),
    (
        replace(SOUND, answers=(*SOUND.answers[:3], replace(SOUND.answers[3], ahead_s=-3600.0))),
        "clocks",
        "host4's clock is 3600 s behind the others' → let host4 follow",
    ),
    (
        changed(SOUND, "host1", memory=Memory(64 * GIB, 2 * GIB, GIB, GIB)),
        "memory",
        "host1 has 2.0 GiB of memory free",
    ),
]


@pytest.mark.parametrize(("cluster", "subject", "words"), ERRORS)
def test_what_stops_a_run_is_an_error(cluster: ClusterFacts, subject: str, words: str) -> None:
    assert words in said(cluster, "error", subject)


@pytest.mark.parametrize(("cluster", "subject", "words"), WARNINGS)
def test_what_a_run_can_tolerate_is_a_warning(
    cluster: ClusterFacts, subject: str, words: str
) -> None:
    assert words in said(cluster, "warning", subject)
    assert worst(examine(cluster)) == "warning"


def test_other_versions_of_nccl_do_not_matter_if_horovod_has_none() -> None:
    cluster = with_version(SOUND, "host1", "NCCL", "2.20.5")
    for host, facts in SOUND.facts.items():
        cluster = changed(cluster, host, horovod=with_horovod(facts, nccl=False).horovod)
    assert "host1 has NCCL 2.20.5" in said(cluster, "warning", "NCCL")


def test_what_is_fine_is_not_reported() -> None:
    named = replace(with_network(SOUND, "host2", host_addresses=("127.0.1.1",)), interface="eth0")
    assert worst(examine(named)) == "ok"
    # A name that only ssh's configuration knows resolves nowhere, and nobody asks for it.
    aliased = SOUND
    for host in SOUND.facts:
        aliased = changed(aliased, host, resolved={})
    assert worst(examine(aliased)) == "ok"
    # One host's container network is its own affair.
    one = with_nic(SOUND, "host1", nic("eth0", 1), nic("eth1", 1), DOCKER)
    assert worst(examine(one)) == "ok"
    assert common_interfaces(MORE_DOCKER.facts) == ["eth0", "eth1"]


def test_what_all_hosts_have_to_fix_is_reported_once() -> None:
    cluster = SOUND
    for host in SOUND.facts:
        memory = Memory(64 * GIB, 60 * GIB, GIB, GIB // 2)
        cluster = changed(cluster, host, memory=memory)
    found = said(cluster, "warning", "memory")
    assert found.startswith("all 4 hosts: /dev/shm has 512 MiB free") and found.count("→") == 1


def test_hosts_are_compared_by_majority() -> None:
    assert compare({"a": "1", "b": "1"}).agree
    tie = compare({"a": "1", "b": "2"})
    assert (tie.usual, tie.outlier_hosts, row(tie)) == (None, ("a", "b"), "a: 1; b: 2")
    many = compare({f"h{n}": str(n % 5 if n < 10 else 9) for n in range(60)})
    assert many.usual == "9" and row(many).startswith("9; h0 and h5: 0; h1 and h6: 1; h2 and h7: 2")
    assert row(many).endswith("and 2 more kinds")
    assert difference("X", compare({"a": "1", "b": "2", "c": "2", "d": "3", "e": "2"})) == (
        "a has X 1, d 3, the 3 others 2"
    )
    assert listed([f"h{n}" for n in range(64)]) == "h0, h1, h2 and 61 more"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and d"


def test_the_facts_of_a_host_survive_json() -> None:
    facts = sound_host(1, 3)
    line = MARK + json.dumps(asdict(facts), default=str)
    answer = read_answer(Host("host1"), Answer(0, f"motd\n{line}\n"), "ssh", now_s=-2.0)
    assert answer.facts == facts == read_host_facts(json.loads(line.removeprefix(MARK)))
    assert answer.ahead_s == 2.0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Answer(TIMED_OUT, ""), f"host1 hangs: ssh reaches it, but {NO_ANSWER}"),
        (Answer(1, f"{LATE}\n"), "host1 hangs"),
        (Answer(1, "/x/python: No module named hvdtools.doctor.x"), "has no hvdtools, or an older"),
        (Answer(127, "sh: /x/python: not found"), "host1 cannot be examined: sh: python: not"),
        (Answer(0, f'{MARK}{{"versions": {{}}}}'), "another version of hvdtools"),
        (Answer(0, f"{MARK}[1"), "another version of hvdtools"),
        (None, "ssh cannot be started here"),
    ],
)
def test_a_host_without_facts_has_a_problem(said: Answer | None, words: str) -> None:
    answer = read_answer(Host("host1"), said, "ssh", 0.0)
    assert answer.facts is None and answer.problem is not None
    assert words in answer.problem.message and answer.problem.remedy


CHECKS = (
    Check("torch over MPI, 8 ranks on 4 hosts", tuple(SOUND.facts), "", (), 5.0),
    Check(
        "torch over Gloo, 8 ranks on 4 hosts",
        tuple(SOUND.facts),
        "exit status 1",
        ("ConnectionRefusedError: no",),
        5.0,
        FaultIsolation(("host3",), (), "host1"),
    ),
)


def test_the_host_that_breaks_the_all_reduce_is_named() -> None:
    good, bad = examine_checks(SOUND, CHECKS)
    assert (good.level, bad.level) == ("ok", "error")
    assert bad.message.endswith("host3 breaks it: the others work without, and it works alone")
    assert "network between host3 and host1" in bad.remedy
    (partly,) = examine_checks(SOUND, (replace(CHECKS[0], hosts=("host1", "host2", "host3")),))
    assert "(without host4)" in partly.message
    (none,) = examine_checks(SOUND, ())
    assert none.level == "warning"


@pytest.mark.parametrize(
    ("isolation", "message", "remedy"),
    [
        (
            FaultIsolation(("a", "b"), ("a", "b"), "c"),
            "a and b break it",
            "hvdtools doctor --np 2` on a",
        ),
        (FaultIsolation(good="a", groups=True), "but not all at once", "limits"),
        (FaultIsolation(suspects=("a", "b")), "No two of a and b work together", "--interface"),
        (
            FaultIsolation(alone=("a", "b"), suspects=("a", "b")),
            "a and b cannot even do it alone",
            "--np 2",
        ),
        (
            FaultIsolation(good="a", suspects=("b", "c")),
            "Time was up; b and c may break it",
            "--hosts",
        ),
    ],
)
def test_the_result_of_fault_isolation_is_reported(
    isolation: FaultIsolation, message: str, remedy: str
) -> None:
    (found,) = examine_checks(SOUND, (replace(CHECKS[1], isolation=isolation),))
    assert message in found.message and remedy in found.remedy


def test_the_lines_that_name_an_error_are_kept() -> None:
    noise = "UserWarning: leaked\n  warnings.warn('x')\n"
    assert error_lines(f"start\nOSError: no route\nbye\n{noise}") == ("OSError: no route",)
    assert error_lines(f"a\nb\n{noise}") == ("a", "b")


ALL = [SOUND, sound_cluster(64), *(case[0] for case in ERRORS), *(case[0] for case in WARNINGS)]


@pytest.mark.parametrize("columns", [80, 100])
def test_every_cluster_fits_one_screen(columns: int) -> None:
    for cluster in ALL:
        findings = (*examine(cluster), *examine_checks(cluster, CHECKS))
        out = io.StringIO()
        show(Report(cluster, findings, CHECKS), Console(file=out, width=columns))
        lines = out.getvalue().splitlines()
        assert len(lines) <= 40 and max(map(len, lines)) <= columns
        flat = " ".join(out.getvalue().split())
        for finding in findings:
            if finding.level == "error":
                assert f"{finding.subject}: {finding.message}" in flat
                assert f"→ {finding.remedy}" in flat
    assert "host3: 2.12.0" in dict(cluster_rows(ERRORS[0][0]))["torch"]


def test_json_has_an_object_for_each_host() -> None:
    cluster = unreached(SOUND, "host4")
    whole = json.loads(to_json(Report(cluster, examine(cluster), CHECKS)))
    assert (whole["schema"], whole["level"], whole["facts"]) == (3, "error", None)
    assert [host["name"] for host in whole["hosts"]] == ["host1", "host2", "host3", "host4"]
    assert whole["hosts"][0]["facts"]["versions"]["torch"] == "2.13.0"
    assert "findings" not in whole["hosts"][0]["facts"]
    assert whole["hosts"][3]["facts"] is None and "host4" in whole["hosts"][3]["problem"]
    assert whole["checks"][1]["isolation"]["hosts"] == ["host3"]
