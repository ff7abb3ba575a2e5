"""The parts of the rendezvous that need only one process."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import SINGLE_PROCESS, LaunchEnvironment
from hvdtools.rendezvous import apply_named_interface, prepare_gloo
from hvdtools.rendezvous.gloo import choose_discovery
from hvdtools.rendezvous.job import choose_controller
from hvdtools.rendezvous.membership import (
    Member,
    Placement,
    address_of_rank_0,
    find_conflict,
    missing_ranks,
    on_one_machine,
    place_ranks,
)
from hvdtools.rendezvous.network import interface_of, own_addresses
from hvdtools.rendezvous.protocol import Endpoint
from hvdtools.rendezvous.static import HostNamesOrFile, SharedFile, StaticDiscovery


def members(*hosts: str, machines: str = "") -> list[Member]:
    """One for each host in `hosts`, in rank order; local ranks as launchers count them."""
    return [
        Member(
            rank=rank,
            size=len(hosts),
            local_rank=hosts[:rank].count(host),
            host=host,
            node=(machines or hosts)[rank],
            machine=(machines or hosts)[rank],
            nonce=f"n{rank}",
            via="" if rank == 0 else "10.0.0.1",
        )
        for rank, host in enumerate(hosts)
    ]


def variables(placements: list[Placement]) -> list[tuple[str, int, int, int, int]]:
    return [
        (p.hostname, p.local_rank, p.local_size, p.cross_rank, p.cross_size) for p in placements
    ]


def test_placements_two_and_two() -> None:
    assert variables(place_ranks(members("a", "a", "b", "b"))) == [
        ("a", 0, 2, 0, 2), ("a", 1, 2, 0, 2), ("b", 0, 2, 1, 2), ("b", 1, 2, 1, 2),
    ]  # fmt: skip


def test_placements_uneven_and_out_of_order() -> None:
    """The cross group of a local rank holds only the nodes that have that local rank."""
    assert variables(place_ranks(members("b", "a", "b", "c", "b", "a"))) == [
        ("b", 0, 3, 0, 3), ("a", 0, 2, 1, 3), ("b", 1, 3, 0, 2),
        ("c", 0, 1, 2, 3), ("b", 2, 3, 0, 1), ("a", 1, 2, 1, 2),
    ]  # fmt: skip


def test_two_hosts_with_one_name() -> None:
    twins = [replace(m, local_rank=0) for m in members("a", "a", machines="xy")]
    assert [each.hostname for each in place_ranks(twins)] == ["a-1", "a-2"]
    assert [each.cross_size for each in place_ranks(twins)] == [2, 2]


def test_wrong_local_ranks_are_refused() -> None:
    twice = [replace(member, local_rank=0) for member in members("a", "a")]
    with pytest.raises(ValueError, match=r"ranks on a have the local ranks 0, 0 instead of 0 to 1"):
        place_ranks(twice)


def test_the_launchers_local_ranks_are_kept() -> None:
    """They determine the GPU; any order of 0 to n - 1 is allowed."""
    found = [replace(m, local_rank=1 - m.local_rank) for m in members("a", "a")]
    assert [each.local_rank for each in place_ranks(found)] == [1, 0]


def test_conflicts() -> None:
    good = members("a", "a", "b")
    assert find_conflict(good, 3) is None
    assert find_conflict(good[:2], 3) is None
    assert "has a job of 8 ranks, and rank 0 one of 3" in str(
        find_conflict([*good[:2], replace(good[2], size=8)], 3)
    )
    assert "Two processes have rank 1 (a, b)" in str(
        find_conflict([*good, replace(good[1], host="b", nonce="other")], 3)
    )


def test_missing_ranks_are_named() -> None:
    some = members(*"abcdef")
    assert missing_ranks([some[0], *some[2:]], 6, 60).startswith("Rank 1 of 6 did not reach init()")
    assert "Ranks 0, 1, 2, 3, 4, 5, 6, 7 and 4 more of 12" in missing_ranks([], 12, 60)


def test_the_address_of_rank_0() -> None:
    found = members("a", "a", "b", "c", "d")
    found[1] = replace(found[1], via="127.0.1.1")  # on its own host
    found[2] = replace(found[2], via="172.17.0.1")
    assert address_of_rank_0(found) == "10.0.0.1"
    assert not on_one_machine(found)
    local = members("a", "a")
    assert address_of_rank_0(local) is None
    assert on_one_machine(local)


def slurm(**more: str) -> tuple[LaunchEnvironment, dict[str, str]]:
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "n[2-3]",
        "SLURMD_NODENAME": "n3",
        **more,
    }
    return LaunchEnvironment("srun", 1, 2, 0, 1, False, provides_rendezvous=False), environ


def candidates(launch_env: LaunchEnvironment, environ: dict[str, str]) -> list[Endpoint]:
    return list(choose_discovery(launch_env, environ, 1.0).candidates())


def test_candidates_under_slurm() -> None:
    found = candidates(*slurm())
    assert {endpoint.addresses for endpoint in found} == {("n2",)}
    assert all(20000 <= endpoint.port < 32000 for endpoint in found)
    assert found == candidates(*slurm())
    for other in ({"SLURM_STEP_ID": "1"}, {"SLURM_RESTART_COUNT": "1"}, {"SLURM_JOB_ID": "8"}):
        assert not {endpoint.token for endpoint in candidates(*slurm(**other))} & {found[0].token}
    ports = [
        endpoint.port for endpoint in candidates(*slurm(SLURM_STEP_RESV_PORTS="12001-12002,12009"))
    ]
    assert ports[:3] == [12001, 12002, 12009]
    assert ports[3:] == [endpoint.port for endpoint in found]
    anywhere = candidates(*slurm(SLURM_DISTRIBUTION="arbitrary"))
    assert {endpoint.addresses for endpoint in anywhere} == {("n2", "n3")}
    on_one = candidates(*slurm(SLURM_STEP_NUM_NODES="1"))
    assert {endpoint.addresses for endpoint in on_one} == {("127.0.0.1",)}


def test_the_users_address_comes_first() -> None:
    launch_env, environ = slurm(HVDTOOLS_RENDEZVOUS="head.example:4000")
    (endpoint,) = candidates(launch_env, environ)
    assert (endpoint.addresses, endpoint.port) == (("head.example",), 4000)
    for wrong in ("head", "head:", ":4000", "head:0", "head:99999"):
        with pytest.raises(HvdtoolsError, match="must be host:port"):
            candidates(launch_env, {**environ, "HVDTOOLS_RENDEZVOUS": wrong})


def test_a_closed_pmi_connection() -> None:
    launch_env = LaunchEnvironment("mpirun (MPICH or Intel MPI)", 0, 2, 0, 2, False, False)
    with pytest.raises(HvdtoolsError, match="has closed the connection"):
        choose_discovery(launch_env, {"PMI_FD": "4999"}, 1.0)


def test_open_mpi_without_pmix_on_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvdtools.rendezvous.pmix.find_library", lambda environ: None)
    environ = {"PMIX_NAMESPACE": "prterun-a-12@1"}
    (endpoint, *_) = candidates(
        LaunchEnvironment("Open MPI's mpirun", 1, 2, 1, 2, True, False), environ
    )
    assert endpoint.addresses == ("127.0.0.1",)
    spread = choose_discovery(
        LaunchEnvironment("Open MPI's mpirun", 1, 2, 0, 1, True, False), environ, 1.0
    )
    assert isinstance(spread, SharedFile)


def test_a_shared_file(tmp_path: Path) -> None:
    file = SharedFile(tmp_path, "job 7")
    assert file.candidates() == ()
    endpoint = Endpoint(("10.0.0.1", "127.0.0.1"), 4000, "job 7")
    file.publish(endpoint)
    assert SharedFile(tmp_path, "job 7").candidates() == (endpoint,)
    assert SharedFile(tmp_path, "job 8").candidates() == ()
    file.clean_up()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HvdtoolsError, match="Rank 0 cannot write"):
        SharedFile(tmp_path / "nowhere", "job 7").publish(endpoint)


@pytest.mark.parametrize(("own_name", "written"), [("localhost", False), ("no.such.host.", True)])
def test_the_file_is_written_if_a_name_does_not_resolve(
    tmp_path: Path, own_name: str, written: bool
) -> None:
    static = StaticDiscovery((own_name,), (4000,), "job 7")
    discovery = HostNamesOrFile(static, SharedFile(tmp_path, "job 7"), own_name)
    discovery.publish(Endpoint(("10.0.0.1",), 4000, "job 7"))
    assert bool(list(tmp_path.iterdir())) == written


def test_own_addresses_end_with_loopback() -> None:
    addresses = own_addresses(None)
    assert addresses[-1] == "127.0.0.1"
    assert interface_of("127.0.0.1") == interface_of("127.0.1.1") == "lo"
    assert interface_of("198.51.100.77") is None
    assert own_addresses("lo") == ("127.0.0.1",)


def test_one_variable_for_the_interface() -> None:
    environ = {"HVDTOOLS_INTERFACE": "lo", "GLOO_SOCKET_IFNAME": "mine"}
    apply_named_interface(environ)
    assert environ["HOROVOD_GLOO_IFACE"] == "lo"
    assert environ["NCCL_SOCKET_IFNAME"] == "=lo"
    assert environ["GLOO_SOCKET_IFNAME"] == "mine"
    untouched: dict[str, str] = {}
    apply_named_interface(untouched)
    assert untouched == {}


@pytest.mark.parametrize("variable", ["HVDTOOLS_INTERFACE", "HOROVOD_GLOO_IFACE"])
def test_an_unknown_interface(variable: str) -> None:
    kind = rf"{variable} \(network interface of {re.escape(socket.gethostname())}\)"
    with pytest.raises(HvdtoolsError, match=rf"Unknown {kind} 'eth7': choose one of .*\blo\b"):
        apply_named_interface({variable: "eth7"})


def horovod(*built: str) -> SimpleNamespace:
    """A fake of Horovod: no machine has every build of it."""
    return SimpleNamespace(mpi_built=lambda: "mpi" in built, gloo_built=lambda: "gloo" in built)


SRUN = LaunchEnvironment("srun", 0, 2, 0, 2, serves_mpi=False, provides_rendezvous=False)
MPIRUN = LaunchEnvironment(
    "Open MPI's mpirun", 0, 2, 0, 2, serves_mpi=True, provides_rendezvous=False
)
HOROVODRUN = LaunchEnvironment("horovodrun", 0, 2, 0, 2, serves_mpi=False)


@pytest.mark.parametrize(
    ("launch_env", "built", "named", "controller"),
    [
        (SRUN, ("mpi", "gloo"), None, "gloo"),
        (SRUN, ("mpi", "gloo"), "mpi", "mpi"),
        (MPIRUN, ("mpi", "gloo"), None, "mpi"),
        (MPIRUN, ("mpi", "gloo"), "GLOO", "gloo"),
        (MPIRUN, ("gloo",), None, "gloo"),
        (HOROVODRUN, ("mpi", "gloo"), None, "gloo"),
        (SINGLE_PROCESS, ("mpi", "gloo"), None, "gloo"),
        (SINGLE_PROCESS, ("mpi",), None, "mpi"),
    ],
)
def test_the_controller(
    launch_env: LaunchEnvironment, built: tuple[str, ...], named: str | None, controller: str
) -> None:
    environ = {} if named is None else {"HOROVOD_CONTROLLER": named}
    assert choose_controller(horovod(*built), launch_env, environ) == controller


@pytest.mark.parametrize("named", [{}, {"HOROVOD_CPU_OPERATIONS": "MPI"}])
def test_gloo_does_not_use_an_mpi_that_was_not_started(named: dict[str, str]) -> None:
    prepare_gloo(SINGLE_PROCESS, named)
    assert named["HOROVOD_CPU_OPERATIONS"] == named["HOROVOD_CONTROLLER"] == "gloo"


@pytest.mark.parametrize(
    ("launch_env", "built", "named", "message"),
    [
        (SRUN, ("mpi",), None, "srun started 2 ranks for gloo, but this Horovod was built without"),
        (MPIRUN, ("gloo",), "mpi", "for mpi, but this Horovod was built without it"),
        (SRUN, ("gloo",), "nccl", "Unknown controller in HOROVOD_CONTROLLER 'nccl': choose one of"),
    ],
)
def test_a_controller_that_was_not_built(
    launch_env: LaunchEnvironment, built: tuple[str, ...], named: str | None, message: str
) -> None:
    environ = {} if named is None else {"HOROVOD_CONTROLLER": named}
    with pytest.raises(HvdtoolsError, match=message):
        choose_controller(horovod(*built), launch_env, environ)
