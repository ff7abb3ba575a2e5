"""Hosts as they are written down, and the lines that are no hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import Host, read_hostfile, read_hosts

FILE = """\
# the cluster
host1 slots=4
host2:2          # MPICH's way

user@10.0.0.3 slots=1 max_slots=8
host4
"""


def test_both_ways_of_a_hostfile(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text(FILE)
    named = (Host("host1", 4), Host("host2", 2), Host("user@10.0.0.3", 1))
    assert read_hostfile(file) == (*named, Host("host4", 1))
    assert read_hostfile(file, slots=3) == (*named, Host("host4", 3))


def test_hosts_of_a_flag() -> None:
    assert read_hosts("a:4, b") == (Host("a", 4), Host("b", 1))
    assert read_hosts("a,b", slots=2) == (Host("a", 2), Host("b", 2))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("host1 slot=4", "'slot=4' is not known"),
        ("host1 slots=four", "'four' is no number of slots"),
        ("host1 slots=", "'nothing' is no number of slots"),
        ("host1:", "'' is no number of slots"),
        ("host1:0", "has 0 slots"),
        ("host1:2 slots=2", "'slots=2' is not known"),
        ("-oProxyCommand=x:1", "'-oProxyCommand=x' is not the name of a host"),
        ("a;reboot:1", "'a;reboot' is not the name"),
        ("host0 slots=1", "Host host0 is named twice"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "hosts"
    file.write_text(f"host0 slots=2\n\n{line}\n")
    with pytest.raises(HvdtoolsError, match="line 3") as caught:
        read_hostfile(file)
    assert says in str(caught.value) and line in str(caught.value)


def test_a_file_without_hosts(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# none\n")
    with pytest.raises(HvdtoolsError, match="names no host"):
        read_hostfile(tmp_path / "hosts")
    with pytest.raises(HvdtoolsError, match="cannot be read"):
        read_hostfile(tmp_path)
