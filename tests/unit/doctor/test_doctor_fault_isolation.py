"""Fault isolation, over jobs that fail by a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hvdtools.doctor.allreduce.fault_isolation import FaultIsolation, OutOfTimeError, isolate_faults

Rule = Callable[[set[str]], bool]


def hosts(count: int) -> tuple[str, ...]:
    return tuple(f"h{number}" for number in range(count))


def searched(count: int, rule: Rule, most: int = 1000) -> tuple[FaultIsolation, int]:
    """What was found, and after how many jobs; no more than `most` are let run."""
    tried: list[tuple[str, ...]] = []

    def works(group: tuple[str, ...]) -> bool:
        if len(tried) == most:
            raise OutOfTimeError
        tried.append(group)
        return rule(set(group))

    return isolate_faults(hosts(count), works), len(tried)


@pytest.mark.parametrize("count", [3, 4, 5, 16, 64])
def test_one_faulty_host_is_found_wherever_it_is(count: int) -> None:
    for faulty in hosts(count):
        alone_fine, jobs = searched(
            count, lambda group, it=faulty: group == {it} or it not in group
        )
        assert (alone_fine.hosts, alone_fine.alone) == ((faulty,), ())
        assert jobs <= 2 * count.bit_length() + 3
        broken, _ = searched(count, lambda group, it=faulty: it not in group)
        assert (broken.hosts, broken.alone) == ((faulty,), (faulty,))


def test_several_faulty_hosts_are_found() -> None:
    bad = {"h0", "h7", "h8", "h31"}
    found, jobs = searched(32, lambda group: not group & bad)
    assert set(found.hosts) == set(found.alone) == bad
    assert jobs <= 40


def test_of_two_hosts_the_one_that_fails_alone_is_faulty() -> None:
    found, _ = searched(2, lambda group: "h1" not in group)
    assert found == FaultIsolation(("h1",), ("h1",))
    apart, _ = searched(2, lambda group: len(group) == 1)
    assert apart == FaultIsolation(suspects=("h0", "h1"))
    neither, _ = searched(2, lambda group: False)
    assert neither == FaultIsolation(alone=("h0", "h1"), suspects=("h0", "h1"))


def test_without_a_working_pair_all_hosts_are_suspects() -> None:
    found, _ = searched(6, lambda group: len(group) == 1)
    assert found.hosts == () and found.good is None and found.suspects == hosts(6)


def test_if_every_group_works_no_host_is_faulty() -> None:
    found, _ = searched(8, lambda group: len(group) < 6)
    assert found.groups and found.hosts == () and found.suspects == ()


def test_when_time_is_up_the_rest_are_suspects() -> None:
    found, jobs = searched(64, lambda group: "h40" not in group, most=3)
    assert jobs == 3 and found.hosts == ()
    assert found.good == "h0" and "h40" in found.suspects and "h3" not in found.suspects
