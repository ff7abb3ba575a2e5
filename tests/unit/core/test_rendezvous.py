"""The parts of the rendezvous that need no second process."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import ALONE, LaunchEnvironment
from hvdtools.rendezvous import apply_named_interface, choose_controller, prepare_gloo, static
from hvdtools.rendezvous.choose import choose
from hvdtools.rendezvous.endpoint import Endpoint
from hvdtools.rendezvous.file import NamesOrFile, SharedFile
from hvdtools.rendezvous.membership import (
    Member,
    Place,
    address_of_rank_0,
    on_one_machine,
    places_of,
    what_is_wrong,
    who_is_missing,
)
from hvdtools.rendezvous.network import interface_of, own_addresses


def members(*hosts: str, machines: str = "") -> list[Member]:
    """One for each host named, in rank order; local ranks as launchers count them."""
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


def horovods(places: list[Place]) -> list[tuple[str, int, int, int, int]]:
    return [(p.hostname, p.local_rank, p.local_size, p.cross_rank, p.cross_size) for p in places]


def test_places_two_and_two() -> None:
    assert horovods(places_of(members("a", "a", "b", "b"))) == [
        ("a", 0, 2, 0, 2), ("a", 1, 2, 0, 2), ("b", 0, 2, 1, 2), ("b", 1, 2, 1, 2),
    ]  # fmt: skip


def test_places_uneven_and_out_of_order() -> None:
    """The cross group of a local rank holds only the nodes that have so many ranks."""
    assert horovods(places_of(members("b", "a", "b", "c", "b", "a"))) == [
        ("b", 0, 3, 0, 3), ("a", 0, 2, 1, 3), ("b", 1, 3, 0, 2),
        ("c", 0, 1, 2, 3), ("b", 2, 3, 0, 1), ("a", 1, 2, 1, 2),
    ]  # fmt: skip


def test_two_hosts_of_one_name() -> None:
    twins = [replace(m, local_rank=0) for m in members("a", "a", machines="xy")]
    assert [place.hostname for place in places_of(twins)] == ["a-1", "a-2"]
    assert [place.cross_size for place in places_of(twins)] == [2, 2]


def test_local_ranks_that_do_not_fit() -> None:
    twice = [replace(member, local_rank=0) for member in members("a", "a")]
    with pytest.raises(ValueError, match=r"ranks on a say that their local ranks are 0, 0,"):
        places_of(twice)


def test_the_launchers_local_ranks_stay() -> None:
    """They chose the GPU already; any order of 0 to n - 1 will do."""
    found = [replace(m, local_rank=1 - m.local_rank) for m in members("a", "a")]
    assert [place.local_rank for place in places_of(found)] == [1, 0]


def test_contradictions() -> None:
    good = members("a", "a", "b")
    assert what_is_wrong(good, 3) is None
    assert what_is_wrong(good[:2], 3) is None
    assert "has 8 ranks and rank 0 says 3" in str(
        what_is_wrong([*good[:2], replace(good[2], size=8)], 3)
    )
    assert "Two processes say that they are rank 1 (a, b)" in str(
        what_is_wrong([*good, replace(good[1], host="b", nonce="other")], 3)
    )


def test_missing_ranks_are_named() -> None:
    some = members(*"abcdef")
    assert who_is_missing([some[0], *some[2:]], 6, 60).startswith("Rank 1 of 6 did not come")
    assert "Ranks 0, 1, 2, 3, 4, 5, 6, 7 and 4 more of 12" in who_is_missing([], 12, 60)


def test_where_others_reach_rank_0() -> None:
    found = members("a", "a", "b", "c", "d")
    found[1] = replace(found[1], via="127.0.1.1")  # on its own host
    found[2] = replace(found[2], via="172.17.0.1")
    assert address_of_rank_0(found) == "10.0.0.1"
    assert not on_one_machine(found)
    alone = members("a", "a")
    assert address_of_rank_0(alone) is None
    assert on_one_machine(alone)


@pytest.mark.parametrize(
    ("nodelist", "names"),
    [
        ("", ()),
        ("n1", ("n1",)),
        ("n[1-3,7],login", ("n1", "n2", "n3", "n7", "login")),
        ("rack[1-2]n[08-10]x", tuple(f"rack{r}n{n}x" for r in (1, 2) for n in ("08", "09", "10"))),
    ],
)
def test_slurms_list_of_nodes(nodelist: str, names: tuple[str, ...]) -> None:
    assert static.expand(nodelist) == names


def slurm(**more: str) -> tuple[LaunchEnvironment, dict[str, str]]:
    environ = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "n[2-3]",
        "SLURMD_NODENAME": "n3",
        **more,
    }
    return LaunchEnvironment("srun", 1, 2, 0, 1, False, brings_meeting_point=False), environ


def looks(launch_env: LaunchEnvironment, environ: dict[str, str]) -> list[Endpoint]:
    return list(choose(launch_env, environ, 1.0).look())


def test_ways_of_slurm() -> None:
    offers = looks(*slurm())
    assert {offer.addresses for offer in offers} == {("n2",)}
    assert all(20000 <= offer.port < 32000 for offer in offers)
    assert offers == looks(*slurm())
    for other in ({"SLURM_STEP_ID": "1"}, {"SLURM_RESTART_COUNT": "1"}, {"SLURM_JOB_ID": "8"}):
        assert not {offer.token for offer in looks(*slurm(**other))} & {offers[0].token}
    ports = [offer.port for offer in looks(*slurm(SLURM_STEP_RESV_PORTS="12001-12002,12009"))]
    assert ports[:3] == [12001, 12002, 12009]
    assert ports[3:] == [offer.port for offer in offers]
    anywhere = looks(*slurm(SLURM_DISTRIBUTION="arbitrary"))
    assert {offer.addresses for offer in anywhere} == {("n2", "n3")}
    on_one = looks(*slurm(SLURM_STEP_NUM_NODES="1"))
    assert {offer.addresses for offer in on_one} == {("127.0.0.1",)}


def test_the_users_own_place_comes_first() -> None:
    launch_env, environ = slurm(HVDTOOLS_RENDEZVOUS="head.example:4000")
    (offer,) = looks(launch_env, environ)
    assert (offer.addresses, offer.port) == (("head.example",), 4000)
    for wrong in ("head", "head:", ":4000", "head:0", "head:99999"):
        with pytest.raises(HvdtoolsError, match="must be host:port"):
            looks(launch_env, {**environ, "HVDTOOLS_RENDEZVOUS": wrong})


def test_a_closed_pmi_connection() -> None:
    launch_env = LaunchEnvironment("mpirun (MPICH or Intel MPI)", 0, 2, 0, 2, False, False)
    with pytest.raises(HvdtoolsError, match="has closed the connection"):
        choose(launch_env, {"PMI_FD": "4999"}, 1.0)


def test_open_mpi_without_pmix_on_one_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvdtools.rendezvous.pmix.find_library", lambda environ: None)
    environ = {"PMIX_NAMESPACE": "prterun-a-12@1"}
    (offer, *_) = looks(LaunchEnvironment("Open MPI's mpirun", 1, 2, 1, 2, True, False), environ)
    assert offer.addresses == ("127.0.0.1",)
    spread = choose(LaunchEnvironment("Open MPI's mpirun", 1, 2, 0, 1, True, False), environ, 1.0)
    assert isinstance(spread, SharedFile)


def test_a_shared_file(tmp_path: Path) -> None:
    file = SharedFile(tmp_path, "job 7")
    assert file.look() == ()
    offer = Endpoint(("10.0.0.1", "127.0.0.1"), 4000, "job 7")
    file.publish(offer)
    assert SharedFile(tmp_path, "job 7").look() == (offer,)
    assert SharedFile(tmp_path, "job 8").look() == ()
    file.forget()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HvdtoolsError, match="Rank 0 cannot write"):
        SharedFile(tmp_path / "nowhere", "job 7").publish(offer)


@pytest.mark.parametrize(("own_name", "written"), [("localhost", False), ("no.such.host.", True)])
def test_the_file_is_written_where_a_name_leads_nowhere(
    tmp_path: Path, own_name: str, written: bool
) -> None:
    place = static.StaticDiscovery((own_name,), (4000,), "job 7")
    way = NamesOrFile(place, SharedFile(tmp_path, "job 7"), own_name)
    way.publish(Endpoint(("10.0.0.1",), 4000, "job 7"))
    assert bool(list(tmp_path.iterdir())) == written


def test_own_addresses_begin_with_a_real_one() -> None:
    addresses = own_addresses(None)
    assert addresses[-1] == "127.0.0.1"
    assert interface_of("127.0.0.1") == interface_of("127.0.1.1") == "lo"
    assert interface_of("198.51.100.77") is None
    assert own_addresses("lo") == ("127.0.0.1",)


def test_one_knob_for_the_interface() -> None:
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
    """Stands for builds that one machine does not have all of."""
    return SimpleNamespace(mpi_built=lambda: "mpi" in built, gloo_built=lambda: "gloo" in built)


SRUN = LaunchEnvironment("srun", 0, 2, 0, 2, serves_mpi=False, brings_meeting_point=False)
MPIRUN = LaunchEnvironment(
    "Open MPI's mpirun", 0, 2, 0, 2, serves_mpi=True, brings_meeting_point=False
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
        (ALONE, ("mpi", "gloo"), None, "gloo"),
        (ALONE, ("mpi",), None, "mpi"),
    ],
)
def test_who_coordinates(
    launch_env: LaunchEnvironment, built: tuple[str, ...], named: str | None, controller: str
) -> None:
    environ = {} if named is None else {"HOROVOD_CONTROLLER": named}
    assert choose_controller(horovod(*built), launch_env, environ) == controller


@pytest.mark.parametrize("named", [{}, {"HOROVOD_CPU_OPERATIONS": "MPI"}])
def test_gloo_does_not_sum_through_an_mpi_that_nobody_started(named: dict[str, str]) -> None:
    prepare_gloo(ALONE, named)
    assert named["HOROVOD_CPU_OPERATIONS"] == named["HOROVOD_CONTROLLER"] == "gloo"


@pytest.mark.parametrize(
    ("launch_env", "built", "named", "words"),
    [
        (SRUN, ("mpi",), None, "srun started 2 ranks for gloo, but this Horovod was built without"),
        (MPIRUN, ("gloo",), "mpi", "for mpi, but this Horovod was built without it"),
        (SRUN, ("gloo",), "nccl", "Unknown controller in HOROVOD_CONTROLLER 'nccl': choose one of"),
    ],
)
def test_nobody_can_coordinate(
    launch_env: LaunchEnvironment, built: tuple[str, ...], named: str | None, words: str
) -> None:
    environ = {} if named is None else {"HOROVOD_CONTROLLER": named}
    with pytest.raises(HvdtoolsError, match=words):
        choose_controller(horovod(*built), launch_env, environ)
